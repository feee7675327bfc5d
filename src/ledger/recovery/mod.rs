//! What a store forgets is made up for: whole sidecars in memory over a store that is wiped and rewound under them.
//!
//! Time is paused, so that minutes pass in no time and only when everybody waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::time::{sleep, timeout};

use self::fickle::Fickle;
use self::sidecar::Sidecar;
use super::{Checked, Ledger, LoadError, Loader, MemoryLedger, NewGrant, Prices};
use crate::clock::{Clock, UnixMs};
use crate::money::Nanos;
use crate::quota::embedded::EmbeddedStore;
use crate::quota::{
    AccountId, Epoch, Mode, ReservationId, ShardId, Snapshot, Status, Store, Version,
};

mod fickle;
mod kept;
mod sidecar;

const SHARDS: u16 = 2;
const GRANTED: i64 = 1_000_000;
/// Longer than a deadline and a sweep, in the time of the tests.
const PATIENCE: Duration = Duration::from_mins(10);

/// A store that forgets, a ledger, and accounts with [`GRANTED`] nanos each.
struct World {
    store: Fickle,
    ledger: Arc<MemoryLedger>,
    accounts: Vec<AccountId>,
    clock: Clock,
}

impl World {
    async fn new() -> Self {
        let clock = ticking();
        let prices = Prices {
            version: 1,
            entries: Vec::new(),
            markup_percent: rust_decimal::Decimal::ZERO,
        };
        let ledger = Arc::new(MemoryLedger::new(SHARDS, prices));
        let store = EmbeddedStore::in_memory(SHARDS, 1_000_000, clock.clone());
        let accounts: Vec<AccountId> = ["one", "two", "three", "four"]
            .map(|name| name.parse().unwrap())
            .into();
        for account in &accounts {
            ledger.create_account(snapshot(account)).await;
            let grant = NewGrant {
                amount: Nanos(GRANTED),
                priority: 0,
                promotional: false,
                effective_at: UnixMs(0),
                expires_at: None,
            };
            ledger.grant(account, &grant).await.unwrap();
        }
        Self {
            store: Fickle::new(store),
            ledger,
            accounts,
            clock,
        }
    }

    async fn sidecar(&self) -> Sidecar {
        let sidecar = Sidecar::new(&self.store, &self.ledger, &self.clock);
        until("every shard is adopted", async || {
            sidecar.keeper.round().await
        })
        .await;
        sidecar
    }

    fn shard(&self, account: &AccountId) -> ShardId {
        account.shard(self.store.shards())
    }

    /// Replaces the store by an empty one, as a restart without a file does.
    fn wipe(&self) {
        let empty = EmbeddedStore::in_memory(SHARDS, 1_000_000, self.clock.clone());
        self.store.turn_into(empty);
    }

    /// How often, and with what in all, a call is in the ledger.
    async fn recorded(&self, account: &AccountId, id: ReservationId) -> (usize, i64) {
        let records = self.ledger.records(account).await;
        let of_it = records
            .iter()
            .filter(|record| record.id == id.0 || record.corrects == Some(id.0));
        let charged: Vec<i64> = of_it.map(|record| record.charged.0).collect();
        (charged.len(), charged.iter().sum())
    }

    /// Nothing is held, nothing is on its way, and store, ledger and records say the same (invariants 2, 3, 4, 6).
    async fn until_one(&self, sidecar: &Sidecar) {
        until("every ending is acknowledged", async || {
            sidecar.settler.open_or_ending() == 0
        })
        .await;
        until("no ending is kept", async || sidecar.kept.count() == 0).await;
        for account in &self.accounts {
            until("store and ledger are one", async || {
                let _ = sidecar.loader.load(account).await;
                let Ok(Some(view)) = sidecar.store.account(account).await else {
                    return false;
                };
                let image = self.ledger.image(account).await.unwrap().unwrap();
                let records = self.ledger.records(account).await;
                let charged: i64 = records.iter().map(|record| record.charged.0).sum();
                let left: i64 = view.lots.iter().map(|(_, lot)| lot.left.0).sum();
                let known: i64 = image.lots.iter().map(|(_, left)| left.0).sum();
                view.holds.is_empty()
                    && view.unflushed.is_empty()
                    && view.applied_seq == image.as_of
                    && left - view.debt.left.0 == GRANTED - charged
                    && known - image.debt.0 == GRANTED - charged
            })
            .await;
        }
    }

