//! What an operator changes is changed once, reaches the store, and reads the same on every ledger.

use tollgate::catalog::Catalog;
use tollgate::ledger::admin::{AccountEdit, Admin, Difference, Granted, NewGrant, NewKey};
use tollgate::ledger::{KeyHash, Ledger, LedgerError};
use tollgate::money::{MAX_AMOUNT, Nanos};
use tollgate::price::seed;
use tollgate::quota::{AccountId, LotId, Mode, Status, Store};
use uuid::Uuid;

use super::world::World;

fn credit(nanos: i64, source_ref: Option<&str>) -> NewGrant {
    NewGrant {
        amount: Nanos(nanos),
        priority: 0,
        expires_at: None,
        source_ref: source_ref.map(str::to_owned),
    }
}

fn some_account() -> AccountId {
    Uuid::now_v7().to_string().parse().unwrap()
}

async fn granted(admin: &Admin, account: &AccountId, grant: &NewGrant) -> LotId {
    match admin.grant(account, grant).await.unwrap() {
        Granted::Made(lot) => lot,
        again @ Granted::Already(_) => panic!("{again:?}"),
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, LedgerError>, says: &str) {
    match answer {
        Err(LedgerError::Invalid(reason)) if reason.contains(says) => {}
        other => panic!("{other:?} does not say `{says}`"),
    }
}

pub async fn an_account_is_made_once_edited_and_listed(world: World) {
    let admin = world.admin().await;
    let account = some_account();
    refused(
        admin.create_account(&account, Some("none")).await,
        "no plan",
    );
    assert!(!admin.has_account(&account).await.unwrap());
    admin.create_account(&account, None).await.unwrap();
    refused(admin.create_account(&account, None).await, "already");
    assert!(admin.has_account(&account).await.unwrap());
    world.loader.load(&account).await.unwrap();

    let edit = AccountEdit {
        mode: Some(Mode::Monitor),
        status: Some(Status::Suspended),
        overage: Some(Nanos(7)),
        plan: None,
    };
    admin.edit_account(&account, &edit).await.unwrap();
    refused(
        admin.edit_account(&some_account(), &edit).await,
        "no account",
    );
    world.assert_one(&account).await;
    let view = world.store.account(&account).await.unwrap().unwrap();
    let snapshot = view.snapshot;
    assert_eq!(snapshot.version.0, 2);
    assert_eq!(
        (snapshot.mode, snapshot.status, snapshot.overage),
        (Mode::Monitor, Status::Suspended, Nanos(7))
    );

    let second = some_account();
    admin.create_account(&second, None).await.unwrap();
    let listed = admin.accounts_after(None, 1).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (&listed[0].account, &*listed[0].mode),
        (&account, "monitor")
    );
    let after = admin.accounts_after(Some(&account), 5).await.unwrap();
    assert_eq!(after.len(), 1);
    assert_eq!((&after[0].account, &*after[0].status), (&second, "active"));
}

pub async fn a_reason_grants_once_and_bounds_are_kept(world: World) {
    let admin = world.admin().await;
    let account = world.account(&[]).await;
    let lot = granted(&admin, &account, &credit(100, Some("x"))).await;
    let again = admin.grant(&account, &credit(100, Some("x"))).await;
    assert_eq!(again.unwrap(), Granted::Already(lot));
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 100);
    let expired = NewGrant {
        expires_at: Some(tollgate::clock::UnixMs(1)),
        ..credit(1, None)
    };
    for (grant, says) in [
        (credit(101, Some("x")), "already"),
        (credit(0, None), "more than zero"),
        (credit(MAX_AMOUNT + 1, None), "at most"),
        (expired, "in the past"),
    ] {
        refused(admin.grant(&account, &grant).await, says);
    }
    let nobodys = admin.grant(&some_account(), &credit(1, None)).await;
    refused(nobodys, "no account");
    for _ in 1..tollgate::quota::MAX_LOTS {
        granted(&admin, &account, &credit(1, None)).await;
    }
    refused(admin.grant(&account, &credit(1, None)).await, "lots");
    world.assert_one(&account).await;
}

