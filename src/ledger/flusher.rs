//! Carries the outbox to the ledger (rule 19): read, commit, and only then forget.
//!
//! A crash between any two of these repeats harmlessly, so a flusher keeps no state worth saving.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::applier::Applier;
use super::dirty::DirtyShards;
use super::keeper::Keeper;
use super::standing::{Away, Standing};
use super::{Committed, Ledger, LedgerError};
use crate::clock::Clock;
use crate::quota::{Entry, Kept, OutSeq, Outbox, ShardId, Store, StoreError};

/// Entries of one transaction.
const BATCH: usize = 512;
/// How long a flusher waits after the first mark, so that one transaction takes many entries.
const GATHER: Duration = Duration::from_millis(20);
/// How many times as long as a round over the marked shards took there is none at the least: the more there is to do, the
/// more entries one transaction takes, and calls find the ledger's file or server free for the most part.
const REST: u32 = 3;
/// However long a round took, so that the ledger has an ending within a second or so of it.
const REST_AT_MOST: Duration = Duration::from_millis(500);
/// How long one round over the shards that nobody marked takes: it is for entries of processes that died, and there
/// may be hundreds of flushers.
const ROUND: Duration = Duration::from_secs(30);
/// How long it rests after a failure before it tries that shard again.
const PAUSE_AT_FIRST: Duration = Duration::from_millis(100);
const PAUSE_AT_MOST: Duration = Duration::from_secs(5);

/// How long an ending may wait for whoever else is at its shard.
const LOCKED_AT_MOST: Duration = Duration::from_secs(30);
const LOCKED: &str =
    "a shard's row in the ledger stays locked; look for a transaction there that was left open";

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// All that was in the outbox is in the ledger; so many entries were.
    Drained(usize),
    /// Another flusher is at this shard.
    Busy,
    /// The ledger knows this shard to be on another server: it must be checked again.
    OtherServer,
}

/// How a round over the marked shards went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Round {
    /// All that was marked is in the ledger.
    Well,
    /// Another flusher is at some of it. That is soon over: who rested ever longer would find that no more endings can be
    /// kept.
    Shared,
    /// Some of it cannot be flushed now.
    Failed,
}

/// What became of one batch.
enum Carried {
    /// So many of it are in the ledger, and forgotten by the store.
    Taken(usize),
    /// None of it: the flush ends here.
    Not(Flushed),
}

/// Why a flush failed.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// The ledger did not answer, or would not have the entries.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whoever is told of the entries that have reached the ledger.
type Listener = Box<dyn Fn(&[Entry]) + Send + Sync>;

/// Flushes shards.
pub struct Flusher<S, L> {
    store: Arc<S>,
    ledger: Arc<L>,
    keeper: Arc<Keeper<S, L>>,
    applier: Arc<Applier<S, L>>,
    dirty: DirtyShards,
    /// One at a time: whoever waits for the last flush of a sidecar must not overtake the one that is under way.
    turn: Mutex<()>,
    standing: Standing,
    /// The endings of this process that wait for the ledger (rule 23).
    kept: Arc<Kept>,
    tell: Listener,
}

impl<S: Store, L: Ledger> Flusher<S, L> {
    /// A flusher between store and ledger; it tells the keeper of shards that have moved, and the applier of shards
    /// for which a flush may have made changes.
    pub fn new(
        store: Arc<S>,
        ledger: Arc<L>,
        keeper: Arc<Keeper<S, L>>,
        applier: Arc<Applier<S, L>>,
        clock: Clock,
    ) -> Self {
        Self {
            dirty: DirtyShards::new(store.shards()),
            turn: Mutex::new(()),
            kept: Arc::new(Kept::new(store.shards(), 0)),
            store,
            ledger,
            keeper,
            applier,
            standing: Standing::new("flusher", clock),
            tell: Box::new(|_| {}),
        }
    }

    /// Tells of the entries that it has carried to the ledger.
    #[must_use]
    pub fn telling(self, tell: impl Fn(&[Entry]) + Send + Sync + 'static) -> Self {
        Self {
            tell: Box::new(tell),
            ..self
        }
    }

    /// Tells these kept endings how far the ledger is.
    #[must_use]
    pub fn keeping(self, kept: Arc<Kept>) -> Self {
        Self { kept, ..self }
    }

    /// An ending was written to this shard's outbox.
    pub fn mark(&self, shard: ShardId) {
        self.dirty.mark(shard);
    }

    /// Since when entries have not reached the ledger, and why.
    pub fn away(&self) -> Option<Away> {
        self.standing.away()
    }

    /// Flushes until the task is aborted; every step of it may be cut off.
    pub async fn run(&self) {
        let shards = self.store.shards().max(1);
        let mut next = rand::random_range(0..shards);
        let mut next_at = Instant::now();
        let mut pause = PAUSE_AT_FIRST;
        let mut rested = Instant::now();
        loop {
            let marked = timeout(next_at - Instant::now(), self.dirty.wait()).await;
            if marked.is_ok() {
                sleep_until(rested.max(Instant::now() + GATHER)).await;
            }
            // Looked at after a mark too: a sidecar that always has something to do has a round to make all the same.
            if Instant::now() >= next_at {
                let to_next = ROUND / u32::from(shards);
                next_at = Instant::now() + to_next.mul_f64(rand::random_range(0.5..1.5));
                self.dirty.mark(ShardId(next));
                next = (next + 1) % shards;
            }
            let began = Instant::now();
            let round = self.round().await;
            rested = Instant::now() + (began.elapsed() * REST).min(REST_AT_MOST);
            let jitter = rand::random_range(0.5..1.5);
            match round {
                Round::Well => pause = PAUSE_AT_FIRST,
                Round::Shared => sleep(PAUSE_AT_FIRST.mul_f64(jitter)).await,
                Round::Failed => {
                    sleep(pause.mul_f64(jitter)).await;
                    pause = (pause * 2).min(PAUSE_AT_MOST);
                }
            }
        }
    }

