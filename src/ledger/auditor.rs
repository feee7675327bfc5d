//! The audit that never ends: a few accounts at a time, slowly, beside the calls.
//!
//! Whatever goes wrong with a balance is found while somebody still remembers what was done. Hundreds of sidecars each
//! begin somewhere else, so together they go round sooner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::sleep;

use super::audit::own::by_account;
use super::audit::{self, Depth, Drift, Page};
use super::{CheckError, Ledger};
use crate::quota::{AccountId, ShardId, Store};

/// A shard whose outbox is longer has other work to do: its row is not locked for an audit.
const BUSY_OUTBOX: u64 = 1000;
/// The most accounts whose drift is remembered, so that it is told once; beyond that it is told again.
const MOST_REMEMBERED: usize = 10_000;

/// What a step of the audit says: how many accounts it has looked at, and how many drift as far as is known.
type Listener = Box<dyn Fn(usize, usize) + Send + Sync>;

/// Audits in the background.
pub struct Auditor<S, L> {
    store: Arc<S>,
    ledger: Arc<L>,
    /// How long until the next page is looked at; `None`: never.
    interval: Option<Duration>,
    state: Mutex<State>,
    tell: Listener,
}

#[derive(Default)]
struct State {
    shard: u16,
    after: Option<AccountId>,
    /// What drifted of an account when it was last looked at.
    drifting: BTreeMap<AccountId, Vec<Drift>>,
}

impl<S: Store, L: Ledger> Auditor<S, L> {
    /// An auditor between these. It begins anywhere.
    pub fn new(store: Arc<S>, ledger: Arc<L>, interval: Option<Duration>) -> Self {
        let shard = rand::random_range(0..store.shards().max(1));
        Self {
            store,
            ledger,
            interval,
            state: Mutex::new(State {
                shard,
                ..State::default()
            }),
            tell: Box::new(|_, _| {}),
        }
    }

    /// Tells how many accounts each step has looked at, and in how many something drifts now.
    #[must_use]
    pub fn telling(self, tell: impl Fn(usize, usize) + Send + Sync + 'static) -> Self {
        Self {
            tell: Box::new(tell),
            ..self
        }
    }

    /// Audits until the task is aborted; every step of it may be cut off.
    pub async fn run(&self) {
        let Some(interval) = self.interval else {
            return;
        };
        loop {
            sleep(interval.mul_f64(rand::random_range(0.5..1.5))).await;
            if let Err(error) = self.step().await {
                // Whoever needs store and ledger says that they are away.
                tracing::debug!(%error, "an audit was put off");
            }
        }
    }

    /// Looks at the next accounts there are, and says how many.
    pub async fn step(&self) -> Result<usize, CheckError> {
        for _ in 0..=self.store.shards() {
            let (shard, after) = {
                let state = self.state.lock();
                (ShardId(state.shard), state.after.clone())
            };
            let page = Page::After(after);
            let looked = self.look_if_free(shard, &page).await;
            let mut state = self.state.lock();
            let last = looked.as_ref().ok().and_then(|looked| looked.last());
            state.after = last.cloned();
            if last.is_none() {
                // What cannot be read in one shard must not keep the others from being audited.
                state.shard = (shard.0 + 1) % self.store.shards().max(1);
            }
            let looked = looked?.len();
            if looked > 0 {
                (self.tell)(looked, state.drifting.len());
                return Ok(looked);
            }
        }
        Ok(0)
    }

    async fn look_if_free(
        &self,
        shard: ShardId,
        page: &Page,
    ) -> Result<Vec<AccountId>, CheckError> {
        if self.is_free(shard).await? {
            self.look(shard, page).await
        } else {
            Ok(Vec::new())
        }
    }

    /// Whether a shard can be looked at now.
    async fn is_free(&self, shard: ShardId) -> Result<bool, CheckError> {
        if self.store.adopted(shard).is_none() {
            return Ok(false);
        }
        Ok(self.store.view(shard).await?.outbox_len <= BUSY_OUTBOX)
    }

    /// Looks at a page: its accounts, in the order of their ids.
    async fn look(&self, shard: ShardId, page: &Page) -> Result<Vec<AccountId>, CheckError> {
        let sums = self.ledger.own_sums(shard, page, Depth::Balances).await?;
        let mut drifts = sums.drifts;
        let books = self.ledger.books(shard, &*self.store, page).await?;
        for (books, view) in &books {
            drifts.extend(audit::compare(books, view.as_ref()));
        }
        // What the one has read of and the other has not is looked at the next time.
        let looked: BTreeSet<AccountId> = books.iter().map(|(of, _)| of.account.clone()).collect();
        drifts.retain(|drift| looked.contains(&drift.account));
        let mut drifting = by_account(drifts);
        for drift in drifting.values_mut().flatten() {
            // A drift without an explanation is one all the same.
            let clues = self.ledger.trace(drift).await;
            drift.blame(clues.unwrap_or_default());
        }
        self.remember(&looked, drifting);
        Ok(looked.into_iter().collect())
    }

    /// Takes note of what drifts in accounts that were looked at. What did so before is not said again.
    // holds: 5, never silent
    fn remember(
        &self,
        looked: &BTreeSet<AccountId>,
        mut drifting: BTreeMap<AccountId, Vec<Drift>>,
    ) {
        let mut state = self.state.lock();
        for account in looked {
            let now = drifting.remove(account).unwrap_or_default();
            let before = state.drifting.remove(account).unwrap_or_default();
            for drift in &now {
                let same = |other: &Drift| {
                    other.of == drift.of && other.difference() == drift.difference()
                };
                if !before.iter().any(same) {
                    warn(drift);
                }
            }
            if !now.is_empty() && state.drifting.len() < MOST_REMEMBERED {
                state.drifting.insert(account.clone(), now);
            } else if now.is_empty() && !before.is_empty() {
                tracing::info!(%account, "what did not add up does so again");
            }
        }
    }
}

fn warn(drift: &Drift) {
    tracing::warn!(
        account = %drift.account,
        what = %drift.of,
        expected = %drift.expected,
        found = %drift.found,
        because = drift.because(),
        "an account does not add up"
    );
}
