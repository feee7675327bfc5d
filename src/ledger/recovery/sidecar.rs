//! A sidecar without its proxy: everything that goes on beside the calls, and calls made by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::fickle::Fickle;
use crate::clock::Clock;
use crate::ledger::{Applier, Flusher, Keeper, Loader, MemoryLedger};
use crate::money::Nanos;
use crate::quota::{
    AccountId, Admission, Ended, Ending, Kept, Metered, NotLoaded, Outcome, Reservation,
    ReservationId, Reserve, Reserved, Settler, SettlerSettings, ShardId, Store, Surroundings,
    Sweeper, SweeperSettings, Version,
};

/// Endings that may wait for the ledger.
pub(super) const MOST_KEPT: u32 = 1000;
pub(super) const DEADLINE: Duration = Duration::from_mins(1);
const DEADLINE_MS: i64 = 60_000;

type KeeperHere = Keeper<Fickle, MemoryLedger>;
type FlusherHere = Flusher<Fickle, MemoryLedger>;
type LoaderHere = Loader<Fickle, MemoryLedger>;

pub(super) struct Sidecar {
    pub store: Arc<Fickle>,
    pub keeper: Arc<KeeperHere>,
    pub flusher: Arc<FlusherHere>,
    pub loader: Arc<LoaderHere>,
    pub kept: Arc<Kept>,
    pub counts: Arc<Around>,
    applier: Arc<Applier<Fickle, MemoryLedger>>,
    pub settler: Settler,
    tasks: JoinSet<()>,
}

/// A call in flight; dropped, it ends with what it used.
pub(super) struct Call {
    pub account: AccountId,
    pub id: ReservationId,
    pub used: i64,
    _reservation: Reservation,
}

/// A meter that has read all there will be.
struct Used(i64);

impl Metered for Used {
    fn ending(&self) -> Ending {
        Ending {
            outcome: Outcome::Settled,
            charge: Nanos(self.0),
            counts: Vec::new(),
            detail: "{}".into(),
        }
    }
}

/// What the settler asks and tells.
pub(super) struct Around {
    loader: Arc<LoaderHere>,
    flusher: Arc<FlusherHere>,
    keeper: Arc<KeeperHere>,
    pub settled_again: AtomicUsize,
    pub held_again: AtomicUsize,
}

impl Surroundings for Around {
    async fn load(&self, account: &AccountId) -> Result<(), NotLoaded> {
        Ok(self.loader.load(account).await?)
    }

    fn outbox_grew(&self, shard: ShardId) {
        self.flusher.mark(shard);
    }

    fn ended(&self, _: Outcome, _: Duration) {}

    fn settled_again(&self) {
        self.settled_again.fetch_add(1, Ordering::Relaxed);
    }

    fn hold_gone(&self, _: Ended) {}

    fn held_again(&self) {
        self.held_again.fetch_add(1, Ordering::Relaxed);
    }

    fn shard_lost(&self, _: ShardId) {
        self.keeper.wake();
    }
}

pub(super) fn claim(account: &AccountId, id: ReservationId, hold: i64) -> Reserve {
    Reserve {
        id,
        account: account.clone(),
        version: Version(1),
        charge: Nanos(hold),
        floor: Nanos(1),
        lines: Vec::new(),
        deadline_ms: DEADLINE_MS,
        max_age_ms: 60 * DEADLINE_MS,
        admission: Admission::Strict,
        detail: "{}".into(),
    }
}

impl Sidecar {
    pub fn new(store: &Fickle, ledger: &Arc<MemoryLedger>, clock: &Clock) -> Self {
        let (store, ledger) = (Arc::new(store.another()), ledger.clone());
        let keeper = Arc::new(Keeper::new(store.clone(), ledger.clone(), clock.clone()));
        let applier = Arc::new(Applier::new(store.clone(), ledger.clone(), clock.clone()));
        let kept = Arc::new(Kept::new(store.shards(), MOST_KEPT));
        let flusher = Flusher::new(
            store.clone(),
            ledger.clone(),
            keeper.clone(),
            applier.clone(),
            clock.clone(),
        );
        let flusher = Arc::new(flusher.keeping(kept.clone()));
        let drains = flusher.clone();
        let loader = Loader::new(store.clone(), ledger);
        let loader = Arc::new(loader.asking(move |shard| drains.mark(shard)));
        let counts = Arc::new(Around {
            loader: loader.clone(),
            flusher: flusher.clone(),
            keeper: keeper.clone(),
            settled_again: AtomicUsize::new(0),
            held_again: AtomicUsize::new(0),
        });
        let settings = SettlerSettings {
            max_open: 1000,
            deadline: DEADLINE,
        };
        let settler = Settler::start(
            store.clone(),
            counts.clone(),
            kept.clone(),
            keeper.epochs(),
            settings,
        );
        Self {
            store,
            keeper,
            flusher,
            loader,
            kept,
            counts,
            applier,
            settler,
            tasks: JoinSet::new(),
        }
    }

    /// Starts the tasks beside the calls.
    pub fn start(&mut self) {
        let keeper = self.keeper.clone();
        self.tasks.spawn(async move { keeper.run().await });
        let flusher = self.flusher.clone();
        self.tasks.spawn(async move { flusher.run().await });
        let applier = self.applier.clone();
        self.tasks.spawn(async move { applier.run().await });
        let settings = SweeperSettings {
            round: Duration::from_secs(5),
            deadline: DEADLINE,
        };
        let sweeper = Sweeper::new(self.store.clone(), self.counts.clone(), settings);
        self.tasks.spawn(sweeper.run());
    }

    /// A call that holds so much and will have used so much.
    pub async fn call(&self, account: &AccountId, hold: i64, used: i64) -> Call {
        self.loader.load(account).await.unwrap();
        self.try_call(account, hold, used)
            .await
            .expect("it is held")
    }

    /// The same; `None` where it is refused.
    pub async fn try_call(&self, account: &AccountId, hold: i64, used: i64) -> Option<Call> {
        let id = ReservationId::new();
        let claim = Arc::new(claim(account, id, hold));
        let room = self.settler.room().expect("there is room");
        let metered = Arc::new(Used(used));
        let reservation = self.settler.open(room, id, account.clone(), metered);
        let answer = self.store.reserve(&claim).await;
        if !matches!(answer, Ok(Reserved::Held { .. })) {
            reservation.was_not_held();
            self.keeper.wake();
            let _ = self.loader.load(account).await;
            return None;
        }
        reservation.was_held(claim);
        Some(Call {
            account: account.clone(),
            id,
            used,
            _reservation: reservation,
        })
    }
}
