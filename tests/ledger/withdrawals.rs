//! Void and refund: asked for by the ledger, taken by the store, done once (rule 27).

use tollgate::ledger::admin::{Admin, Asked, NewWithdrawal};
use tollgate::ledger::{Ledger, LedgerError};
use tollgate::money::{MAX_AMOUNT, Nanos};
use tollgate::quota::{AccountId, ChangeBody, LotId, Withdrawal, WithdrawalReason};

use super::world::World;

fn new(lot: LotId, amount: Option<i64>, source_ref: &str) -> NewWithdrawal {
    NewWithdrawal {
        lot,
        reason: WithdrawalReason::Void,
        amount: amount.map(Nanos),
        source_ref: Some(source_ref.to_owned()),
    }
}

async fn ask(admin: &Admin, account: &AccountId, asked: &NewWithdrawal) -> Withdrawal {
    match admin.withdraw(account, asked).await.unwrap() {
        Asked::New(withdrawal) => withdrawal,
        again @ Asked::Already(_) => panic!("{again:?}"),
    }
}

/// What was taken for each withdrawal of an account; `None` while it is pending.
async fn taken(world: &World, account: &AccountId) -> Vec<Option<i64>> {
    let taken = "SELECT taken_nanos FROM withdrawal WHERE account_id = $1 ORDER BY change_seq";
    let taken: Vec<(Option<i64>,)> = world.place.rows(taken, account).await;
    taken.into_iter().map(|(nanos,)| nanos).collect()
}

pub async fn a_void_takes_what_is_left_and_what_is_held_stays(world: World) {
    let account = world.account(&[]).await;
    let lot = world.grant(&account, 100).await;
    world.quiesce(&account).await;
    let id = world.hold(&account, 10).await;
    let admin = world.admin().await;
    let withdrawal = ask(&admin, &account, &new(lot, None, "mistake")).await;
    assert_eq!(withdrawal.amount, Nanos(100));
    assert_eq!(taken(&world, &account).await, [None]);
    world.quiesce(&account).await;
    assert_eq!(taken(&world, &account).await, [Some(90)]);
    world.assert_no_drift(&account).await;
    world.settle(&account, id, 4).await;
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 6);
    let posted = world.posted(&account).await;
    assert_eq!((posted["voided"], posted["used"]), (90, 4));

    // What came back from the hold was granted too, and may be asked for.
    let rest = new(lot, None, "the rest of it");
    assert_eq!(ask(&admin, &account, &rest).await.amount, Nanos(10));
    world.assert_one(&account).await;
    assert_eq!(taken(&world, &account).await, [Some(90), Some(6)]);
}

pub async fn a_refund_of_a_part_takes_that_part(world: World) {
    let account = world.account(&[50]).await;
    let lot = world.grant(&account, 100).await;
    let refund = NewWithdrawal {
        reason: WithdrawalReason::Refund,
        ..new(lot, Some(30), "re_1")
    };
    ask(&world.admin().await, &account, &refund).await;
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 120);
    assert_eq!(world.posted(&account).await["refunded"], 30);
}

pub async fn the_same_reason_withdraws_once_and_another_amount_for_it_is_refused(world: World) {
    let account = world.account(&[]).await;
    let lot = world.grant(&account, 100).await;
    let admin = world.admin().await;
    let first = ask(&admin, &account, &new(lot, Some(60), "x")).await;
    for amount in [Some(60), None] {
        let again = admin.withdraw(&account, &new(lot, amount, "x")).await;
        assert_eq!(again.unwrap(), Asked::Already(first.clone()));
    }
    let changes = world.ledger.row(world.shard(&account)).await.unwrap();
    let nobody: AccountId = "nobody".parse().unwrap();
    for (account, asked) in [
        (&account, new(lot, Some(61), "x")),
        (&account, new(lot, Some(41), "more than was granted")),
        (&account, new(lot, Some(0), "nothing")),
        (&account, new(lot, Some(-1), "less")),
        (&account, new(lot, Some(MAX_AMOUNT + 1), "too much")),
        (&account, new(LotId(lot.0 + 1000), None, "no such lot")),
        (&nobody, new(lot, None, "somebody else's")),
    ] {
        let refused = admin.withdraw(account, &asked).await.unwrap_err();
        assert!(
            matches!(refused, LedgerError::Invalid(_)),
            "{asked:?}: {refused}"
        );
    }
    let after = world.ledger.row(world.shard(&account)).await.unwrap();
    assert_eq!(after, changes, "nothing was numbered");
    ask(&admin, &account, &new(lot, None, "the rest")).await;
    let spent = admin.withdraw(&account, &new(lot, None, "once more")).await;
    assert!(matches!(spent, Err(LedgerError::Invalid(_))), "{spent:?}");
    world.assert_one(&account).await;
    assert_eq!(taken(&world, &account).await, [Some(60), Some(40)]);
}

pub async fn a_cold_account_is_withdrawn_from_when_it_is_loaded(world: World) {
    let account = world.cold_account(&[7]).await;
    let lot = world.grant(&account, 100).await;
    let asked = new(lot, Some(30), "x");
    let withdrawal = ask(&world.admin().await, &account, &asked).await;
    world.quiesce(&account).await;
    assert_eq!(taken(&world, &account).await, [None]);
    let image = world.ledger.image(&account).await.unwrap().unwrap();
    assert_eq!(image.withdrawals, [withdrawal]);
    world.loader.load(&account).await.unwrap();
    world.assert_one(&account).await;
    assert_eq!(taken(&world, &account).await, [Some(30)]);
    let image = world.ledger.image(&account).await.unwrap().unwrap();
    assert_eq!(image.withdrawals, []);
    assert_eq!(world.balance(&account).await, 77);
}

pub async fn a_store_that_forgot_what_it_took_takes_it_when_the_account_is_loaded_again(
    world: World,
) {
    let account = world.account(&[]).await;
    let lot = world.grant(&account, 100).await;
    ask(&world.admin().await, &account, &new(lot, Some(30), "x")).await;
    let shard = world.shard(&account);
    world.applier.apply_shard(shard).await.unwrap();
    assert_eq!(world.balance(&account).await, 70);
    let world = world.over_store(world.empty_store()).await;
    world.loader.load(&account).await.unwrap();
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 70);
    assert_eq!(taken(&world, &account).await, [Some(30)]);
}

pub async fn what_the_store_takes_twice_is_undone(world: World) {
    let account = world.account(&[]).await;
    let lot = world.grant(&account, 100).await;
    let asked = new(lot, Some(30), "x");
    let withdrawal = ask(&world.admin().await, &account, &asked).await;
    let body = ChangeBody {
        withdraw: Some(withdrawal),
        ..ChangeBody::default()
    };
    let shard = world.shard(&account);
    world.place.append(&account, shard, body).await;
    world.applier.apply_shard(shard).await.unwrap();
    assert_eq!(world.balance(&account).await, 40);
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 70);
    assert_eq!(taken(&world, &account).await, [Some(30)]);
    assert_eq!(world.posted(&account).await["voided"], 30);
}
