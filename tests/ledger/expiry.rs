//! A lot whose time is over is emptied by the store, and what was left is posted as breakage (rule 27).

use tollgate::clock::{Clock, UnixMs};
use tollgate::ledger::{Expiry, Ledger};
use tollgate::quota::{AccountId, ExpireAnswer, ExpiredLot, LotId, Store};

use super::place::TestGrant;
use super::world::World;

const HOUR_MS: i64 = 3_600_000;

/// Grants 100 that expire in an hour.
async fn expiring(world: &World, account: &AccountId) -> (LotId, UnixMs) {
    let expires_at = world.now().plus_ms(HOUR_MS);
    let grant = TestGrant {
        nanos: 100,
        priority: 0,
        kind: "paid",
        effective_at: UnixMs(0),
        expires_at: Some(expires_at),
    };
    let lot = world
        .place
        .grant(account, world.shard(account), &grant)
        .await;
    world.pass_ms(HOUR_MS / 2);
    world.quiesce(account).await;
    (lot, expires_at)
}

async fn expired(world: &World, account: &AccountId) -> Vec<ExpiredLot> {
    let shard = world.shard(account);
    world.ledger.expired(shard, world.now(), 10).await.unwrap()
}

pub async fn what_is_left_of_an_expired_lot_becomes_breakage_once(world: World) {
    let account = world.account(&[]).await;
    let (lot, expires_at) = expiring(&world, &account).await;
    assert_eq!(expired(&world, &account).await, []);
    let id = world.hold(&account, 10).await;
    world.pass_ms(HOUR_MS);
    let due = ExpiredLot {
        account: account.clone(),
        lot,
        expires_at,
    };
    assert_eq!(expired(&world, &account).await, std::slice::from_ref(&due));
    for expected in [true, false] {
        let answer = world.store.expire(&due).await.unwrap();
        let is_expired = matches!(answer, ExpireAnswer::Expired(_));
        assert_eq!(is_expired, expected, "{answer:?}");
    }
    world.flush(&account).await;
    assert_eq!(world.posted(&account).await["expired"], 90);
    world.assert_no_drift(&account).await;

    // What the hold does not use is found again.
    world.settle(&account, id, 4).await;
    world.flush(&account).await;
    assert_eq!(expired(&world, &account).await, std::slice::from_ref(&due));
    world.store.expire(&due).await.unwrap();
    world.assert_one(&account).await;
    assert_eq!(expired(&world, &account).await, []);
    let posted = world.posted(&account).await;
    assert_eq!((posted["expired"], posted["used"]), (96, 4));
    assert_eq!(posted.get("lot"), None, "it is empty");
}

pub async fn lots_expire_by_themselves_whether_their_account_is_live_or_cold(world: World) {
    let account = world.account(&[5]).await;
    expiring(&world, &account).await;
    let shard = world.shard(&account);
    let clock = Clock::Manual(world.time.clone());
    let expiry = |world: &World| {
        let (store, ledger) = (world.store.clone(), world.ledger.clone());
        let (loader, flusher) = (world.loader.clone(), world.flusher.clone());
        Expiry::new(store, ledger, loader, flusher, clock.clone())
    };
    assert_eq!(expiry(&world).shard(shard).await.unwrap(), 0, "not due");
    world.pass_ms(HOUR_MS);
    assert_eq!(expiry(&world).shard(shard).await.unwrap(), 1);
    assert!(world.flusher.flush_dirty().await, "the shard is marked");
    assert_eq!(world.posted(&account).await["expired"], 100);
    assert_eq!(expiry(&world).shard(shard).await.unwrap(), 0, "once");

    let (second, _) = expiring(&world, &account).await;
    world.pass_ms(HOUR_MS);
    let world = world.over_store(world.empty_store()).await;
    assert_eq!(world.store.account(&account).await.unwrap(), None);
    assert_eq!(expiry(&world).shard(shard).await.unwrap(), 1, "{second:?}");
    world.assert_one(&account).await;
    assert_eq!(world.posted(&account).await["expired"], 200);
}

pub async fn only_expired_lots_with_something_left_are_listed_and_no_more_than_asked_for(
    world: World,
) {
    let account = world.account(&[5]).await;
    for _ in 0..3 {
        expiring(&world, &account).await;
    }
    world.pass_ms(2 * HOUR_MS);
    let shard = world.shard(&account);
    let all = expired(&world, &account).await;
    assert_eq!(all.len(), 3);
    let first = world.ledger.expired(shard, world.now(), 2).await.unwrap();
    assert_eq!(first, all[..2]);
    for other in (0..world.store.shards()).filter(|other| *other != shard.0) {
        let other = tollgate::quota::ShardId(other);
        let lots = world.ledger.expired(other, world.now(), 10).await.unwrap();
        assert_eq!(lots, []);
    }
}
