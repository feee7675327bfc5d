//! Ends reservations, away from the caller's path, and sees to it that what ended stays ended.
//!
//! An ending is repeated until the store has acknowledged it, and once more wherever the store may have forgotten that
//! before the ledger had it (rule 23): every verb is safe to repeat, and money is not.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::bounded::BoundedCall;
use super::heartbeat::Heart;
use super::kept::{Kept, KeptEnding};
use super::reservation::{Closing, LiveCalls};
use super::{
    AccountId, Ended, Epoch, Epochs, Metered, NewEpochs, OutSeq, Outcome, Reservation,
    ReservationId, Settle, SettleAnswer, ShardId, Store, StoreError,
};
use crate::money::Nanos;

/// Why a cold account was not made live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotLoaded {
    /// The ledger does not know it.
    #[error("there is no such account")]
    NoAccount,
    /// For now: the store or the ledger is away, or one is behind the other.
    #[error("the store or the ledger is away")]
    Away,
}

/// What the settler asks of the rest of the sidecar, and tells it.
pub trait Surroundings: Send + Sync + 'static {
    /// Makes a cold account live.
    fn load(&self, account: &AccountId) -> impl Future<Output = Result<(), NotLoaded>> + Send;
    /// An ending is in this shard's outbox.
    fn outbox_grew(&self, shard: ShardId);
    /// The store acknowledged an ending, so long after it was handed over.
    fn ended(&self, outcome: Outcome, after: Duration);
    /// The store acknowledged an ending again, in another epoch of its shard.
    fn settled_again(&self);
    /// A heartbeat found that the hold had ended; the call goes on, and its settle will say what it used.
    fn hold_gone(&self, ended: Ended);
    /// A hold that the store had lost was made again.
    fn held_again(&self);
    /// A command was answered that this shard must be checked first.
    fn shard_lost(&self, shard: ShardId);
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
/// How often kept endings are looked through for one that was acknowledged just when its shard began another epoch.
const LOOK_EACH: Duration = Duration::from_secs(1);

/// Hands out reservations and ends them.
pub struct Settler {
    room: Arc<Semaphore>,
    max_open: u32,
    kept: Arc<Kept>,
    queue: UnboundedSender<Closing>,
    live: Arc<LiveCalls>,
}

impl Settler {
    /// Starts the tasks that end reservations and send heartbeats; they stop when the settler and its calls are gone.
    pub fn start<S: Store + 'static, E: Surroundings>(
        store: Arc<S>,
        surroundings: Arc<E>,
        kept: Arc<Kept>,
        epochs: &Epochs,
        settings: SettlerSettings,
    ) -> Self {
        let (queue, closings) = unbounded_channel();
        let live = Arc::new(LiveCalls::new());
        let heart = Heart {
            store: store.clone(),
            surroundings: surroundings.clone(),
            live: Arc::downgrade(&live),
            deadline: settings.deadline,
        };
        tokio::spawn(heart.run(epochs.listen()));
        let ender = Arc::new(Ender {
            store,
            surroundings,
            kept: kept.clone(),
            at_once: Semaphore::new(ENDINGS_AT_ONCE),
        });
        tokio::spawn(ender.run(closings, epochs.listen()));
        Self {
            room: Arc::new(Semaphore::new(settings.max_open as usize)),
            max_open: settings.max_open,
            kept,
            queue,
            live,
        }
    }

    /// Room for one reservation and its ending; `None` while too many are open or wait for the store, or as many endings
    /// are kept as may be: what ends then has to wait, and no more calls should come to that.
    pub fn room(&self) -> Option<OwnedSemaphorePermit> {
        if self.kept.is_full() {
            return None;
        }
        self.room.clone().try_acquire_owned().ok()
    }

    /// The same for a reservation that is over already, and can wait.
    pub async fn wait_for_room(&self) -> OwnedSemaphorePermit {
        let room = self.room.clone().acquire_owned().await;
        room.expect("this semaphore is never closed")
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
            bounded: None,
        };
        Reservation::new(closing, self.queue.clone(), self.live.clone())
    }

    /// How many reservations are open, or ended but not yet acknowledged by the store.
    pub fn open_or_ending(&self) -> usize {
        self.max_open as usize - self.room.available_permits()
    }

    /// How many calls in flight are held, and what they hold.
    pub fn held(&self) -> (usize, Nanos) {
        let held = self.live.iter().map(|call| call.claim.charge);
        held.fold((0, Nanos::ZERO), |(calls, sum), held| {
            (calls + 1, sum + held)
        })
    }

    /// Waits until every reservation has ended and the store has acknowledged it.
    pub async fn drained(&self) {
        let _all = self.room.acquire_many(self.max_open).await;
    }
}

/// Ends what was handed over.
struct Ender<S, E> {
    store: Arc<S>,
    surroundings: Arc<E>,
    kept: Arc<Kept>,
    at_once: Semaphore,
}

/// What came of one attempt to settle.
enum Attempt {
    /// In this epoch of its shard; the ledger has it once it is at this number.
    Acknowledged(Epoch, OutSeq),
    /// It can never be done.
    Refused,
    /// The account must be loaded first.
    Cold,
    /// It is not known whether it was done.
    Unsure,
}

