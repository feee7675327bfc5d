//! What an operator puts right by hand moves the wallet once, and says why.

use tollgate::ledger::admin::{Adjusted, Admin, NewAdjustment};
use tollgate::ledger::{Ledger, LedgerError};
use tollgate::money::{MAX_AMOUNT, Nanos};
use tollgate::quota::AccountId;

use super::world::World;

fn new(credit: i64, source_ref: Option<&str>) -> NewAdjustment {
    NewAdjustment {
        credit: Nanos(credit),
        reason: "an outage".into(),
        source_ref: source_ref.map(str::to_owned),
    }
}

async fn adjust(admin: &Admin, account: &AccountId, credit: i64) {
    let made = admin.adjust(account, &new(credit, None)).await.unwrap();
    assert!(matches!(made, Adjusted::Made(_)), "{made:?}");
}

pub async fn credit_is_given_and_taken_and_the_lots_pay_what_is_owed(world: World) {
    let account = world.account(&[100]).await;
    let admin = world.admin().await;
    adjust(&admin, &account, 50).await;
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 150);
    adjust(&admin, &account, -80).await;
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 70);
    let image = world.ledger.image(&account).await.unwrap().unwrap();
    assert_eq!(image.debt, Nanos::ZERO, "the lot has paid it");
    let posted = world.posted(&account).await;
    assert_eq!((posted["adjusted"], posted["lot"]), (30, 70));
}

pub async fn a_cold_account_is_adjusted_too(world: World) {
    let account = world.cold_account(&[10]).await;
    adjust(&world.admin().await, &account, -30).await;
    world.quiesce(&account).await;
    world.loader.load(&account).await.unwrap();
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, -20);
}

pub async fn the_same_reference_adjusts_once_and_bounds_are_kept(world: World) {
    let account = world.account(&[]).await;
    let admin = world.admin().await;
    let made = admin.adjust(&account, &new(5, Some("x"))).await.unwrap();
    let Adjusted::Made(id) = made else {
        panic!("{made:?}");
    };
    let again = admin.adjust(&account, &new(5, Some("x"))).await.unwrap();
    assert_eq!(again, Adjusted::Already(id));
    let nobody: AccountId = "nobody".parse().unwrap();
    let unsaid = NewAdjustment {
        reason: " ".into(),
        ..new(1, None)
    };
    for (account, refused) in [
        (&account, new(6, Some("x"))),
        (&account, new(0, None)),
        (&account, new(MAX_AMOUNT + 1, None)),
        (&account, new(i64::MIN, None)),
        (&account, unsaid),
        (&nobody, new(1, None)),
    ] {
        let error = admin.adjust(account, &refused).await.unwrap_err();
        assert!(
            matches!(error, LedgerError::Invalid(_)),
            "{refused:?}: {error}"
        );
    }
    let owe =
        format!("UPDATE account SET debt_nanos = -2000000000000000000 WHERE id = '{account}'");
    world.place.run(&owe).await.unwrap();
    let beyond = admin.adjust(&account, &new(1, None)).await.unwrap_err();
    assert!(matches!(beyond, LedgerError::Invalid(_)), "{beyond}");
}