    /// Flushes what is marked, once a flush that is under way is done; what fails stays marked. Says whether all went
    /// well.
    pub async fn flush_dirty(&self) -> bool {
        self.round().await == Round::Well
    }

    async fn round(&self) -> Round {
        let _turn = self.turn.lock().await;
        let mut round = Round::Well;
        for shard in self.dirty.take() {
            if self.store.adopted(shard).is_none() {
                // It must be checked first; whoever does that says what is wrong with it.
                self.dirty.mark(shard);
                round = Round::Failed;
                continue;
            }
            let began = Instant::now();
            match self.flush(shard).await {
                Ok(Flushed::Drained(_)) => {
                    self.standing.succeeded(shard);
                    if self.kept.waits(shard, began) {
                        // The outbox was empty, and yet the ledger does not have them: it must be looked at again.
                        self.dirty.mark(shard);
                        round = Round::Failed;
                    }
                }
                // Whoever is at it started before our entry was written, perhaps: look again.
                Ok(Flushed::Busy) => {
                    self.bear_with(shard, began);
                    self.dirty.mark(shard);
                    round = round.max(Round::Shared);
                }
                Ok(Flushed::OtherServer) => {
                    self.keeper.suspect(shard);
                    self.dirty.mark(shard);
                    round = Round::Failed;
                }
                Err(error) => {
                    self.standing.failed(shard, &error);
                    self.dirty.mark(shard);
                    round = Round::Failed;
                }
            }
        }
        round
    }

    /// Another flusher is at it, and that is well, unless an ending has waited too long: nobody carries this shard then,
    /// whoever has it locked, and calls are refused when no more endings can be kept.
    fn bear_with(&self, shard: ShardId, now: Instant) {
        let long_ago = now.checked_sub(LOCKED_AT_MOST);
        if long_ago.is_some_and(|long_ago| self.kept.waits(shard, long_ago)) {
            self.standing.failed(shard, &LOCKED);
        }
    }

    /// Flushes one shard until it has all that was in its outbox; what comes meanwhile has a mark of its own. So while
    /// calls go on it ends all the same, and does not carry the few that came during the last transaction in one of their
    /// own, again and again.
    // holds: 3, never lost
    pub async fn flush(&self, shard: ShardId) -> Result<Flushed, FlushError> {
        let mut drained = 0;
        loop {
            let read_at = Instant::now();
            let outbox = self.store.outbox(shard, BATCH).await?;
            let read = outbox.entries.len() + outbox.unreadable.len();
            let taken = match read {
                0 => 0,
                _ => match self.carry(shard, &outbox).await? {
                    Carried::Taken(taken) => taken,
                    Carried::Not(why) => {
                        // Whoever is at it has carried some of this process's endings, perhaps.
                        if why == Flushed::Busy {
                            self.tell_kept(shard, read_at).await?;
                        }
                        return Ok(why);
                    }
                },
            };
            drained += taken;
            if taken == read && read < BATCH {
                self.keeper.saw_outbox(shard, 0);
                let told = self.tell_kept(shard, read_at).await?;
                return Ok(if told {
                    Flushed::Drained(drained)
                } else {
                    Flushed::OtherServer
                });
            }
        }
    }

    /// Commits what was read of an outbox, and has the store forget it.
    async fn carry(&self, shard: ShardId, outbox: &Outbox) -> Result<Carried, FlushError> {
        let upto = match self.ledger.commit(shard, outbox).await? {
            Committed::UpTo { entry, changed } => {
                if changed {
                    self.applier.changed(shard);
                }
                entry
            }
            Committed::Busy => return Ok(Carried::Not(Flushed::Busy)),
            Committed::OtherServer => return Ok(Carried::Not(Flushed::OtherServer)),
        };
        let taken = outbox.entries.partition_point(|entry| entry.seq <= upto);
        let entries = &outbox.entries[..taken];
        let seqs = entries.iter().map(|entry| entry.seq);
        let unreadable = outbox.unreadable.iter().map(|entry| entry.seq);
        let seqs = seqs.chain(unreadable.filter(|seq| *seq <= upto));
        let seqs: Vec<OutSeq> = seqs.collect();
        self.kept.flushed(shard, outbox.epoch, upto);
        self.store.forget(shard, &seqs).await?;
        (self.tell)(entries);
        Ok(Carried::Taken(seqs.len()))
    }

    /// Other flushers have carried some of this process's endings to the ledger, whose row says so; it is read for
    /// shards only that have such. False where the shard has left for another epoch than they were acknowledged in.
    async fn tell_kept(&self, shard: ShardId, read_at: Instant) -> Result<bool, LedgerError> {
        if !self.kept.waits(shard, read_at) {
            return Ok(true);
        }
        let row = self.ledger.row(shard).await?;
        let Some(home) = row.home else {
            return Ok(false);
        };
        self.kept.flushed(shard, home.epoch, row.flushed_seq);
        Ok(self.store.adopted(shard) == Some(home.epoch))
    }
}
