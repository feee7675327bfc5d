//! Keeps the shards checked (rule 21): whatever the store does not trust any more is checked and adopted again.
//!
//! It also looks whether store and ledger answer at all, since a sidecar without calls would not notice, and tells of
//! shards that have begun another epoch: what was acknowledged in the one before may be lost (rule 23).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::standing::{Away, Standing};
use super::{CheckError, Checked, Ledger};
use crate::clock::Clock;
use crate::quota::{Epoch, Epochs, ShardId, Store};

/// How long until the next round when all was well.
const ROUND: Duration = Duration::from_secs(1);
/// How long when it was not.
const SHORT_ROUND: Duration = Duration::from_millis(200);
/// How long when it was, and calls ask for one all the time.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
/// How long until a shard is looked at again whose place in the store is another's: only an operator can change that.
const FOREIGN_AGAIN: Duration = Duration::from_secs(5);
/// Shards that are checked at once.
const CHECKS_AT_ONCE: usize = 8;
/// No shard is ever in this epoch: adopting it makes every command of the shard answer that it is lost.
const NO_EPOCH: Epoch = Epoch(0);
/// The ledger as a whole has no shards; its standing is kept under this one.
const WHOLE: ShardId = ShardId(0);

/// What readiness says: which dependency is away, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// Of the store.
    pub store: Option<Away>,
    /// Of the store's promise that it never evicts a balance (rule 14).
    pub eviction: Option<Away>,
    /// Of the ledger.
    pub ledger: Option<Away>,
    /// Shards in whose place the store has what is not this installation's, or not of this program's format.
    pub foreign: Option<Away>,
}

/// Checks shards.
pub struct Keeper<S, L> {
    store: Arc<S>,
    ledger: Arc<L>,
    store_standing: Standing,
    /// Whether a server of the store might evict balances.
    eviction: Standing,
    ledger_standing: Standing,
    /// Whether the shards are this installation's.
    foreign: Standing,
    /// When those that are not are looked at again.
    foreign_until: Mutex<BTreeMap<ShardId, Instant>>,
    epochs: Epochs,
    /// Shards that somebody has a reason to check although they are adopted.
    suspects: Mutex<Vec<ShardId>>,
    woken: Notify,
    /// The shard whose server is asked next.
    asking: AtomicU16,
    /// How many entries were in each shard's outbox when somebody last looked.
    outboxes: Vec<AtomicU64>,
}

impl<S: Store, L: Ledger> Keeper<S, L> {
    /// A keeper between these.
    pub fn new(store: Arc<S>, ledger: Arc<L>, clock: Clock) -> Self {
        let outboxes = (0..store.shards()).map(|_| AtomicU64::new(0)).collect();
        Self {
            store,
            ledger,
            outboxes,
            store_standing: Standing::new("store", clock.clone()),
            eviction: Standing::new("noeviction in the store", clock.clone()),
            ledger_standing: Standing::new("ledger", clock.clone()),
            foreign: Standing::new("place of a shard in the store", clock),
            foreign_until: Mutex::default(),
            epochs: Epochs::default(),
            suspects: Mutex::default(),
            woken: Notify::new(),
            asking: AtomicU16::new(0),
        }
    }

    /// What readiness says.
    pub fn health(&self) -> Health {
        Health {
            store: self.store_standing.away(),
            eviction: self.eviction.away(),
            ledger: self.ledger_standing.away(),
            foreign: self.foreign.away(),
        }
    }

    /// So many entries were in a shard's outbox when somebody looked.
    pub fn saw_outbox(&self, shard: ShardId, entries: u64) {
        if let Some(outbox) = self.outboxes.get(usize::from(shard.0)) {
            outbox.store(entries, Ordering::Relaxed);
        }
    }

    /// What waits in the store for the ledger, each shard as it was seen last.
    pub fn outbox_entries(&self) -> u64 {
        let entries = |outbox: &AtomicU64| outbox.load(Ordering::Relaxed);
        self.outboxes.iter().map(entries).sum()
    }

    /// Which epochs it has adopted shards with, and news of them.
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Looks at once, because a command was answered that its shard is not adopted.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Checks a shard again although it is adopted, because the ledger knows it to be on another server.
    pub fn suspect(&self, shard: ShardId) {
        let mut suspects = self.suspects.lock();
        if !suspects.contains(&shard) {
            suspects.push(shard);
        }
        self.woken.notify_one();
    }

    /// Keeps until the task is aborted; every step of it may be cut off.
    pub async fn run(&self) {
        loop {
            let jitter = rand::random_range(0.75..1.25);
            if self.round().await {
                sleep(LEAST_PAUSE).await;
                let _ = timeout(ROUND.mul_f64(jitter), self.woken.notified()).await;
            } else {
                // Every call that is refused meanwhile asks for a round: they get this one.
                sleep(SHORT_ROUND.mul_f64(jitter)).await;
            }
        }
    }

