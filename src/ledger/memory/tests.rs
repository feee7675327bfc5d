//! The tasks between a store and this ledger, worked by hand.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{sleep, timeout};

use super::*;
use crate::clock::Clock;
use crate::ledger::{Applier, Flushed, Flusher, Keeper, Loader};
use crate::money::Amount;
use crate::quota::embedded::EmbeddedStore;
use crate::quota::{
    Count, ENDED_MARK_MS, Epoch, Mode, Outcome, ReservationId, Settle, Status, Version,
};

fn snapshot(account: &AccountId) -> Snapshot {
    Snapshot {
        account: account.clone(),
        version: Version(1),
        keys_version: 1,
        plan: None,
        mode: Mode::Enforce,
        status: Status::Active,
        anchor_at: None,
        limits: Vec::new(),
        overage: Nanos::ZERO,
        markup_percent: None,
        throttle: None,
    }
}

fn prices() -> Prices {
    Prices {
        version: 1,
        entries: Vec::new(),
        markup_percent: rust_decimal::Decimal::ZERO,
    }
}

fn grant(nanos: i64) -> NewGrant {
    NewGrant {
        amount: Nanos(nanos),
        priority: 0,
        promotional: false,
        effective_at: UnixMs(0),
        expires_at: None,
    }
}

/// A store and a ledger in memory with one account of 100 that is live, and the tasks between them.
struct World {
    time: Arc<AtomicI64>,
    store: Arc<EmbeddedStore>,
    ledger: Arc<MemoryLedger>,
    applier: Arc<Applier<EmbeddedStore, MemoryLedger>>,
    keeper: Arc<Keeper<EmbeddedStore, MemoryLedger>>,
    flusher: Flusher<EmbeddedStore, MemoryLedger>,
    account: AccountId,
    shard: ShardId,
}

const SHARDS: u16 = 2;

impl World {
    async fn new() -> Self {
        let time = Arc::new(AtomicI64::new(1_000));
        let clock = Clock::Manual(time.clone());
        let store = Arc::new(EmbeddedStore::in_memory(SHARDS, 100, clock.clone()));
        let ledger = Arc::new(MemoryLedger::new(SHARDS, prices()));
        let keeper = Arc::new(Keeper::new(store.clone(), ledger.clone(), clock.clone()));
        let applier = Arc::new(Applier::new(store.clone(), ledger.clone(), clock.clone()));
        assert!(keeper.round().await);
        let flusher = Flusher::new(
            store.clone(),
            ledger.clone(),
            keeper.clone(),
            applier.clone(),
            clock,
        );
        let account: AccountId = "demo".parse().unwrap();
        ledger.create_account(snapshot(&account)).await;
        ledger.grant(&account, &grant(100)).await.unwrap();
        let loader = Loader::new(store.clone(), ledger.clone());
        loader.load(&account).await.unwrap();
        Self {
            shard: account.shard(SHARDS),
            time,
            store,
            ledger,
            applier,
            keeper,
            flusher,
            account,
        }
    }

    /// An ending in the outbox, of an id that the store does not know.
    fn settle(&self) -> Settle {
        Settle {
            id: ReservationId::new(),
            account: self.account.clone(),
            outcome: Outcome::Settled,
            charge: Nanos(30),
            counts: vec![Count {
                key: "account/requests/day".parse().unwrap(),
                start: UnixMs(0),
                amount: Amount(1),
            }],
            detail: "{}".into(),
        }
    }

    async fn records(&self) -> usize {
        self.ledger.records(&self.account).await.len()
    }
}

