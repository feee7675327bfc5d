//! Carries the ledger's changes to the store, in their order (rule 20).
//!
//! The store itself says which change is next, so appliers need no memory, and any number of them do no harm.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::dirty::DirtyShards;
use super::standing::{Away, Standing};
use super::{Ledger, LedgerError};
use crate::clock::Clock;
use crate::quota::{ApplyAnswer, ChangeSeq, ShardId, Store, StoreError};

/// Changes that are read at once.
const BATCH: usize = 256;
/// How long one round over all shards takes: commands apply what they change themselves, and flushes wake the applier,
/// so the round is only for what a process that died has left behind.
const ROUND: Duration = Duration::from_secs(10);
/// How often a shard is begun anew because another applier was quicker.
const ATTEMPTS: usize = 100;

/// Why a shard's changes could not all be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store did not answer, or refused a change.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store has no state of this shard.
    #[error("the store has no header of shard {0}")]
    NoHeader(ShardId),
    /// Neither forward nor back: something else moves the shard all the time.
    #[error("the changes of shard {0} do not come to an end")]
    Endless(ShardId),
}

/// Applies changes.
pub struct Applier<S, L> {
    store: Arc<S>,
    ledger: Arc<L>,
    changed: DirtyShards,
    standing: Standing,
}

impl<S: Store, L: Ledger> Applier<S, L> {
    /// An applier between these.
    pub fn new(store: Arc<S>, ledger: Arc<L>, clock: Clock) -> Self {
        Self {
            changed: DirtyShards::new(store.shards()),
            store,
            ledger,
            standing: Standing::new("applier", clock),
        }
    }

    /// The ledger has changes for this shard.
    pub fn changed(&self, shard: ShardId) {
        self.changed.mark(shard);
    }

    /// Since when changes have not reached the store, and why.
    pub fn away(&self) -> Option<Away> {
        self.standing.away()
    }

    /// Applies until the task is aborted; every step of it may be cut off.
    pub async fn run(&self) {
        let shards = self.store.shards();
        let pause = ROUND / u32::from(shards.max(1));
        loop {
            for next in 0..shards {
                let pause = pause.mul_f64(rand::random_range(0.5..1.5));
                if timeout(pause, self.changed.wait()).await.is_ok() {
                    self.try_all(self.changed.take()).await;
                }
                // What failed is tried again soon, not only when its turn comes.
                let failing = self.standing.failing().into_iter();
                self.try_all(failing.chain([ShardId(next)])).await;
            }
        }
    }

    async fn try_all(&self, shards: impl IntoIterator<Item = ShardId>) {
        for shard in shards {
            if self.store.adopted(shard).is_none() {
                continue;
            }
            match self.apply_shard(shard).await {
                Ok(_) => self.standing.succeeded(shard),
                Err(error) => self.standing.failed(shard, &error),
            }
        }
    }

    /// Applies all changes of every shard that is adopted, once; says how many there were.
    pub async fn round(&self) -> Result<usize, ApplyError> {
        let mut applied = 0;
        for shard in (0..self.store.shards()).map(ShardId) {
            if self.store.adopted(shard).is_some() {
                applied += self.apply_shard(shard).await?;
            }
        }
        Ok(applied)
    }

    /// Applies all changes of one shard; says how many there were.
    pub async fn apply_shard(&self, shard: ShardId) -> Result<usize, ApplyError> {
        let header = self.store.view(shard).await?.header;
        let mut at = header.ok_or(ApplyError::NoHeader(shard))?.applied_seq;
        let mut applied = 0;
        for _ in 0..ATTEMPTS {
            let changes = self.ledger.changes_after(shard, at, BATCH).await?;
            if changes.is_empty() {
                return Ok(applied);
            }
            for change in changes {
                match self.store.apply(&change).await? {
                    ApplyAnswer::Applied => {
                        applied += 1;
                        at = change.seq;
                    }
                    ApplyAnswer::At(there) => {
                        at = there;
                        // What another applier has done already is passed over; a gap is read again.
                        if there < ChangeSeq(change.seq.0 - 1) {
                            break;
                        }
                    }
                }
            }
        }
        Err(ApplyError::Endless(shard))
    }
}
