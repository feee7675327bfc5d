//! The shards in memory, each behind a lock of its own, and how far the journal has what they did.
//!
//! What a verb does and its place in the journal's order are one step under the shard's lock.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc::Permit;
use tokio::sync::oneshot;

use super::GroupSeq;
use super::command::{Command, Record};
use super::recovery::RecoveredShard;
use crate::clock::UnixMs;
use crate::quota::engine::Engine;
use crate::quota::{Epoch, ShardId, StoreError};

/// Answers that the journal has all up to here, with the number of the group it is in.
pub(super) type Done = oneshot::Receiver<Result<GroupSeq, StoreError>>;

/// Something on its way to the journal, or that waits for what is before it.
pub(super) struct Waiting {
    pub shard: ShardId,
    /// How many records of its shard there are, this one included.
    pub number: u64,
    /// Encoded; `None` where nothing was changed.
    pub record: Option<Vec<u8>>,
    /// Whether no later record may be in the same group.
    pub cut: bool,
    pub done: oneshot::Sender<Result<GroupSeq, StoreError>>,
}

pub(super) struct Shards(Vec<Slot>);

struct Slot {
    /// A lock that blocks, because nothing awaits while holding it.
    shard: Mutex<Shard>,
    /// How many records of the shard are in the journal.
    committed: AtomicU64,
}

pub(super) struct Shard {
    id: ShardId,
    /// None until the ledger has opened it; an error while what is here is not what the journal has.
    pub engine: Result<Option<Engine>, StoreError>,
    adopted: Option<Epoch>,
    /// How many records there were in this process; never counted anew.
    sent: u64,
    /// How many of them its last snapshot has in it; `None` where that one lacks older ones.
    kept: Option<u64>,
}

impl Shards {
    pub fn new(shards: u16) -> Self {
        let empty = |_| RecoveredShard::default();
        Self::of((0..shards).map(empty).collect())
    }

    pub fn of(recovered: Vec<RecoveredShard>) -> Self {
        let slot = |(id, recovered): (u16, RecoveredShard)| Slot {
            shard: Mutex::new(Shard {
                id: ShardId(id),
                engine: Ok(recovered.engine),
                adopted: None,
                sent: 0,
                kept: (!recovered.changed).then_some(0),
            }),
            committed: AtomicU64::new(0),
        };
        Self((0..).zip(recovered).map(slot).collect())
    }

    #[cfg(test)]
    pub fn copy(&self) -> Self {
        let copy =
            |slot: &Slot| RecoveredShard::of(slot.shard.lock().engine.clone().ok().flatten());
        Self::of(self.0.iter().map(copy).collect())
    }

    pub fn len(&self) -> u16 {
        u16::try_from(self.0.len()).expect("they were made of a u16 of shards")
    }

    pub fn ids(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.len()).map(ShardId)
    }

    pub fn lock(&self, shard: ShardId) -> MutexGuard<'_, Shard> {
        self.slot(shard).shard.lock()
    }

    /// Whether the journal has all that this shard did.
    pub fn is_committed(&self, shard: &Shard) -> bool {
        self.slot(shard.id).committed.load(Ordering::Acquire) == shard.sent
    }

    pub fn note_committed(&self, shard: ShardId, number: u64) {
        self.slot(shard).committed.store(number, Ordering::Release);
    }

    /// From now on every verb answers this: what is in memory is worth nothing any more.
    pub fn discard(&self, because: &StoreError) {
        for slot in &self.0 {
            slot.shard.lock().engine = Err(because.clone());
        }
    }

    /// Puts what the journal has in place of what was discarded. Nothing is on its way.
    pub fn replace(&self, recovered: Vec<RecoveredShard>) {
        for (slot, recovered) in self.0.iter().zip(recovered) {
            let mut shard = slot.shard.lock();
            slot.committed.store(shard.sent, Ordering::Release);
            shard.kept = (!recovered.changed).then_some(shard.sent);
            shard.engine = Ok(recovered.engine);
        }
    }

    fn slot(&self, shard: ShardId) -> &Slot {
        &self.0[usize::from(shard.0)]
    }
}

impl Shard {
    /// The engine, in the epoch that was adopted.
    pub fn live(&mut self) -> Result<&mut Engine, StoreError> {
        let (shard, adopted) = (self.id, self.adopted);
        let lost = |reason: &str| StoreError::Lost {
            shard,
            reason: reason.into(),
        };
        let engine = self.engine.as_mut().map_err(|error| error.clone())?;
        let engine = engine.as_mut().ok_or_else(|| lost("it has no header"))?;
        if adopted != Some(engine.header().epoch) {
            return Err(lost("its epoch has not been adopted"));
        }
        Ok(engine)
    }

    /// The epoch that was adopted; none while what is here is not what the journal has, so that nobody asks meanwhile.
    pub fn adopted(&self) -> Option<Epoch> {
        self.engine.as_ref().ok().and(self.adopted)
    }

    /// From now on it is in this epoch.
    pub fn adopt(&mut self, epoch: Epoch) {
        self.adopted = Some(epoch);
    }

    /// How many records there are.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether its last snapshot lacks any of them.
    pub fn has_changed(&self) -> bool {
        self.kept != Some(self.sent)
    }

    /// A snapshot has so many of them in it.
    pub fn note_kept(&mut self, records: u64) {
        self.kept = Some(records);
    }

    /// Hands a verb that changed something to the journal, in its order.
    pub fn record(&mut self, place: Permit<'_, Waiting>, at: UnixMs, command: Command<'_>) -> Done {
        let record = Record {
            shard: self.id,
            at,
            command,
        };
        self.sent += 1;
        self.send(place, Some(record.encode()), false)
    }

    /// Waits for what was before.
    pub fn wait(&self, place: Permit<'_, Waiting>) -> Done {
        self.send(place, None, false)
    }

    /// The same, and what comes later goes into a later group.
    pub fn cut(&self, place: Permit<'_, Waiting>) -> Done {
        self.send(place, None, true)
    }

    fn send(&self, place: Permit<'_, Waiting>, record: Option<Vec<u8>>, cut: bool) -> Done {
        let (done, wait) = oneshot::channel();
        place.send(Waiting {
            shard: self.id,
            number: self.sent,
            record,
            cut,
            done,
        });
        wait
    }
}