    async fn is_held(&self, sidecar: &Sidecar, account: &AccountId, id: ReservationId) -> bool {
        let view = sidecar.store.account(account).await;
        view.is_ok_and(|view| view.is_some_and(|view| view.holds.iter().any(|hold| hold.id == id)))
    }
}

/// A clock that goes with the paused time of the runtime.
fn ticking() -> Clock {
    let time = Arc::new(AtomicI64::new(1_700_000_000_000));
    let clock = Clock::Manual(time.clone());
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_millis(10)).await;
            time.fetch_add(10, Ordering::Relaxed);
        }
    });
    clock
}

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

async fn until(what: &str, state: impl AsyncFn() -> bool) {
    let reached = async {
        while !state().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let reached = timeout(PATIENCE, reached).await;
    assert!(reached.is_ok(), "in vain: {what}");
}

#[tokio::test(start_paused = true)]
async fn an_ending_that_a_wiped_store_forgot_is_settled_again_and_recorded_once() {
    let world = World::new().await;
    let account = &world.accounts[0];
    let mut sidecar = world.sidecar().await;
    let call = sidecar.call(account, 100, 30).await;
    let id = call.id;
    drop(call);
    until("it is acknowledged", async || sidecar.kept.count() == 1).await;
    world.wipe();
    sidecar.start();
    world.until_one(&sidecar).await;
    assert_eq!(world.recorded(account, id).await, (1, 30));
    assert_eq!(sidecar.counts.settled_again.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn an_ending_that_a_replica_never_had_is_settled_again() {
    let world = World::new().await;
    let account = &world.accounts[0];
    let mut sidecar = world.sidecar().await;
    let call = sidecar.call(account, 100, 30).await;
    let id = call.id;
    let replica = world.store.copy();
    drop(call);
    until("it is acknowledged", async || sidecar.kept.count() == 1).await;
    world.store.turn_into(replica);
    sidecar.start();
    world.until_one(&sidecar).await;
    assert_eq!(world.recorded(account, id).await, (1, 30));
    let adopted = sidecar.store.adopted(world.shard(account)).unwrap();
    assert_eq!(adopted, Epoch(2), "another server is another epoch");
}

#[tokio::test(start_paused = true)]
async fn an_ending_that_the_next_server_has_already_is_kept_until_it_is_flushed() {
    let world = World::new().await;
    let account = &world.accounts[0];
    let mut sidecar = world.sidecar().await;
    let call = sidecar.call(account, 100, 30).await;
    let id = call.id;
    drop(call);
    until("it is acknowledged", async || sidecar.kept.count() == 1).await;
    world.store.turn_into(world.store.copy());
    assert!(sidecar.keeper.round().await);
    until("it is acknowledged there", async || {
        sidecar.counts.settled_again.load(Ordering::Relaxed) == 1
    })
    .await;
    assert_eq!(sidecar.kept.count(), 1, "the ledger has heard nothing yet");
    sidecar.start();
    world.until_one(&sidecar).await;
    assert_eq!(world.recorded(account, id).await, (1, 30));
}

#[tokio::test(start_paused = true)]
async fn what_the_ledger_had_before_the_store_went_back_is_not_charged_twice() {
    let world = World::new().await;
    let account = &world.accounts[0];
    let mut sidecar = world.sidecar().await;
    let call = sidecar.call(account, 100, 30).await;
    let id = call.id;
    let earlier = world.store.copy();
    drop(call);
    until("it is acknowledged", async || sidecar.kept.count() == 1).await;
    sidecar.flusher.flush(world.shard(account)).await.unwrap();
    assert_eq!(sidecar.kept.count(), 0, "the ledger has it");
    world.store.turn_into(earlier);
    sidecar.start();
    // Its hold is there again, and lapses.
    world.until_one(&sidecar).await;
    assert_eq!(world.recorded(account, id).await, (1, 30));
    let adopted = sidecar.store.adopted(world.shard(account)).unwrap();
    assert_eq!(adopted, Epoch(2));
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_hold_again_as_soon_as_their_shard_lives_again() {
    let world = World::new().await;
    let mut sidecar = world.sidecar().await;
    sidecar.start();
    let mut calls = Vec::new();
    for account in &world.accounts {
        // One that uses more than it holds, so that less is left than the other one holds: it is held again all the same.
        let overrun = sidecar.call(account, 10, 60).await;
        calls.push(sidecar.call(account, GRANTED - 10, 40).await);
        drop(overrun);
    }
    until("what ended is in the ledger", async || {
        sidecar.settler.open_or_ending() == calls.len() && sidecar.kept.count() == 0
    })
    .await;
    world.wipe();
    let wiped = tokio::time::Instant::now();
    for call in &calls {
        until("it is held again", async || {
            world.is_held(&sidecar, &call.account, call.id).await
        })
        .await;
    }
    assert!(
        wiped.elapsed() < sidecar::DEADLINE / 3,
        "not by a mere beat"
    );
    let held_again = sidecar.counts.held_again.load(Ordering::Relaxed);
    assert_eq!(held_again, calls.len());
    for call in &calls {
        let claim = sidecar::claim(&call.account, ReservationId::new(), 1);
        let answer = sidecar.store.reserve(&claim).await.unwrap();
        let short = matches!(answer, crate::quota::Reserved::Short(_));
        assert!(short, "nothing is sold twice: {answer:?}");
    }
    let ended: Vec<_> = calls
        .iter()
        .map(|call| (call.account.clone(), call.id))
        .collect();
    drop(calls);
    world.until_one(&sidecar).await;
    for (account, id) in ended {
        assert_eq!(world.recorded(&account, id).await, (1, 40));
    }
}

#[tokio::test(start_paused = true)]
async fn no_account_is_loaded_before_what_ended_in_an_earlier_epoch_is_in_the_ledger() {
    let world = World::new().await;
    let account = &world.accounts[0];
    let shard = world.shard(account);
    let sidecar = world.sidecar().await;
    drop(sidecar.call(account, 100, 30).await);
    until("it is acknowledged", async || sidecar.kept.count() == 1).await;
    let rebuilt = world.ledger.rebuild(shard, &*sidecar.store).await.unwrap();
    let Checked::Agreed(epoch) = rebuilt else {
        panic!("{rebuilt:?}")
    };
    sidecar.store.adopt(shard, epoch);

    let asked = Arc::new(AtomicUsize::new(0));
    let asks = asked.clone();
    let loader = Loader::new(sidecar.store.clone(), world.ledger.clone()).asking(move |asked| {
        assert_eq!(asked, shard);
        asks.fetch_add(1, Ordering::Relaxed);
    });
    let refused = loader.load(account).await;
    assert!(matches!(refused, Err(LoadError::Undrained)), "{refused:?}");
    assert!(asked.load(Ordering::Relaxed) > 0, "somebody is to flush it");
    sidecar.flusher.flush(shard).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    loader.load(account).await.unwrap();
    let view = sidecar.store.account(account).await.unwrap().unwrap();
    assert_eq!(view.lots[0].1.left, Nanos(GRANTED - 30));
    // Once drained, it is not asked for in every load.
    let views = sidecar.store.views();
    let same_shard = world
        .accounts
        .iter()
        .find(|other| *other != account && world.shard(other) == shard);
    loader
        .load(same_shard.expect("four accounts in two shards"))
        .await
        .unwrap();
    assert_eq!(sidecar.store.views(), views);
}

#[tokio::test(start_paused = true)]
async fn a_store_of_another_installation_is_left_alone_and_not_asked_all_the_time() {
    let world = World::new().await;
    let sidecar = world.sidecar().await;
    let other = World::new().await;
    let _adopted = other.sidecar().await;
    world.store.turn_into(other.store.copy());
    assert!(!sidecar.keeper.round().await);
    let foreign = sidecar.keeper.health().foreign.expect("it is told");
    assert!(foreign.reason.contains("installation"), "{foreign:?}");
    let views = sidecar.store.views();
    for _ in 0..10 {
        sidecar.keeper.wake();
        assert!(!sidecar.keeper.round().await);
    }
    // One sign of life a round, whichever shard is asked for it.
    assert_eq!(
        sidecar.store.views(),
        views + 10,
        "only an operator can change that"
    );

    // Its own comes back.
    world.wipe();
    sleep(Duration::from_secs(6)).await;
    assert!(
        sidecar.keeper.round().await,
        "{:?}",
        sidecar.keeper.health()
    );
}

/// One run of calls over a store that forgets at random.
async fn whatever_the_store_forgets(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new().await;
    let mut sidecars = vec![world.sidecar().await, world.sidecar().await];
    for sidecar in &mut sidecars {
        sidecar.start();
    }
    // What the store was once, on any branch: each may come back.
    let mut copies = vec![world.store.copy()];
    let mut open = Vec::new();
    let mut ended = Vec::new();
    for _ in 0..200 {
        sleep(Duration::from_millis(rng.random_range(0..400))).await;
        match rng.random_range(0..20) {
            0 => world.wipe(),
            1 => {
                let left = world.store.copy();
                world
                    .store
                    .turn_into(copies.choose(&mut rng).unwrap().copy());
                copies.push(left);
            }
            2 => world.store.turn_into(world.store.copy()),
            3 | 4 => copies.push(world.store.copy()),
            5..=9 if !open.is_empty() => {
                let at = rng.random_range(0..open.len());
                let call: sidecar::Call = open.swap_remove(at);
                ended.push((call.account.clone(), call.id, call.used));
            }
            _ => {
                let account = world.accounts.choose(&mut rng).unwrap();
                let sidecar = sidecars.choose(&mut rng).unwrap();
                let used = rng.random_range(0..200);
                open.extend(sidecar.try_call(account, 100, used).await);
            }
        }
    }
    for call in open {
        ended.push((call.account.clone(), call.id, call.used));
    }
    for sidecar in &sidecars {
        world.until_one(sidecar).await;
    }
    assert!(ended.len() > 20, "too few calls: {}", ended.len());
    for (account, id, used) in ended {
        let (records, charged) = world.recorded(&account, id).await;
        assert!(
            records > 0 && charged == used,
            "seed {seed}: {id} is there {records} times, with {charged} of {used}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_the_store_forgets_every_call_is_charged_once() {
    let given = std::env::var("TOLLGATE_TEST_SEED").ok();
    let seed = given.and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| rand::rng().random());
    println!("TOLLGATE_TEST_SEED={seed}");
    for run in 0..20 {
        whatever_the_store_forgets(seed.wrapping_add(run)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_left_and_comes_back_with_what_it_had_loses_nothing() {
    let world = World::new().await;
    let account = &world.accounts[0];
    let (ours, mut theirs) = (world.sidecar().await, world.sidecar().await);
    let x = ours.call(account, 100, 30).await;
    let y = theirs.call(account, 100, 40).await;
    let (x_id, y_id) = (x.id, y.id);
    let replica = world.store.copy();
    drop(x);
    until("it is acknowledged", async || ours.kept.count() == 1).await;
    let left = world.store.copy();
    world.store.turn_into(replica);
    theirs.start();
    drop(y);
    until("theirs is recorded", async || {
        world.recorded(account, y_id).await.0 == 1
    })
    .await;
    world.store.turn_into(left);
    let mut ours = ours;
    ours.start();
    world.until_one(&ours).await;
    assert_eq!(world.recorded(account, y_id).await, (1, 40));
    assert_eq!(world.recorded(account, x_id).await, (1, 30));
}