impl<S: Store + 'static, E: Surroundings> Ender<S, E> {
    /// Ends until the settler and its calls are gone.
    async fn run(self: Arc<Self>, mut closings: UnboundedReceiver<Closing>, mut epochs: NewEpochs) {
        let mut looks = interval(LOOK_EACH);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                closing = closings.recv() => {
                    let Some(closing) = closing else { return };
                    let ender = self.clone();
                    tokio::spawn(async move { ender.end(closing).await });
                }
                _ = epochs.next() => self.settle_outlived(),
                _ = looks.tick() => self.settle_outlived(),
            }
        }
    }

    /// Ends one reservation, and keeps its ending for the ledger.
    // holds: 2, never leaked
    async fn end(&self, closing: Closing) {
        let handed_over = Instant::now();
        let settle = settle_of(&closing);
        let Closing {
            permit: room,
            metered,
            mut bounded,
            ..
        } = closing;
        // It may be long until the store takes the ending, and only what it says is needed for that.
        drop(metered);
        if let Some(call) = &mut bounded {
            call.ended(&settle).await;
        }
        let acknowledged = self.settle(&settle, bounded.as_mut()).await;
        self.surroundings
            .ended(settle.outcome, handed_over.elapsed());
        if let Some(acknowledged) = acknowledged {
            let permit = self.kept.room().await;
            self.keep(settle, acknowledged, permit);
        }
        if let Some(call) = bounded {
            call.done().await;
        }
        drop(room);
    }

    /// Settles again what was acknowledged in an epoch that is over, as far as the ledger does not have it.
    // holds: 3, never lost
    fn settle_outlived(self: &Arc<Self>) {
        for shard in self.kept.shards() {
            let Some(epoch) = self.store.adopted(shard) else {
                continue;
            };
            for ending in self.kept.take_outlived(shard, epoch) {
                let ender = self.clone();
                tokio::spawn(async move {
                    if let Some(acknowledged) = ender.settle(&ending.settle, None).await {
                        ender.surroundings.settled_again();
                        ender.keep(ending.settle, acknowledged, ending.permit);
                    }
                });
            }
        }
    }

    fn keep(&self, settle: Settle, (epoch, seq): (Epoch, OutSeq), permit: OwnedSemaphorePermit) {
        let shard = settle.account.shard(self.store.shards());
        let ending = KeptEnding {
            settle,
            epoch,
            seq,
            since: Instant::now(),
            permit,
        };
        self.kept.keep(shard, ending);
        // Only now: whoever flushes tells what is kept.
        self.surroundings.outbox_grew(shard);
    }

    /// Repeats an ending until the store has acknowledged it; `None` where it never can, which the ending of a bounded
    /// call is put aside for.
    async fn settle(
        &self,
        settle: &Settle,
        mut bounded: Option<&mut BoundedCall>,
    ) -> Option<(Epoch, OutSeq)> {
        let mut pause = RETRY_AT_FIRST;
        loop {
            // The turn is given back while it waits: what one shard cannot take must not keep others' endings.
            let turn = self.at_once.acquire().await;
            let attempt = self.attempt(settle).await;
            drop(turn);
            match attempt {
                Attempt::Acknowledged(epoch, seq) => return Some((epoch, seq)),
                Attempt::Refused => return None,
                // Rare, and large: in a box, so that no ending is made larger by it.
                Attempt::Cold => match Box::pin(self.surroundings.load(&settle.account)).await {
                    Ok(()) => continue,
                    // Its journal would keep it for ever, and each start would try it again.
                    Err(NotLoaded::NoAccount)
                        if is_put_aside(bounded.as_deref_mut(), settle).await =>
                    {
                        return None;
                    }
                    Err(_) => {}
                },
                // Away, or lost: what keeps it so is said once, by whoever watches that.
                Attempt::Unsure => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_AT_MOST);
        }
    }

    async fn attempt(&self, settle: &Settle) -> Attempt {
        let shard = settle.account.shard(self.store.shards());
        let Some(epoch) = self.store.adopted(shard) else {
            self.surroundings.shard_lost(shard);
            return Attempt::Unsure;
        };
        let seq = match self.store.settle(settle).await {
            Ok(SettleAnswer::Ended(seq)) => seq,
            // Its entry is one of those written so far, unless the ledger has it already.
            Ok(SettleAnswer::Already(_)) => match Box::pin(self.store.view(shard)).await {
                Ok(view) => match view.header {
                    Some(header) if header.epoch == epoch => header.out_seq,
                    _ => return Attempt::Unsure,
                },
                Err(_) => return Attempt::Unsure,
            },
            Ok(SettleAnswer::BelowZero) => {
                tracing::error!(id = %settle.id, "a count cannot go below zero");
                return Attempt::Refused;
            }
            Ok(SettleAnswer::Cold) => return Attempt::Cold,
            Err(StoreError::Lost { shard, .. }) => {
                self.surroundings.shard_lost(shard);
                return Attempt::Unsure;
            }
            Err(_) => return Attempt::Unsure,
        };
        // An answer from between two epochs may be of either.
        if self.store.adopted(shard) == Some(epoch) {
            Attempt::Acknowledged(epoch, seq)
        } else {
            Attempt::Unsure
        }
    }
}

/// Whether it was a bounded call, and is put aside now.
async fn is_put_aside(call: Option<&mut BoundedCall>, settle: &Settle) -> bool {
    match call {
        Some(call) => call.put_aside(settle).await,
        None => false,
    }
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
