//! Kept endings: what the store has acknowledged and the ledger has not taken in yet (rule 23).
//!
//! A store may forget what it acknowledged. So each ending stays here until the ledger says that it has it, and is
//! settled again where the shard has begun another epoch meanwhile.
// holds: 3, never lost, as long as store and sidecar do not die together

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::{Epoch, OutSeq, Settle, ShardId};

/// The endings of one sidecar that are on their way to the ledger.
#[derive(Debug)]
pub struct Kept {
    room: Arc<Semaphore>,
    most: u32,
    /// By shard. Locks that block, because nothing awaits while holding one.
    shards: Vec<Mutex<Vec<KeptEnding>>>,
}

/// An ending that was acknowledged.
#[derive(Debug)]
pub(super) struct KeptEnding {
    pub settle: Settle,
    /// In which epoch of its shard it was acknowledged.
    pub epoch: Epoch,
    /// When the ledger is here, in that epoch, it has the ending.
    pub seq: OutSeq,
    pub since: Instant,
    /// Returned when the ledger has it. Not the one of the open call: a clean end waits for the store first, and for the
    /// ledger afterwards.
    pub permit: OwnedSemaphorePermit,
}

impl Kept {
    /// Keeps at most so many endings; at most `u32::MAX`.
    pub fn new(shards: u16, most: u32) -> Self {
        Self {
            room: Arc::new(Semaphore::new(most as usize)),
            most,
            shards: (0..shards).map(|_| Mutex::default()).collect(),
        }
    }

    /// Waits for room. While there is none, endings keep the room of their calls, so that no more calls begin than can
    /// be remembered.
    pub(super) async fn room(&self) -> OwnedSemaphorePermit {
        let room = self.room.clone().acquire_owned().await;
        room.expect("this semaphore is never closed")
    }

    /// Whether the ledger is so far behind that no more endings can be kept.
    pub(super) fn is_full(&self) -> bool {
        self.room.available_permits() == 0
    }

    pub(super) fn keep(&self, shard: ShardId, ending: KeptEnding) {
        self.shard(shard).lock().push(ending);
    }

    /// The ledger has every entry of a shard up to this one, and says that the shard is in this epoch.
    pub fn flushed(&self, shard: ShardId, epoch: Epoch, upto: OutSeq) {
        let has_it = |ending: &KeptEnding| ending.epoch == epoch && ending.seq <= upto;
        self.shard(shard).lock().retain(|ending| !has_it(ending));
    }

    /// Whether an ending of this shard still waits that was acknowledged before `moment`.
    pub fn waits(&self, shard: ShardId, moment: Instant) -> bool {
        let endings = self.shard(shard).lock();
        endings.iter().any(|ending| ending.since <= moment)
    }

    /// Takes those that were acknowledged in another epoch of their shard than this one.
    pub(super) fn take_outlived(&self, shard: ShardId, epoch: Epoch) -> Vec<KeptEnding> {
        let mut endings = self.shard(shard).lock();
        endings
            .extract_if(.., |ending| ending.epoch != epoch)
            .collect()
    }

    /// The shards that have kept endings.
    pub(super) fn shards(&self) -> Vec<ShardId> {
        let shards = (0..).map(ShardId).zip(&self.shards);
        let kept = shards.filter(|(_, endings)| !endings.lock().is_empty());
        kept.map(|(shard, _)| shard).collect()
    }

    /// How many are kept, or on their way to be settled again.
    pub fn count(&self) -> usize {
        self.most as usize - self.room.available_permits()
    }

    /// How long the oldest has been kept; they are kept in the order in which they were acknowledged, more or less.
    pub fn oldest(&self) -> Option<Duration> {
        let first =
            |endings: &Mutex<Vec<KeptEnding>>| endings.lock().first().map(|first| first.since);
        let since = self.shards.iter().filter_map(first).min();
        since.map(|since| since.elapsed())
    }

    /// Waits until the ledger has all of them.
    pub async fn all_flushed(&self) {
        let _all = self.room.acquire_many(self.most).await;
    }

    fn shard(&self, shard: ShardId) -> &Mutex<Vec<KeptEnding>> {
        &self.shards[usize::from(shard.0)]
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::money::Nanos;
    use crate::quota::{Epoch, Outcome, ReservationId};

    const SHARD: ShardId = ShardId(0);

    async fn keep(kept: &Kept, epoch: i64, seq: i64) {
        let ending = KeptEnding {
            settle: Settle {
                id: ReservationId::new(),
                account: "one".parse().unwrap(),
                outcome: Outcome::Settled,
                charge: Nanos(1),
                counts: Vec::new(),
                detail: "{}".into(),
            },
            epoch: Epoch(epoch),
            seq: OutSeq(seq),
            since: Instant::now(),
            permit: kept.room().await,
        };
        kept.keep(SHARD, ending);
    }

    #[tokio::test]
    async fn an_ending_is_kept_until_the_ledger_has_it_in_the_epoch_that_acknowledged_it() {
        let kept = Kept::new(1, 2);
        keep(&kept, 1, 5).await;
        keep(&kept, 1, 6).await;
        assert!(kept.room().now_or_never().is_none(), "there is a bound");
        assert!(kept.is_full());
        kept.flushed(SHARD, Epoch(2), OutSeq(9));
        kept.flushed(SHARD, Epoch(1), OutSeq(4));
        assert_eq!(kept.count(), 2, "another server's number says nothing");
        assert!(kept.oldest().is_some());
        kept.flushed(SHARD, Epoch(1), OutSeq(5));
        assert_eq!(kept.count(), 1);
        assert!(kept.room().now_or_never().is_some());
        assert!(!kept.is_full());

        assert!(kept.take_outlived(SHARD, Epoch(1)).is_empty());
        let outlived = kept.take_outlived(SHARD, Epoch(2));
        assert_eq!(outlived.len(), 1);
        assert!(kept.shards().is_empty());
        assert_eq!(kept.oldest(), None);
        assert_eq!(
            kept.count(),
            1,
            "until it is acknowledged and flushed again"
        );
        drop(outlived);
        kept.all_flushed().await;
    }
}