#[tokio::test]
async fn it_charges_once_and_the_store_follows() {
    let world = World::new().await;
    let (ledger, store) = (&world.ledger, &world.store);
    ledger.grant(&world.account, &grant(50)).await.unwrap();
    assert_eq!(world.applier.round().await.unwrap(), 2);

    // Each settle is of an id that the store knows no more: all but the first are undone.
    let settle = world.settle();
    for _ in 0..3 {
        store.settle(&settle).await.unwrap();
        world.time.fetch_add(ENDED_MARK_MS + 1, Ordering::Relaxed);
    }
    let flushed = world.flusher.flush(world.shard).await.unwrap();
    assert_eq!(flushed, Flushed::Drained(3));
    assert_eq!(world.applier.round().await.unwrap(), 2);
    assert_eq!(world.records().await, 1);

    let image = ledger.image(&world.account).await.unwrap().unwrap();
    let view = store.account(&world.account).await.unwrap().unwrap();
    let left: Vec<Nanos> = image.lots.iter().map(|(_, left)| *left).collect();
    assert_eq!(left, [Nanos(70), Nanos(50)]);
    let store_left: Vec<Nanos> = view.lots.iter().map(|(_, lot)| lot.left).collect();
    assert_eq!(store_left, left);
    assert_eq!(image.counters[0].used, view.counters[0].used);
}

#[tokio::test(start_paused = true)]
async fn a_flusher_that_always_has_something_to_do_still_finds_what_nobody_marked() {
    let world = Arc::new(World::new().await);
    // As a sidecar that died would leave it.
    world.store.settle(&world.settle()).await.unwrap();
    // A shard that the store has lost stays marked, whatever the flusher does.
    let lost = ShardId(1 - world.shard.0);
    let nowhere = Epoch(0);
    world.store.adopt(lost, nowhere);
    world.flusher.mark(lost);
    let flushing = world.clone();
    let flushing = tokio::spawn(async move { flushing.flusher.run().await });
    let found = async {
        while world.records().await == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_mins(5), found)
        .await
        .expect("its turn comes within a round");
    flushing.abort();
}

#[tokio::test]
async fn a_flush_does_not_run_after_what_comes_meanwhile() {
    let world = World::new().await;
    world.store.settle(&world.settle()).await.unwrap();
    let (store, later) = (world.store.clone(), world.settle());
    let flusher = Flusher::new(
        world.store.clone(),
        world.ledger.clone(),
        world.keeper.clone(),
        world.applier.clone(),
        Clock::System,
    );
    let flusher = flusher.telling(move |_| {
        let settled = store.settle(&later).now_or_never();
        settled
            .expect("a store in memory waits for nothing")
            .unwrap();
    });
    let first = flusher.flush(world.shard).await.unwrap();
    assert_eq!(first, Flushed::Drained(1));
    assert_eq!(world.records().await, 1);
    let next = flusher.flush(world.shard).await.unwrap();
    assert_eq!(next, Flushed::Drained(1), "its mark brings the next");
    assert_eq!(world.records().await, 2);
}

#[tokio::test(start_paused = true)]
async fn the_last_flush_waits_for_the_one_under_way() {
    let world = Arc::new(World::new().await);
    world.store.settle(&world.settle()).await.unwrap();
    world.flusher.mark(world.shard);
    // A ledger that takes its time.
    let locked = world.ledger.state.lock().await;
    let first = world.clone();
    let first = tokio::spawn(async move { first.flusher.flush_dirty().await });
    tokio::task::yield_now().await;
    let mut last = pin!(world.flusher.flush_dirty());
    let early = timeout(Duration::from_secs(1), &mut last).await;
    assert!(early.is_err(), "nothing is marked, and not all is flushed");
    drop(locked);
    assert!(last.await);
    assert_eq!(world.records().await, 1);
    assert!(first.await.unwrap());
}

#[tokio::test]
async fn a_key_stands_for_its_account() {
    let ledger = MemoryLedger::new(1, prices());
    let account: AccountId = "demo".parse().unwrap();
    ledger.create_account(snapshot(&account)).await;
    let key = ledger.create_key(&account, KeyHash([7; 32])).await;
    let identity = ledger.identify(&KeyHash([7; 32])).await.unwrap().unwrap();
    assert_eq!((identity.key, identity.account), (key, account));
    assert_eq!(ledger.identify(&KeyHash([8; 32])).await.unwrap(), None);
}