    /// Checks every shard that is not adopted, or suspected; says whether all is well then.
    pub async fn round(&self) -> bool {
        match self.ledger.prices_version().await {
            Ok(_) => self.ledger_standing.succeeded(WHOLE),
            Err(error) => {
                self.ledger_standing.failed(WHOLE, &error);
                // How the store is, and how much waits in it, is worth knowing all the more.
                self.ask_store().await;
                return false;
            }
        }
        let mut suspects = std::mem::take(&mut *self.suspects.lock());
        suspects.extend(self.store_standing.failing());
        let due = (0..self.store.shards()).map(ShardId).filter(|shard| {
            let trusted = self.trusted(*shard).is_some() && !suspects.contains(shard);
            !trusted && !self.is_known_to_be_foreign(*shard)
        });
        let due: Vec<ShardId> = due.collect();
        if due.is_empty() {
            self.ask_store().await;
        }
        // A silent store takes its time to be found so, and has many shards.
        stream::iter(due)
            .for_each_concurrent(CHECKS_AT_ONCE, |shard| self.check_or_leave(shard))
            .await;
        self.health() == Health::default()
    }

    /// Checks a shard, unless the ledger is away: each further one would wait as long for the same answer. What was
    /// suspected stays so.
    async fn check_or_leave(&self, shard: ShardId) {
        let is_away = || self.ledger_standing.away().is_some();
        if is_away() || !self.check(shard).await && is_away() {
            self.suspects.lock().push(shard);
        }
    }

    fn trusted(&self, shard: ShardId) -> Option<Epoch> {
        self.store.adopted(shard).filter(|epoch| *epoch != NO_EPOCH)
    }

    fn is_known_to_be_foreign(&self, shard: ShardId) -> bool {
        let foreign = self.foreign_until.lock();
        foreign
            .get(&shard)
            .is_some_and(|until| Instant::now() < *until)
    }

    /// Checks one shard, and adopts it if store and ledger agree.
    pub async fn check(&self, shard: ShardId) -> bool {
        // Asked alone first: while it is away, hundreds of sidecars must not lock the ledger's rows to learn that.
        match self.store.view(shard).await {
            Ok(view) => self.saw_outbox(shard, view.outbox_len),
            Err(error) => {
                self.store_standing.failed(shard, &error);
                return false;
            }
        }
        match self.ledger.check(shard, &*self.store).await {
            Ok(Checked::Agreed(epoch)) => {
                self.store.adopt(shard, epoch);
                self.epochs.adopted(shard, epoch);
                self.store_standing.succeeded(shard);
                self.foreign.succeeded(shard);
                self.foreign_until.lock().remove(&shard);
                return true;
            }
            Ok(Checked::Refused(reason)) => {
                self.store.adopt(shard, NO_EPOCH);
                self.store_standing.succeeded(shard);
                self.foreign.failed(shard, &reason);
                let again = Instant::now() + FOREIGN_AGAIN;
                self.foreign_until.lock().insert(shard, again);
            }
            Err(CheckError::Store(error)) => self.store_standing.failed(shard, &error),
            Err(CheckError::Ledger(error)) => self.ledger_standing.failed(WHOLE, &error),
        }
        false
    }

    /// Asks the store for a sign of life, whether it still has what it had, and whether it would ever evict a balance
    /// (rule 14): one shard a round, since each may be on a server of its own, and one that gives a bad answer again and
    /// again until it gives a good one.
    async fn ask_store(&self) {
        let shard = ShardId(self.asking.load(Ordering::Relaxed));
        let view = self.store.view(shard).await;
        if let Ok(view) = &view {
            self.saw_outbox(shard, view.outbox_len);
        }
        if let (Ok(view), Some(epoch)) = (&view, self.trusted(shard))
            && view.header.as_ref().map(|header| header.epoch) != Some(epoch)
        {
            // What has lost one shard has hardly lost that one alone; and no call may come for the others for long.
            *self.suspects.lock() = (0..self.store.shards()).map(ShardId).collect();
            self.woken.notify_one();
        }
        match view {
            Ok(view) if view.noeviction => {
                self.store_standing.succeeded(shard);
                self.eviction.succeeded(shard);
                let next = (shard.0 + 1) % self.store.shards().max(1);
                self.asking.store(next, Ordering::Relaxed);
            }
            Ok(_) => {
                let reason = "its maxmemory-policy is not noeviction";
                self.store_standing.succeeded(shard);
                self.eviction.failed(shard, &reason);
            }
            Err(error) => self.store_standing.failed(shard, &error),
        }
    }
}
