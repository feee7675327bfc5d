//! The writer: the one task that commits, whatever waits in one group, and then answers all of it.
//!
//! One writer makes the order of the journal the order in which things happened. While a group is being committed the next
//! one gathers by itself, so that a slow disk makes larger groups and not a longer queue.

use std::mem::replace;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{Instant, sleep, timeout};

use super::command::FORMAT;
use super::recovery::{RecoveryError, recover};
use super::shards::{Shards, Waiting};
use super::{Group, GroupSeq, Journal, JournalError};
use crate::quota::StoreError;

/// Records that go into one group at the most.
const MAX_GROUP: usize = 1024;
/// How long a group may take; what comes of it later is seen when the journal is read again.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a journal that took no group is left alone: doubled each time, with chance mixed in.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How much the journal has grown since its shards' snapshots were begun.
pub(super) struct Growth {
    pub bytes: AtomicU64,
    /// From how much on the snapshots are made anew.
    pub bound: AtomicU64,
    pub reached: Notify,
}

impl Growth {
    pub fn new(bound: u64) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            bound: AtomicU64::new(bound),
            reached: Notify::new(),
        }
    }
}

/// Why the store is not back yet.
#[derive(Debug, thiserror::Error)]
enum StillAway {
    #[error("the journal cannot be written: {0}")]
    Unwritable(#[from] JournalError),
    #[error(transparent)]
    Unreadable(#[from] RecoveryError),
}

impl From<StillAway> for StoreError {
    fn from(why: StillAway) -> Self {
        Self::Away(why.to_string())
    }
}

pub(super) struct Writer<J> {
    pub journal: Arc<J>,
    pub shards: Arc<Shards>,
    pub queue: mpsc::Receiver<Waiting>,
    pub last: GroupSeq,
    pub growth: Arc<Growth>,
    /// Held while the journal is read, or anything but a group is written to it.
    pub whole: Arc<tokio::sync::Mutex<()>>,
    pub outbox_bound: u64,
}

impl<J: Journal> Writer<J> {
    /// Goes on until nobody is left who could have something to write.
    pub async fn run(mut self) {
        let mut waiting = Vec::with_capacity(MAX_GROUP);
        while self.queue.recv_many(&mut waiting, MAX_GROUP).await > 0 {
            // Whoever is about to hand something over does so first: groups are longer on a busy machine, and where
            // nobody is, nothing is waited for.
            yield_now().await;
            while waiting.len() < MAX_GROUP
                && let Ok(one) = self.queue.try_recv()
            {
                waiting.push(one);
            }
            while !waiting.is_empty() {
                let cut = waiting.iter().position(|one| one.cut);
                let upto = cut.map_or(waiting.len(), |at| at + 1);
                match self.commit(&waiting[..upto]).await {
                    Ok(()) => waiting.drain(..upto).for_each(|one| self.answer(one)),
                    Err(error) => self.start_over(waiting.drain(..), &error).await,
                }
            }
        }
    }

    async fn commit(&mut self, group: &[Waiting]) -> Result<(), JournalError> {
        let records = || group.iter().filter_map(|one| one.record.as_deref());
        let bytes: usize = records().map(<[u8]>::len).sum();
        if bytes == 0 {
            return Ok(());
        }
        let mut body = Vec::with_capacity(1 + bytes);
        body.push(FORMAT);
        records().for_each(|record| body.extend_from_slice(record));
        let seq = GroupSeq(self.last.0 + 1);
        let late = |_| Err(JournalError("it takes too long".into()));
        let commit = timeout(PATIENCE, self.journal.commit(Group { seq, body }));
        commit.await.unwrap_or_else(late)?;
        self.last = seq;
        self.grew(bytes as u64);
        Ok(())
    }

    fn grew(&self, bytes: u64) {
        let grown = self.growth.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if grown >= self.growth.bound.load(Ordering::Relaxed) {
            self.growth.reached.notify_one();
        }
    }

    fn answer(&self, one: Waiting) {
        self.shards.note_committed(one.shard, one.number);
        // Who does not wait any more has no question left.
        let _ = one.done.send(Ok(self.last));
    }

    /// A group that could not be committed may be in the journal or not, and everything later stands on it: nothing that
    /// is in memory is answered from any more, and the engines are made anew from what the journal has (rule 28). That it
    /// can be read says nothing of the next group, so the store stays away until the journal takes what is written to it.
    async fn start_over(&mut self, lost: impl Iterator<Item = Waiting>, error: &JournalError) {
        tracing::error!(%error, "the journal did not take a group: the store is away until it takes one");
        let began = Instant::now();
        self.give_up(lost, &StillAway::Unwritable(error.clone()).into());
        let (mut pause, mut said) = (FIRST_PAUSE, false);
        while !self.queue.is_closed() {
            match self.try_again().await {
                Ok(()) => {
                    let away_ms = began.elapsed().as_millis();
                    tracing::info!(away_ms, "the journal takes groups again: the store is back");
                    return;
                }
                // Readiness says the latest reason; a line for each attempt would bury the first.
                Err(error) => {
                    if matches!(error, StillAway::Unreadable(_)) && !replace(&mut said, true) {
                        tracing::error!(%error, "the journal takes groups, and the store is still away");
                    }
                    self.shards.discard(&error.into());
                }
            }
            sleep(rand::random_range(pause / 2..pause)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// From now on every verb is answered that the store is away, and so is whatever waits.
    fn give_up(&mut self, lost: impl Iterator<Item = Waiting>, away: &StoreError) {
        self.shards.discard(away);
        // Sending is done under a shard's lock, so nothing of what was discarded can come after this.
        let mut late = Vec::new();
        while let Ok(one) = self.queue.try_recv() {
            late.push(one);
        }
        for one in lost.chain(late) {
            let _ = one.done.send(Err(away.clone()));
        }
    }

    /// Writes first and reads then: a group that was given up holds the file until it is in it or never will be.
    async fn try_again(&mut self) -> Result<(), StillAway> {
        let late = |_| Err(JournalError("it takes too long".into()));
        let probe = timeout(PATIENCE, self.journal.probe());
        probe.await.unwrap_or_else(late)?;
        Ok(self.reload().await?)
    }

    async fn reload(&mut self) -> Result<(), RecoveryError> {
        let whole = self.whole.clone().lock_owned().await;
        let (journal, here) = (self.journal.clone(), Handle::current());
        let (shards, outbox_bound) = (self.shards.len(), self.outbox_bound);
        // Every command since the last snapshots is run again, which may take long, and calls run on this thread.
        let read = move || {
            let _whole = whole;
            here.block_on(recover(&*journal, shards, outbox_bound))
        };
        let recovered = spawn_blocking(read).await.expect("it does not panic")?;
        self.last = recovered.last;
        self.shards.replace(recovered.shards);
        Ok(())
    }
}
