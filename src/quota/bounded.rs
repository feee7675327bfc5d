//! Calls that go on although the store is away, within a bound (rule 31).
//!
//! Each account may use so much on each sidecar until the store has taken what it used: only then does the store's own
//! balance speak of it, and the bound is whole again.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::journal::Journal;
use super::{AccountId, ReservationId, Settle};
use crate::money::Nanos;

/// What one sidecar lets through without the store.
#[derive(Debug)]
pub struct Bounded {
    journal: Journal,
    /// What each account's calls may use, or have used, that the store does not know of yet: nanos, and wider than those,
    /// since a journal may have left any number of calls.
    used: Mutex<HashMap<AccountId, i128>>,
}

/// What a process that was killed has left to settle, and its call.
pub type LeftOpen = (Settle, BoundedCall);

/// One such call, counted until it is dropped.
#[derive(Debug)]
pub struct BoundedCall {
    bounded: Arc<Bounded>,
    id: ReservationId,
    account: AccountId,
    counted: Nanos,
    /// That it cannot be put aside is said once.
    said_so: bool,
}

impl Bounded {
    /// Opens the journal, and says what processes that were killed have left to settle.
    pub fn open(path: &Path) -> io::Result<(Arc<Self>, Vec<LeftOpen>)> {
        let (journal, left) = Journal::open(path)?;
        let bounded = Arc::new(Self {
            journal,
            used: Mutex::default(),
        });
        let calls = left.into_iter().map(|settle| {
            let call = bounded.count(settle.id, &settle.account, settle.charge);
            (settle, call)
        });
        let calls = calls.collect();
        Ok((bounded, calls))
    }

    /// Lets a call through that may use so much; `None` where the account is at its bound.
    // holds: 8, fail as configured
    pub fn admit(
        self: &Arc<Self>,
        id: ReservationId,
        account: &AccountId,
        estimate: Nanos,
        bound: Nanos,
    ) -> Option<BoundedCall> {
        let call = self.count(id, account, estimate);
        // Counted first: of two at once, neither can overlook the other.
        let used = self.used.lock().get(account).copied();
        // Not there any more: it cost nothing, and another one that cost nothing has taken the account's line away.
        let fits = used.unwrap_or_default() <= i128::from(bound.0);
        fits.then(|| {
            self.journal.begin(id);
            call
        })
    }

    /// Writes down how an admitted call ends if nothing more becomes known of it. To be done before it is forwarded.
    pub async fn write_down(self: &Arc<Self>, unless_more_is_known: Settle) -> io::Result<()> {
        let bounded = self.clone();
        on_a_thread(move || bounded.journal.write_open(unless_more_is_known)).await
    }

    fn count(
        self: &Arc<Self>,
        id: ReservationId,
        account: &AccountId,
        charge: Nanos,
    ) -> BoundedCall {
        *self.used.lock().entry(account.clone()).or_default() += i128::from(charge.0);
        BoundedCall {
            bounded: self.clone(),
            id,
            account: account.clone(),
            counted: charge,
            said_so: false,
        }
    }

    /// What is counted of an account.
    #[cfg(test)]
    fn used(&self, account: &AccountId) -> i128 {
        self.used.lock().get(account).copied().unwrap_or_default()
    }
}

impl BoundedCall {
    /// Whose.
    pub fn account(&self) -> &AccountId {
        &self.account
    }

    /// The call is over: what it used is counted in place of what it might have.
    pub(super) async fn ended(&mut self, settle: &Settle) {
        self.recount(settle.charge);
        let (bounded, settle) = (self.bounded.clone(), settle.clone());
        let written = on_a_thread(move || bounded.journal.write_ended(settle)).await;
        self.warn(written);
    }

    /// The ledger does not know its account: whether its ending could be put aside, for somebody to look at.
    // holds: 5, never silent
    pub(super) async fn put_aside(&mut self, settle: &Settle) -> bool {
        let (bounded, settle) = (self.bounded.clone(), settle.clone());
        let put = on_a_thread(move || bounded.journal.put_aside(settle)).await;
        let (id, aside) = (self.id, self.bounded.journal.aside().display());
        match &put {
            Ok(()) => tracing::error!(
                %id, %aside,
                "the ledger does not know the account of a call that went on without the store: it is put aside, and \
                 nobody is charged for it"
            ),
            Err(error) if !self.said_so => tracing::error!(
                %id, %error,
                "the ledger does not know the account of a call that went on without the store: it stays in the journal, \
                 and is tried again"
            ),
            Err(_) => {}
        }
        self.said_so = put.is_err();
        put.is_ok()
    }

