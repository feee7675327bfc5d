//! The embedded store: one engine a shard in memory, and a journal from which they come back (rule 28).
//!
//! A verb runs at once, in memory, and is answered when the journal has it. So nothing that was answered is ever lost, and
//! nothing that is lost was ever answered. Without a journal it is the store of `demo` and of tests, and ends with them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use self::command::{Command, Verb};
use self::shards::{Shard, Shards, Waiting};
use self::snapshots::{Snapshots, closed};
use self::writer::{Growth, Writer};
use super::engine::Engine;
use super::{
    AccountId, AccountImage, AccountView, ApplyAnswer, Epoch, ExpireAnswer, ExpiredLot, Header,
    LapseAnswer, LoadAnswer, OutSeq, Outbox, Overdue, Progress, Progressed, Reserve, Reserved,
    RunId, STORE_FORMAT, Settle, SettleAnswer, ShardId, ShardView, Store, StoreChange, StoreError,
};
use crate::clock::{Clock, UnixMs};

mod command;
mod journal;
mod recovery;
mod shards;
mod snapshots;
#[cfg(test)]
mod tests;
mod writer;

pub use journal::{Group, GroupSeq, Journal, JournalError, ShardSnapshot};
pub use recovery::RecoveryError;

/// Verbs that may wait for the journal; the next ones wait for a place before they run.
const MAX_WAITING: usize = 8192;
/// Unless a configuration says otherwise.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How much the journal grows at the least before its shards' snapshots are made anew.
const SNAPSHOT_AFTER_BYTES: u64 = 32 * 1024 * 1024;

/// How an embedded store is run.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// What the journal is called for ever, as a server names itself.
    pub run_id: RunId,
    /// How many shards there are.
    pub shards: u16,
    /// How many entries may wait in a shard's outbox before it takes no more holds.
    pub outbox_bound: u64,
    /// Its clock.
    pub clock: Clock,
    /// How long the journal may take before the store counts as away.
    pub response_timeout: Duration,
    /// How much the journal grows before it is cut short.
    pub snapshot_after_bytes: u64,
}

impl EmbeddedSettings {
    /// The usual ones.
    pub fn new(run_id: RunId, shards: u16, outbox_bound: u64, clock: Clock) -> Self {
        Self {
            run_id,
            shards,
            outbox_bound,
            clock,
            response_timeout: RESPONSE_TIMEOUT,
            snapshot_after_bytes: SNAPSHOT_AFTER_BYTES,
        }
    }
}

/// Live balances and counters in this process.
pub struct EmbeddedStore {
    shards: Arc<Shards>,
    /// `None` where nothing is written down.
    journal: Option<Writing>,
    /// The journal's for ever: whoever opens it goes on where it ended, so to the ledger it is the same server (rule 21).
    run_id: RunId,
    outbox_bound: u64,
    clock: Clock,
}

