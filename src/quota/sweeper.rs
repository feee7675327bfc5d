//! Lapses holds whose deadline has passed, so that a sidecar that died costs nobody more than that (rule 6).
//!
//! Each sidecar goes round all shards slowly, in an order and with pauses of its own, so that hundreds of them neither
//! miss a shard nor crowd one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use rand::RngExt;
use rand::seq::SliceRandom;
use tokio::time::{Instant, sleep};

use super::settler::Surroundings;
use super::{LapseAnswer, Outcome, Overdue, ShardId, Store, StoreError};
use crate::clock::UnixMs;

/// Times of a sweeper.
#[derive(Debug, Clone, Copy)]
pub struct SweeperSettings {
    /// How long one round over all shards takes.
    pub round: Duration,
    /// How long a hold lives without a heartbeat.
    pub deadline: Duration,
}

/// Overdue holds that are read at once.
const BATCH: usize = 256;
/// Lapses that are under way at once.
const AT_ONCE: usize = 32;
/// By how much the store's clock may run ahead of ours between two visits before it counts as a jump.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// Goes round the shards for ever.
pub struct Sweeper<S, E> {
    store: Arc<S>,
    surroundings: Arc<E>,
    settings: SweeperSettings,
    shards: Vec<Visit>,
}

/// What the sweeper remembers of a shard.
struct Visit {
    shard: ShardId,
    /// The store's clock at the last visit, and ours.
    clocks: Option<(UnixMs, Instant)>,
    /// Until then its holds may only seem overdue: their heartbeats had no chance.
    patient_until: Option<Instant>,
    was_away: bool,
}

impl<S: Store, E: Surroundings> Sweeper<S, E> {
    /// A sweeper that has just started, and so trusts the deadlines it finds.
    pub fn new(store: Arc<S>, surroundings: Arc<E>, settings: SweeperSettings) -> Self {
        let visit = |shard| Visit {
            shard: ShardId(shard),
            clocks: None,
            patient_until: None,
            was_away: false,
        };
        let shards = (0..store.shards()).map(visit).collect();
        Self {
            store,
            surroundings,
            settings,
            shards,
        }
    }

    /// Sweeps until the task is aborted; every step of it may be cut off.
    pub async fn run(mut self) {
        let pause = self.settings.round / u32::from(self.store.shards().max(1));
        loop {
            self.shards.shuffle(&mut rand::rng());
            for at in 0..self.shards.len() {
                let pause = pause.mul_f64(rand::rng().random_range(0.5..1.5));
                sleep(pause).await;
                self.visit(at).await;
            }
        }
    }

    async fn visit(&mut self, at: usize) {
        let visit = &mut self.shards[at];
        let Ok((now, mut overdue)) = self.store.overdue(visit.shard, BATCH).await else {
            visit.was_away = true;
            return;
        };
        if visit.is_too_early(now, self.settings.deadline) {
            return;
        }
        let shard = visit.shard;
        loop {
            let found = overdue.len();
            // A full batch may not be all; a batch that moves nothing would come back for ever.
            if self.lapse_all(overdue).await == 0 || found < BATCH {
                return;
            }
            match self.store.overdue(shard, BATCH).await {
                Ok((_, more)) => overdue = more,
                Err(_) => return,
            }
        }
    }

    /// Lapses what is still overdue and says how many there were.
    async fn lapse_all(&self, overdue: Vec<Overdue>) -> usize {
        let lapsed = AtomicUsize::new(0);
        let each = iter(overdue).for_each_concurrent(AT_ONCE, async |hold| {
            if self.lapse(&hold).await {
                lapsed.fetch_add(1, Ordering::Relaxed);
            }
        });
        each.await;
        lapsed.into_inner()
    }

    // holds: 2, never leaked
    async fn lapse(&self, hold: &Overdue) -> bool {
        let answer = match self.store.lapse(hold).await {
            Ok(LapseAnswer::Cold) if self.surroundings.load(&hold.account).await.is_ok() => {
                self.store.lapse(hold).await
            }
            answer => answer,
        };
        let lapsed = matches!(answer, Ok::<_, StoreError>(LapseAnswer::Lapsed(_)));
        if lapsed {
            let shard = hold.account.shard(self.store.shards());
            self.surroundings.outbox_grew(shard);
            self.surroundings.ended(Outcome::Lapsed, Duration::ZERO);
        }
        lapsed
    }
}

impl Visit {
    /// Whether holds may be overdue only because the store was away or its clock jumped.
    fn is_too_early(&mut self, store_now: UnixMs, deadline: Duration) -> bool {
        let now = Instant::now();
        let jumped = self.clocks.is_some_and(|(store_then, then)| {
            let ahead = store_now.0 - store_then.0;
            let ours = i64::try_from((now - then + CLOCK_SLACK).as_millis()).unwrap_or(i64::MAX);
            ahead > ours
        });
        self.clocks = Some((store_now, now));
        if jumped || std::mem::take(&mut self.was_away) {
            self.patient_until = Some(now + deadline);
        }
        self.patient_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit() -> Visit {
        Visit {
            shard: ShardId(0),
            clocks: None,
            patient_until: None,
            was_away: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweeper_that_saw_the_store_away_waits_one_deadline() {
        let deadline = Duration::from_mins(1);
        let mut visit = visit();
        assert!(
            !visit.is_too_early(UnixMs(0), deadline),
            "one that has just started does not wait"
        );
        visit.was_away = true;
        assert!(visit.is_too_early(UnixMs(0), deadline));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(visit.is_too_early(UnixMs(59_000), deadline));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!visit.is_too_early(UnixMs(60_000), deadline));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweeper_that_saw_the_clock_jump_waits_one_deadline() {
        let deadline = Duration::from_mins(1);
        let mut visit = visit();
        assert!(!visit.is_too_early(UnixMs(0), deadline));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(visit.is_too_early(UnixMs(3_600_000), deadline));
        tokio::time::advance(deadline).await;
        assert!(!visit.is_too_early(UnixMs(3_660_000), deadline));
    }
}