    /// The store has its ending, or it is put aside.
    pub(super) async fn done(self) {
        let (bounded, id) = (self.bounded.clone(), self.id);
        let written = on_a_thread(move || bounded.journal.write_done(id)).await;
        self.warn(written);
    }

    fn recount(&mut self, charge: Nanos) {
        let mut used = self.bounded.used.lock();
        let of_account = used.entry(self.account.clone()).or_default();
        *of_account += i128::from(charge.0) - i128::from(self.counted.0);
        self.counted = charge;
        if *of_account == 0 {
            used.remove(&self.account);
        }
    }

    /// What is not written down may be settled again, or at its floor, if this process is killed.
    fn warn(&self, written: io::Result<()>) {
        if let Err(error) = written {
            tracing::warn!(id = %self.id, %error, "the journal of bounded calls cannot be written");
        }
    }
}

impl Drop for BoundedCall {
    fn drop(&mut self) {
        self.recount(Nanos::ZERO);
    }
}

async fn on_a_thread(write: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    spawn_blocking(write).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::MAX_AMOUNT;
    use crate::quota::Outcome;

    #[tokio::test]
    async fn an_account_is_let_through_up_to_its_bound_until_the_store_has_what_it_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (bounded, left) = Bounded::open(&path).unwrap();
        assert!(left.is_empty());
        let account: AccountId = "one".parse().unwrap();
        let other: AccountId = "two".parse().unwrap();
        let admit = |account, estimate| {
            let id = ReservationId::new();
            bounded.admit(id, account, Nanos(estimate), Nanos(100))
        };
        let mut first = admit(&account, 60).unwrap();
        assert!(admit(&account, 41).is_none());
        let second = admit(&account, 40).unwrap();
        assert!(admit(&other, 100).is_some(), "each account has its own");
        assert_eq!(bounded.used(&other), 0);

        let settle = Settle {
            id: first.id,
            account: account.clone(),
            outcome: Outcome::Settled,
            charge: Nanos(10),
            counts: Vec::new(),
            detail: "{}".into(),
        };
        bounded.write_down(settle.clone()).await.unwrap();
        first.ended(&settle).await;
        assert_eq!(bounded.used(&account), 50, "what it used still counts");
        assert!(admit(&account, 51).is_none());
        first.done().await;
        drop(second);
        assert_eq!(bounded.used(&account), 0);
        assert!(admit(&account, 100).is_some());
    }

    #[test]
    fn a_journal_that_leaves_more_than_an_amount_can_be_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let account: AccountId = "one".parse().unwrap();
        let line = |_| {
            let settle = Settle {
                id: ReservationId::new(),
                account: account.clone(),
                outcome: Outcome::Settled,
                charge: Nanos(MAX_AMOUNT),
                counts: Vec::new(),
                detail: "{}".into(),
            };
            serde_json::json!({ "open": settle }).to_string() + "\n"
        };
        let lines: String = (0..1100).map(line).collect();
        std::fs::write(&path, lines).unwrap();
        let (bounded, left) = Bounded::open(&path).unwrap();
        assert_eq!(left.len(), 1100);
        let admit = || bounded.admit(ReservationId::new(), &account, Nanos(1), Nanos(100));
        assert!(admit().is_none());
        drop(left);
        assert!(admit().is_some(), "all is counted back");
    }

    #[test]
    fn calls_that_cost_nothing_do_not_trip_over_one_another() {
        let directory = tempfile::tempdir().unwrap();
        let (bounded, _) = Bounded::open(&directory.path().join("journal")).unwrap();
        let account: AccountId = "one".parse().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200_000 {
                        let id = ReservationId::new();
                        drop(bounded.admit(id, &account, Nanos::ZERO, Nanos(100)));
                    }
                });
            }
        });
    }
}
