//! Shards that have something to do, and a way to wait for one.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::quota::ShardId;

/// A flag for each shard: however often it is raised, there is one thing to do.
#[derive(Debug)]
pub struct DirtyShards {
    flags: Vec<AtomicBool>,
    raised: Notify,
}

impl DirtyShards {
    /// None is dirty.
    pub fn new(shards: u16) -> Self {
        Self {
            flags: (0..shards).map(|_| AtomicBool::new(false)).collect(),
            raised: Notify::new(),
        }
    }

    /// Raises a shard's flag; cheap enough for the path of every call.
    pub fn mark(&self, shard: ShardId) {
        let flag = &self.flags[usize::from(shard.0)];
        // The flag is raised before the wake-up, and lowered before the work: no mark is ever missed.
        if !flag.swap(true, Ordering::AcqRel) {
            self.raised.notify_one();
        }
    }

    /// Waits until a flag was raised.
    pub async fn wait(&self) {
        self.raised.notified().await;
    }

    /// Lowers every flag that is up.
    pub fn take(&self) -> Vec<ShardId> {
        let raised = (0..).zip(&self.flags);
        let raised = raised.filter(|(_, flag)| flag.swap(false, Ordering::AcqRel));
        raised.map(|(shard, _)| ShardId(shard)).collect()
    }
}
