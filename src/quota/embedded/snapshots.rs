//! Snapshots: each shard as it is, so that the journal before it can go.
//!
//! A shard is copied under its lock and written down outside of it, so that its calls go on meanwhile. All shards are taken
//! in one round, because a shard that rests would otherwise keep the whole journal.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc::WeakSender;

use super::recovery::snapshot;
use super::shards::{Shards, Waiting};
use super::writer::Growth;
use super::{GroupSeq, Journal, ShardSnapshot};
use crate::quota::{ShardId, StoreError};

pub(super) struct Snapshots<J> {
    pub journal: Arc<J>,
    pub shards: Arc<Shards>,
    /// Weak, so that a store that is dropped has no writer any more.
    pub queue: WeakSender<Waiting>,
    pub growth: Arc<Growth>,
    pub whole: Arc<tokio::sync::Mutex<()>>,
    /// How much the journal may grow at the least before the next round.
    pub least_bytes: u64,
    /// Held during a round: what one of them has not kept yet, another must not prune.
    pub rounds: tokio::sync::Mutex<()>,
}

impl<J: Journal> Snapshots<J> {
    /// Makes a round whenever the journal has grown enough.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.growth.reached.notified().await;
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "the journal cannot be cut short; it grows until it can");
            }
        }
    }

    /// A snapshot of every shard that has changed since its last one; then what they have in them is pruned.
    pub async fn round(&self) -> Result<(), StoreError> {
        let _alone = self.rounds.lock().await;
        self.growth.bytes.store(0, Ordering::Relaxed);
        let (mut first, mut bytes) = (None, 0);
        for shard in self.shards.ids() {
            if let Some((after, length)) = self.shard(shard).await? {
                first.get_or_insert(after);
                bytes += length;
            }
        }
        // At least twice as much as the snapshots are long: so they cost half as much as the journal itself at the most.
        let bound = self.least_bytes.max(2 * bytes as u64);
        self.growth.bound.store(bound, Ordering::Relaxed);
        if let Some(upto) = first {
            // Of later groups, some are in no snapshot; of shards that had not changed there are none.
            let _whole = self.whole.lock().await;
            self.journal.prune(upto).await.map_err(away)?;
        }
        Ok(())
    }

    /// The last group in it, and its length; `None` where nothing has changed.
    async fn shard(&self, id: ShardId) -> Result<Option<(GroupSeq, usize)>, StoreError> {
        let queue = self.queue.upgrade().ok_or_else(closed)?;
        let place = queue.reserve().await.map_err(|_| closed())?;
        let (engine, records, done) = {
            let shard = self.shards.lock(id);
            let engine = match &shard.engine {
                Ok(Some(engine)) if shard.has_changed() => engine.clone(),
                Ok(_) => return Ok(None),
                Err(away) => return Err(away.clone()),
            };
            (engine, shard.sent(), shard.cut(place))
        };
        drop(queue);
        let after = done.await.map_err(|_| closed())??;
        let body = tokio::task::spawn_blocking(move || snapshot(&engine)).await;
        let body = body.map_err(away)?;
        let length = body.len();
        let snapshot = ShardSnapshot {
            shard: id,
            after,
            body,
        };
        let _whole = self.whole.lock().await;
        self.journal.keep(snapshot).await.map_err(away)?;
        self.shards.lock(id).note_kept(records);
        Ok(Some((after, length)))
    }
}

fn away(error: impl std::fmt::Display) -> StoreError {
    StoreError::Away(error.to_string())
}

pub(super) fn closed() -> StoreError {
    StoreError::Away("it is closed".into())
}