pub async fn a_revoked_key_is_nobodys_and_its_account_learns_of_it(world: World) {
    let admin = world.admin().await;
    let account = world.account(&[]).await;
    let key = NewKey {
        id: Uuid::now_v7(),
        hash: KeyHash([7; 32]),
        last_four: "abcd".into(),
        name: "backend".into(),
    };
    refused(admin.create_key(&some_account(), &key).await, "no account");
    admin.create_key(&account, &key).await.unwrap();
    let identity = world.ledger.identify(&key.hash).await.unwrap().unwrap();
    assert_eq!((identity.key, &identity.account), (key.id, &account));

    assert_eq!(admin.revoke_key(key.id).await.unwrap(), account);
    assert_eq!(admin.revoke_key(key.id).await.unwrap(), account);
    refused(admin.revoke_key(Uuid::now_v7()).await, "no key");
    assert!(world.ledger.identify(&key.hash).await.unwrap().is_none());
    let listed = admin.keys(&account).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].id, &*listed[0].last_four), (key.id, "abcd"));
    assert!(listed[0].revoked_at.unwrap() >= listed[0].created_at);
    refused(admin.keys(&some_account()).await, "no account");

    world.assert_one(&account).await;
    let view = world.store.account(&account).await.unwrap().unwrap();
    assert!(view.snapshot.keys_version > identity.keys_version);
    // Revoked twice, it is one change.
    assert_eq!(view.snapshot.version.0, 2);
}

fn catalogue(limit: u32, markup: u32) -> Catalog {
    let text = format!(
        "[[plan]]\nkey = \"project\"\nname = \"Project\"\n\
         quotas = [{{ resource = \"tokens\", window = \"month\", limit = {limit} }}]\n\
         [[price]]\nprovider = \"openai\"\nmodel = \"house\"\ninput = \"1\"\noutput = \"2\"\n\
         [markup]\npercent = \"{markup}\"\n"
    );
    Catalog::parse(&text).unwrap()
}

pub async fn a_catalogue_is_written_once_and_its_accounts_follow(world: World) {
    let admin = world.admin().await;
    let first = catalogue(5, 20);
    let rehearsed = admin.compare_catalog(&first).await.unwrap();
    assert_eq!(rehearsed.len(), 3, "{rehearsed:?}");
    assert_eq!(world.ledger.prices_version().await.unwrap(), 1, "rehearsed");
    assert_eq!(admin.write_catalog(&first).await.unwrap(), rehearsed);
    assert_eq!(admin.write_catalog(&first).await.unwrap(), []);
    let prices = world.ledger.prices().await.unwrap();
    assert_eq!(prices.version, 2);
    assert_eq!(prices.markup_percent, 20.into());
    assert_eq!(prices.entries.len(), 1);

    let account = some_account();
    admin
        .create_account(&account, Some("project"))
        .await
        .unwrap();
    world.loader.load(&account).await.unwrap();
    let changed = admin.write_catalog(&catalogue(6, 20)).await.unwrap();
    assert!(
        matches!(&changed[..], [Difference::PlanChanged { accounts: 1, .. }]),
        "{changed:?}"
    );
    let mut batches = 0;
    let followed = admin.move_accounts(|_| batches += 1).await.unwrap();
    assert_eq!((followed.accounts, batches), (1, 1));
    assert!(followed.shards.contains(&world.shard(&account)));
    let again = admin.move_accounts(|_| {}).await.unwrap();
    assert_eq!(again.accounts, 0);
    world.assert_one(&account).await;
    let view = world.store.account(&account).await.unwrap().unwrap();
    assert_eq!(view.snapshot.version.0, 2);

    // A price that is left out is retired, and a plan that is left out stays.
    let nothing = Catalog::parse("").unwrap();
    let changed = admin.write_catalog(&nothing).await.unwrap();
    let kept = |difference: &Difference| matches!(difference, Difference::PlanKept { .. });
    assert!(changed.iter().any(kept), "{changed:?}");
    assert_eq!(world.ledger.prices().await.unwrap().entries, []);
}

pub async fn prices_that_come_along_are_put_in_place_of_older_ones(world: World) {
    let admin = world.admin().await;
    let entries = seed();
    let added = admin.seed_prices(&entries).await.unwrap();
    assert_eq!(added.added.len(), entries.len());
    assert!(admin.seed_prices(&entries).await.unwrap().is_empty());
    let before = world.ledger.prices().await.unwrap();
    assert_eq!(before.entries.len(), entries.len());

    let changed = admin.seed_prices(&entries[1..]).await.unwrap();
    assert_eq!((changed.added.len(), changed.retired.len()), (0, 1));
    let after = world.ledger.prices().await.unwrap();
    assert_eq!(after.version, before.version + 1);
    // What stays keeps its number, by which records name it.
    assert_eq!(after.entries, before.entries[1..]);

    let shorter = &entries[1..entries.len() - 1];
    let changed = admin.seed_prices(shorter).await.unwrap();
    assert_eq!((changed.added.len(), changed.retired.len()), (0, 1));
}
