//! Heartbeats: they keep the hold of each call in flight alive, and make it again where the store has lost it.
//!
//! A shard that begins another epoch may have lost every hold of it, so all its calls ask at once (rules 3, 23).

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::reservation::{Live, LiveCalls};
use super::settler::Surroundings;
use super::{
    Admission, NewEpoch, NewEpochs, Progress, Progressed, ReservationId, Reserve, Reserved,
    ShardId, Store, StoreError,
};

/// Heartbeats that may be at the store at once.
const HEARTBEATS_AT_ONCE: usize = 64;
/// How soon a call asks again whose hold is unknown and could not be made again.
const AGAIN_AFTER: Duration = Duration::from_millis(250);
/// A hold that is made again on a cold account asks for the account once.
const ATTEMPTS: usize = 2;

/// Sends the heartbeats of one sidecar.
pub(super) struct Heart<S, E> {
    pub store: Arc<S>,
    pub surroundings: Arc<E>,
    pub live: Weak<LiveCalls>,
    /// How long a hold lives without a heartbeat; one is sent three times as often.
    pub deadline: Duration,
}

/// A heartbeat that is due, and what it takes to make its hold again.
struct Due {
    progress: Progress,
    claim: Arc<Reserve>,
    since: Instant,
    /// Whether its shard began another epoch, so that it should not wait for the next one.
    urgent: bool,
}

impl<S: Store, E: Surroundings> Heart<S, E> {
    /// Beats until the calls are gone with their settler.
    pub async fn run(self, mut epochs: NewEpochs) {
        let beat = self.deadline / 3;
        let mut ticks = interval(beat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Calls of which nobody knows whether they are held.
        let mut unsure = BTreeSet::new();
        loop {
            let due = tokio::select! {
                _ = ticks.tick() => self.due(false, |_, call| call.since.elapsed() >= beat),
                new = epochs.next() => {
                    let shards = shards(&new);
                    let count = self.store.shards();
                    self.due(true, |_, call| shards.contains(&call.claim.account.shard(count)))
                }
                () = sleep(AGAIN_AFTER), if !unsure.is_empty() => self.due(true, |id, _| unsure.contains(id)),
            };
            let Some(due) = due else { return };
            for heartbeat in &due {
                unsure.remove(&heartbeat.progress.id);
            }
            let still_unsure = Mutex::new(Vec::new());
            iter(due)
                .for_each_concurrent(HEARTBEATS_AT_ONCE, async |due| {
                    if !self.beat(&due).await {
                        still_unsure.lock().push(due.progress.id);
                    }
                })
                .await;
            unsure.extend(still_unsure.into_inner());
            self.forget_ended(&mut unsure);
        }
    }

    /// The heartbeats of these calls; `None` where the settler is gone. Collected first, so that no lock is held across
    /// an await.
    fn due(
        &self,
        urgent: bool,
        is_due: impl Fn(&ReservationId, &Live) -> bool,
    ) -> Option<Vec<Due>> {
        let live = self.live.upgrade()?;
        let calls = live.iter().filter(|call| is_due(call.key(), call.value()));
        let due = calls.map(|call| {
            let ending = call.metered.ending();
            let progress = Progress {
                id: *call.key(),
                account: call.claim.account.clone(),
                charge: ending.charge,
                amounts: ending.counts.iter().map(|count| count.amount).collect(),
                deadline_ms: i64::try_from(self.deadline.as_millis()).unwrap_or(i64::MAX),
                detail: ending.detail,
            };
            Due {
                progress,
                claim: call.claim.clone(),
                since: call.since,
                urgent,
            }
        });
        Some(due.collect())
    }

    fn forget_ended(&self, unsure: &mut BTreeSet<ReservationId>) {
        if let Some(live) = self.live.upgrade() {
            unsure.retain(|id| live.contains_key(id));
        }
    }

    /// One heartbeat; false where the call is to ask again soon.
    async fn beat(&self, due: &Due) -> bool {
        match self.store.progress(&due.progress).await {
            Ok(Progressed::Held(_)) => true,
            Ok(Progressed::Ended(ended)) => {
                self.surroundings.hold_gone(ended);
                true
            }
            Ok(Progressed::Unknown) => self.hold_again(due).await,
            Err(StoreError::Lost { shard, .. }) => {
                self.surroundings.shard_lost(shard);
                // When it is adopted again, in whatever epoch, that is news; in the same epoch it has lost nothing.
                true
            }
            // One that does not get through is made up for by the next: three fit into a deadline.
            Err(_) => !due.urgent,
        }
    }

    /// Holds a call's lines again, even below zero: it goes on in any case, and what it will use was decided long ago.
    async fn hold_again(&self, due: &Due) -> bool {
        let age_ms = i64::try_from(due.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        let max_age_ms = due.claim.max_age_ms.saturating_sub(age_ms);
        if max_age_ms <= 0 {
            return true; // Its time is over: no hold of it would be kept alive.
        }
        let claim = Reserve {
            admission: Admission::Again,
            max_age_ms,
            ..Reserve::clone(&due.claim)
        };
        for _ in 0..ATTEMPTS {
            match self.store.reserve(&claim).await {
                Ok(Reserved::Held { .. }) => {
                    self.surroundings.held_again();
                    // What has been metered belongs to the new hold too; the next heartbeat says it if this one does not.
                    let _ = self.store.progress(&due.progress).await;
                    return true;
                }
                Ok(Reserved::Cold) => {
                    if self.surroundings.load(&claim.account).await.is_err() {
                        return false;
                    }
                }
                Ok(Reserved::Ended(ended)) => {
                    self.surroundings.hold_gone(ended);
                    return true;
                }
                Ok(other) => {
                    tracing::error!(id = %claim.id, ?other, "a hold cannot be made again");
                    return true;
                }
                Err(_) => return false,
            }
        }
        false
    }
}

fn shards(new: &[NewEpoch]) -> BTreeSet<ShardId> {
    new.iter().map(|new| new.shard).collect()
}
