//! `verify`: every account's store against its ledger, to the last nano.

use std::time::{Duration, Instant};

use serde_json::json;

use super::failure::{Failure, LOST};
use super::output::Output;
use super::place::{Live, Place};
use crate::ledger::audit::{self, Drift, Page};
use crate::ledger::{ApplyError, Ledger, LedgerError};
use crate::quota::{ShardId, Store, StoreError};

/// How often long work says how far it is.
const SAY_EACH: Duration = Duration::from_secs(2);

pub(super) async fn run(place: &Place, output: &Output) -> Result<(), Failure> {
    let live = place.live().await?;
    let mut verify = Verify {
        live,
        output,
        accounts: 0,
        drifts: 0,
        lost: 0,
        stopped: 0,
        said_at: Instant::now(),
    };
    let shards = verify.live.store.shards();
    for shard in (0..shards).map(ShardId) {
        verify.shard(shard).await?;
    }
    let (accounts, drifts) = (verify.accounts, verify.drifts);
    if verify.lost > 0 {
        let lost = verify.lost;
        return Err(Failure::Check(format!(
            "{drifts} drifts in {accounts} accounts; {lost} shards have lost their state, so theirs were not audited\n  {LOST}"
        )));
    }
    if verify.stopped > 0 {
        let stopped = verify.stopped;
        return Err(Failure::Check(format!(
            "{drifts} drifts in {accounts} accounts; {stopped} shards follow the ledger no more, so theirs were not \
             audited: mend the change that stops each"
        )));
    }
    if drifts > 0 {
        return Err(Failure::Check(format!(
            "{drifts} drifts in {accounts} accounts"
        )));
    }
    output.people(&format!("{accounts} accounts, no drift."))
}

struct Verify<'a> {
    live: &'a Live,
    output: &'a Output,
    accounts: usize,
    drifts: usize,
    lost: usize,
    stopped: usize,
    said_at: Instant,
}

impl Verify<'_> {
    async fn shard(&mut self, shard: ShardId) -> Result<(), Failure> {
        match self.live.check(shard).await {
            Ok(()) => {}
            Err(Failure::Store(StoreError::Lost { reason, .. })) => {
                self.lost += 1;
                let value = json!({ "what": "shard", "shard": shard, "reason": reason });
                let text = format!("shard {shard} has lost its state: {reason}");
                return self.output.answer(&value, &text);
            }
            Err(failure) => return Err(failure),
        }
        if !self.follow(shard).await? {
            return Ok(());
        }
        let mut page = Page::After(None);
        loop {
            let (store, ledger) = (&*self.live.store, &self.live.ledger);
            let books = ledger.books(shard, store, &page).await?;
            let Some((last, _)) = books.last() else {
                return Ok(());
            };
            page = Page::After(Some(last.account.clone()));
            self.accounts += books.len();
            for (books, view) in &books {
                for drift in audit::compare(books, view.as_ref()) {
                    self.drifts += 1;
                    self.output.answer(&drift, &sentence(&drift))?;
                }
            }
            self.say_how_far();
        }
    }

    /// Lets the store follow the ledger first, so that what is under way is no finding. A change that cannot be applied
    /// stops its shard for good, which is one (rule 20): false, and the shard cannot be audited.
    async fn follow(&mut self, shard: ShardId) -> Result<bool, Failure> {
        let reason = match self.live.applier.apply_shard(shard).await {
            Ok(_) => return Ok(true),
            Err(
                ApplyError::Ledger(LedgerError::Nonsense(reason))
                | ApplyError::Store(StoreError::Nonsense(reason)),
            ) => reason,
            Err(error) => return Err(error.into()),
        };
        self.stopped += 1;
        let value = json!({ "what": "applier", "shard": shard, "reason": reason });
        let text = format!("the applier of shard {shard} is stopped by a change: {reason}");
        self.output.answer(&value, &text)?;
        Ok(false)
    }

    fn say_how_far(&mut self) {
        if self.said_at.elapsed() >= SAY_EACH {
            self.said_at = Instant::now();
            self.output
                .note(&format!("{} accounts audited", self.accounts));
        }
    }
}

fn sentence(drift: &Drift) -> String {
    let Drift {
        account,
        of,
        ledger,
        unapplied,
        unflushed,
        quarantined,
        held,
        expected,
        store,
    } = drift;
    format!(
        "account {account}, {of}: expected {expected}, found {store} \
         (ledger {ledger}, unapplied {unapplied}, unflushed {unflushed}, quarantined {quarantined}, \
         held {held})"
    )
}