/// The way to the journal.
struct Writing {
    queue: mpsc::Sender<Waiting>,
    snapshots: Arc<dyn Cut>,
    response_timeout: Duration,
    /// They end with the store; whatever had been answered is in the journal.
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

/// A round of snapshots, whatever the journal.
trait Cut: Send + Sync {
    fn round(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

impl<J: Journal> Cut for Snapshots<J> {
    fn round(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(Snapshots::round(self))
    }
}

impl EmbeddedStore {
    /// A store that knows nothing yet, and is gone when it is dropped.
    pub fn in_memory(shards: u16, outbox_bound: u64, clock: Clock) -> Self {
        Self {
            shards: Arc::new(Shards::new(shards)),
            journal: None,
            run_id: RunId(Uuid::now_v7().simple().to_string()),
            outbox_bound,
            clock,
        }
    }

    /// What is here now, on a server of its own: a replica, or a copy that somebody brings back later.
    #[cfg(test)]
    pub(crate) fn copy(&self) -> Self {
        Self {
            shards: Arc::new(self.shards.copy()),
            ..Self::in_memory(0, self.outbox_bound, self.clock.clone())
        }
    }

    /// Goes on from where the journal ends, however that came. One store a journal: its owner sees to that (rule 29).
    pub async fn open<J: Journal>(
        journal: Arc<J>,
        settings: EmbeddedSettings,
    ) -> Result<Self, RecoveryError> {
        let EmbeddedSettings {
            run_id,
            shards,
            outbox_bound,
            clock,
            response_timeout,
            snapshot_after_bytes,
        } = settings;
        let recovered = recovery::recover(&*journal, shards, outbox_bound).await?;
        let shards = Arc::new(Shards::of(recovered.shards));
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        let growth = Arc::new(Growth::new(snapshot_after_bytes));
        let whole = Arc::new(tokio::sync::Mutex::new(()));
        let writer = Writer {
            journal: journal.clone(),
            shards: shards.clone(),
            queue: waiting,
            last: recovered.last,
            growth: growth.clone(),
            whole: whole.clone(),
            outbox_bound,
        };
        let snapshots = Arc::new(Snapshots {
            journal,
            shards: shards.clone(),
            queue: queue.downgrade(),
            growth,
            whole,
            least_bytes: snapshot_after_bytes,
            rounds: tokio::sync::Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(writer.run());
        tasks.spawn(snapshots.clone().run());
        Ok(Self {
            shards,
            journal: Some(Writing {
                queue,
                snapshots,
                response_timeout,
                tasks: tokio::sync::Mutex::new(tasks),
            }),
            run_id,
            outbox_bound,
            clock,
        })
    }

    /// A clean end: snapshots of what has changed, so that the next start has nothing to run again. Every verb after it
    /// answers that the store is away.
    pub async fn close(&self) -> Result<(), StoreError> {
        let cut = match &self.journal {
            Some(journal) => journal.snapshots.round().await,
            None => Ok(()),
        };
        self.stop().await;
        cut
    }

    /// Stops at once and leaves the journal as it is, as the end of the process would. Nothing of the store goes on after
    /// this, so that the journal can be opened again.
    pub async fn stop(&self) {
        self.shards.discard(&closed());
        if let Some(journal) = &self.journal {
            journal.tasks.lock().await.shutdown().await;
        }
    }

    fn shard_of(&self, account: &AccountId) -> ShardId {
        account.shard(self.shards())
    }

    /// One atomic step of a shard in the epoch that was adopted; the clock is read within it.
    async fn verb<V: Verb + ?Sized>(
        &self,
        shard: ShardId,
        verb: &V,
    ) -> Result<V::Answer, StoreError> {
        self.step(shard, |shard| {
            let now = self.clock.now();
            let engine = shard.live()?;
            let forgot = engine.forget_marks(now);
            let answer = verb.run(engine, now);
            let command = if V::changed(&answer) {
                Some(verb.command())
            } else {
                forgot.then_some(Command::ForgetMarks)
            };
            Ok((answer, command.map(|command| (now, command))))
        })
        .await
    }

    /// Reads what the journal has, too.
    async fn read<T>(
        &self,
        shard: ShardId,
        read: impl FnOnce(&Engine, UnixMs) -> T,
    ) -> Result<T, StoreError> {
        self.step(shard, |shard| {
            Ok((read(shard.live()?, self.clock.now()), None))
        })
        .await
    }

    /// Takes a place on the way to the journal, so that what is done can always be handed over; does it, and hands it over
    /// in the same step; waits until the journal has it, and all that was before it.
    async fn step<'v, T>(
        &self,
        shard: ShardId,
        step: impl FnOnce(&mut Shard) -> Result<(T, Option<(UnixMs, Command<'v>)>), StoreError>,
    ) -> Result<T, StoreError> {
        let Some(journal) = &self.journal else {
            return Ok(step(&mut self.shards.lock(shard))?.0);
        };
        let journaled = self.journaled(journal, shard, step);
        // What is done by then and not answered is like any command whose answer is lost.
        timeout(journal.response_timeout, journaled)
            .await
            .unwrap_or_else(|_| Err(too_slow()))
    }

    async fn journaled<'v, T>(
        &self,
        journal: &Writing,
        shard: ShardId,
        step: impl FnOnce(&mut Shard) -> Result<(T, Option<(UnixMs, Command<'v>)>), StoreError>,
    ) -> Result<T, StoreError> {
        let place = journal.queue.reserve().await.map_err(|_| closed())?;
        let (answer, done) = {
            let mut shard = self.shards.lock(shard);
            let (answer, command) = step(&mut shard)?;
            let done = match command {
                Some((at, command)) => shard.record(place, at, command),
                None if self.shards.is_committed(&shard) => return Ok(answer),
                None => shard.wait(place),
            };
            (answer, done)
        };
        done.await.map_err(|_| closed())??;
        Ok(answer)
    }
}

fn too_slow() -> StoreError {
    StoreError::Away("its journal does not answer in time".into())
}

impl Store for EmbeddedStore {
    fn shards(&self) -> u16 {
        self.shards.len()
    }

    /// Waits for nothing: a ledger may ask that stands still meanwhile, and the journal may be waiting for its file.
    /// Whatever is not in the journal yet of what is seen here is not in the ledger either.
    async fn view(&self, shard: ShardId) -> Result<ShardView, StoreError> {
        let state = self.shards.lock(shard);
        let engine = state.engine.as_ref().map_err(Clone::clone)?.as_ref();
        // How this store is laid out is a matter of its journal's own format, which is looked at when it is read.
        let header = engine.map(|engine| Header {
            format: STORE_FORMAT,
            ..engine.header().clone()
        });
        Ok(ShardView {
            header,
            run_id: self.run_id.clone(),
            now: self.clock.now(),
            noeviction: true,
            outbox_len: engine.map_or(0, Engine::outbox_len),
            oldest_epoch: engine.and_then(Engine::oldest_epoch),
        })
    }

    async fn open(&self, shard: ShardId, header: &Header) -> Result<(), StoreError> {
        self.step(shard, |shard| {
            let engine = shard.engine.as_mut().map_err(|away| away.clone())?;
            let changed = command::open(engine, header, self.outbox_bound);
            let command = || Command::Open(Cow::Borrowed(header));
            Ok(((), changed.then(|| (self.clock.now(), command()))))
        })
        .await
    }

    fn adopt(&self, shard: ShardId, epoch: Epoch) {
        self.shards.lock(shard).adopt(epoch);
    }

    fn adopted(&self, shard: ShardId) -> Option<Epoch> {
        self.shards.lock(shard).adopted()
    }

    async fn reserve(&self, reserve: &Reserve) -> Result<Reserved, StoreError> {
        self.verb(self.shard_of(&reserve.account), reserve).await
    }

    async fn progress(&self, progress: &Progress) -> Result<Progressed, StoreError> {
        self.verb(self.shard_of(&progress.account), progress).await
    }

    async fn settle(&self, settle: &Settle) -> Result<SettleAnswer, StoreError> {
        self.verb(self.shard_of(&settle.account), settle).await
    }

    async fn lapse(&self, overdue: &Overdue) -> Result<LapseAnswer, StoreError> {
        self.verb(self.shard_of(&overdue.account), overdue).await
    }

    async fn overdue(
        &self,
        shard: ShardId,
        max: usize,
    ) -> Result<(UnixMs, Vec<Overdue>), StoreError> {
        self.read(shard, |engine, now| (now, engine.overdue(now, max)))
            .await
    }

    async fn expire(&self, expired: &ExpiredLot) -> Result<ExpireAnswer, StoreError> {
        self.verb(self.shard_of(&expired.account), expired).await
    }

    async fn load(&self, image: &AccountImage) -> Result<LoadAnswer, StoreError> {
        self.verb(self.shard_of(&image.snapshot.account), image)
            .await
    }

    async fn apply(&self, change: &StoreChange) -> Result<ApplyAnswer, StoreError> {
        self.verb(change.shard, change).await
    }

    /// What the ledger commits must not be undone by the journal, so this waits as the verbs do.
    async fn outbox(&self, shard: ShardId, max: usize) -> Result<Outbox, StoreError> {
        let epoch = self.adopted(shard).unwrap_or_default();
        let entries = self.read(shard, |engine, _| engine.outbox(max)).await?;
        Ok(Outbox {
            run_id: self.run_id.clone(),
            epoch,
            entries,
            unreadable: Vec::new(),
        })
    }

    async fn forget(&self, shard: ShardId, seqs: &[OutSeq]) -> Result<(), StoreError> {
        self.verb(shard, seqs).await
    }

    /// Waits for nothing, like [`Store::view`] and for the same reason.
    async fn account(&self, account: &AccountId) -> Result<Option<AccountView>, StoreError> {
        let mut shard = self.shards.lock(self.shard_of(account));
        Ok(shard.live()?.account(account))
    }
}
