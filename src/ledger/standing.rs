//! Whether what a task depends on answers: said once when that changes, not at every attempt.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::clock::{Clock, UnixMs};
use crate::quota::ShardId;

/// Since when something is away, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Away {
    /// Since when.
    pub since: UnixMs,
    /// Why, at the last attempt.
    pub reason: String,
}

/// What is known of one dependency, shard by shard: it is away while any shard's attempts fail.
#[derive(Debug)]
pub struct Standing {
    what: &'static str,
    clock: Clock,
    /// A lock that blocks: it is held for a look into a map.
    failing: Mutex<BTreeMap<ShardId, Away>>,
}

impl Standing {
    /// Of a dependency that is well until something else is seen.
    pub fn new(what: &'static str, clock: Clock) -> Self {
        Self {
            what,
            clock,
            failing: Mutex::default(),
        }
    }

    /// An attempt for this shard succeeded.
    pub fn succeeded(&self, shard: ShardId) {
        let mut failing = self.failing.lock();
        let was = failing.remove(&shard);
        if let Some(was) = was.filter(|_| failing.is_empty()) {
            let away_ms = self.clock.now().0 - was.since.0;
            tracing::info!(what = self.what, away_ms, "is back");
        }
    }

    /// An attempt for this shard failed.
    pub fn failed(&self, shard: ShardId, reason: &impl ToString) {
        let reason = reason.to_string();
        let mut failing = self.failing.lock();
        if failing.is_empty() {
            tracing::warn!(what = self.what, %shard, reason, "is away");
        }
        let since = self.clock.now();
        let away = failing.entry(shard).or_insert_with(|| Away {
            since,
            reason: String::new(),
        });
        away.reason = reason;
    }

    /// The shards whose last attempt failed: to be tried again soon, since only a success clears them.
    pub fn failing(&self) -> Vec<ShardId> {
        self.failing.lock().keys().copied().collect()
    }

    /// Since when it has been away; `None` while everything succeeds.
    pub fn away(&self) -> Option<Away> {
        let failing = self.failing.lock();
        failing.values().min_by_key(|away| away.since).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicI64;

    use super::*;

    #[test]
    fn away_since_the_first_failure_until_the_last_success() {
        let time = Arc::new(AtomicI64::new(10));
        let standing = Standing::new("store", Clock::Manual(time.clone()));
        let (one, two) = (ShardId(1), ShardId(2));
        standing.failed(one, &"no answer");
        time.store(20, std::sync::atomic::Ordering::Relaxed);
        standing.failed(two, &"no answer");
        standing.failed(one, &"still none");
        let away = standing.away().unwrap();
        assert_eq!(
            (away.since, away.reason.as_str()),
            (UnixMs(10), "still none")
        );
        standing.succeeded(one);
        assert_eq!(standing.away().unwrap().since, UnixMs(20));
        standing.succeeded(two);
        assert_eq!(standing.away(), None);
    }
}
