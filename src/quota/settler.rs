//! Ends reservations and keeps the live ones alive, away from the caller's path.
//!
//! An ending is repeated until the store has acknowledged it: every verb is safe to repeat, and money is not.

use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::reservation::{Closing, LiveCalls};
use super::{
    AccountId, Metered, Outcome, Progress, Progressed, Reservation, ReservationId, Settle,
    SettleAnswer, ShardId, Store,
};

/// What the settler asks of the rest of the sidecar, and tells it.
pub trait Surroundings: Send + Sync + 'static {
    /// Makes a cold account live.
    fn load(&self, account: &AccountId) -> impl Future<Output = Result<(), String>> + Send;
    /// An ending is in this shard's outbox.
    fn outbox_grew(&self, shard: ShardId);
    /// The store acknowledged an ending, so long after it was handed over.
    fn ended(&self, outcome: Outcome, after: Duration);
    /// A heartbeat found the hold gone; the call goes on, and its settle will say what it used.
    fn hold_gone(&self, answer: Progressed);
}

/// Sizes and times.
#[derive(Debug, Clone, Copy)]
pub struct SettlerSettings {
    /// How many reservations may be open or on their way to the store; at most `u32::MAX`.
    pub max_open: u32,
    /// How long a hold lives without a heartbeat; one is sent three times as often.
    pub deadline: Duration,
}

const RETRY_AT_FIRST: Duration = Duration::from_millis(20);
const RETRY_AT_MOST: Duration = Duration::from_secs(1);
/// Endings that may be at the store at once, so that a long outage is not followed by a stampede.
const ENDINGS_AT_ONCE: usize = 1024;
/// Heartbeats that may be at the store at once.
const HEARTBEATS_AT_ONCE: usize = 64;

/// Hands out reservations and ends them.
pub struct Settler {
    room: Arc<Semaphore>,
    max_open: u32,
    queue: UnboundedSender<Closing>,
    live: Arc<LiveCalls>,
}

impl Settler {
    /// Starts the tasks that end reservations and send heartbeats; they stop when the settler and its calls are gone.
    pub fn start<S: Store + 'static, E: Surroundings>(
        store: Arc<S>,
        surroundings: Arc<E>,
        settings: SettlerSettings,
    ) -> Self {
        let (queue, closings) = unbounded_channel();
        let live = Arc::new(LiveCalls::new());
        tokio::spawn(end_all(store.clone(), surroundings.clone(), closings));
        tokio::spawn(keep_alive(
            store,
            surroundings,
            Arc::downgrade(&live),
            settings.deadline,
        ));
        Self {
            room: Arc::new(Semaphore::new(settings.max_open as usize)),
            max_open: settings.max_open,
            queue,
            live,
        }
    }

    /// Room for one reservation and its ending; `None` while too many are open or wait for the store.
    pub fn room(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().ok()
    }

    /// Opens the guard of a claim that is about to be made: even a reserve that times out gets its ending (rule 5).
    pub fn open(
        &self,
        permit: OwnedSemaphorePermit,
        id: ReservationId,
        account: AccountId,
        metered: Arc<dyn Metered>,
    ) -> Reservation {
        let closing = Closing {
            id,
            account,
            metered,
            permit,
        };
        Reservation::new(closing, self.queue.clone(), self.live.clone())
    }

    /// How many reservations are open, or ended but not yet acknowledged by the store.
    pub fn open_or_ending(&self) -> usize {
        self.max_open as usize - self.room.available_permits()
    }

    /// Waits until every reservation has ended and the store has acknowledged it.
    pub async fn drained(&self) {
        let _all = self.room.acquire_many(self.max_open).await;
    }
}

async fn end_all<S: Store + 'static, E: Surroundings>(
    store: Arc<S>,
    surroundings: Arc<E>,
    mut closings: UnboundedReceiver<Closing>,
) {
    let at_once = Arc::new(Semaphore::new(ENDINGS_AT_ONCE));
    while let Some(closing) = closings.recv().await {
        let (store, surroundings) = (store.clone(), surroundings.clone());
        let at_once = at_once.clone();
        tokio::spawn(async move { end(&*store, &*surroundings, &at_once, closing).await });
    }
}

/// Repeats one ending until the store has acknowledged it.
// holds: 2, never leaked; 3, never lost, as long as this process lives
async fn end<S: Store, E: Surroundings>(
    store: &S,
    surroundings: &E,
    at_once: &Semaphore,
    closing: Closing,
) {
    let handed_over = Instant::now();
    let settle = settle_of(&closing);
    let mut pause = RETRY_AT_FIRST;
    loop {
        // The turn is given back while it waits: what one shard cannot take must not keep others' endings.
        let turn = at_once.acquire().await;
        let answer = store.settle(&settle).await;
        drop(turn);
        match answer {
            Ok(SettleAnswer::Ended(_)) => {
                surroundings.outbox_grew(closing.account.shard(store.shards()));
                break;
            }
            Ok(SettleAnswer::Already(_)) => break,
            Ok(SettleAnswer::BelowZero) => {
                tracing::error!(id = %settle.id, "a count cannot go below zero");
                break;
            }
            Ok(SettleAnswer::Cold) if surroundings.load(&closing.account).await.is_ok() => continue,
            // Away, lost, or cold with the ledger away: what keeps it so is said once, by whoever watches that.
            Ok(SettleAnswer::Cold) | Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(RETRY_AT_MOST);
    }
    surroundings.ended(settle.outcome, handed_over.elapsed());
    drop(closing.permit);
}

fn settle_of(closing: &Closing) -> Settle {
    let ending = closing.metered.ending();
    Settle {
        id: closing.id,
        account: closing.account.clone(),
        outcome: ending.outcome,
        charge: ending.charge,
        counts: ending.counts,
        detail: ending.detail,
    }
}

/// Sends each call in flight a heartbeat three times a deadline (rule 3).
async fn keep_alive<S: Store, E: Surroundings>(
    store: Arc<S>,
    surroundings: Arc<E>,
    live: Weak<LiveCalls>,
    deadline: Duration,
) {
    let beat = deadline / 3;
    let mut ticks = interval(beat);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(live) = live.upgrade() else { return };
        let heartbeats = iter(due(&live, beat, deadline));
        drop(live);
        heartbeats
            .for_each_concurrent(HEARTBEATS_AT_ONCE, async |progress| {
                // One that does not get through is made up for by the next; three fit into a deadline.
                if let Ok(answer @ (Progressed::Ended(_) | Progressed::Unknown)) =
                    store.progress(&progress).await
                {
                    surroundings.hold_gone(answer);
                }
            })
            .await;
    }
}

/// The heartbeats of the calls older than one beat. Collected first, so that no lock is held across an await.
fn due(live: &LiveCalls, beat: Duration, deadline: Duration) -> Vec<Progress> {
    let old = live.iter().filter(|call| call.since.elapsed() >= beat);
    old.map(|call| {
        let ending = call.metered.ending();
        Progress {
            id: *call.key(),
            account: call.account.clone(),
            charge: ending.charge,
            amounts: ending.counts.iter().map(|count| count.amount).collect(),
            deadline_ms: i64::try_from(deadline.as_millis()).unwrap_or(i64::MAX),
            detail: ending.detail,
        }
    })
    .collect()
}
