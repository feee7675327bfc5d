//! `verify`: the ledger against itself and the store against the ledger, to the last nano.
//!
//! It loads nothing and changes nothing on either side, and everything may be live meanwhile.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use super::failure::Failure;
use super::output::{Output, counted};
use super::place::{Glance, Live, Place};
use super::quarantined;
use super::show::nobody;
use crate::ledger::audit::{self, Depth, Drift, Page};
use crate::ledger::{Ledger, LedgerError};
use crate::quota::{AccountId, ChangeSeq, OutSeq, ShardId, Store, StoreError};

/// How often long work says how far it is.
const SAY_EACH: Duration = Duration::from_secs(2);
/// How long a change may wait for the store before that is a finding: longer than a sidecar's slow round takes.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EACH: Duration = Duration::from_millis(100);
/// So many drifts are explained from the ledger's history; where there are more, the history explains nothing.
const EXPLAINED: usize = 100;

pub(super) const EXAMPLES: &str = "\
Examples:
  tollgate verify
  tollgate verify --account acme --json

Each drift says what was expected, what was found, and what may account for the difference.";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only this account.
    #[arg(long, value_name = "ID")]
    account: Option<AccountId>,
}

pub(super) async fn run(
    place: &Place,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), Failure> {
    let mut verify = Verify {
        place,
        live: place.live().await?,
        output,
        accounts: 0,
        live_accounts: 0,
        cold: Vec::new(),
        waiting: Vec::new(),
        found: Found::default(),
        said_at: Instant::now(),
    };
    let shards = verify.live.store.shards();
    if let Some(account) = &arguments.account {
        let page = Page::Only(account.clone());
        verify.shard(account.shard(shards), &page).await?;
        if verify.accounts == 0 {
            return Err(nobody(account));
        }
    } else {
        for shard in (0..shards).map(ShardId) {
            verify.shard(shard, &Page::After(None)).await?;
        }
    }
    verify.wait().await?;
    verify.say_cold();
    let accounts = verify.accounts;
    match verify.found.summary(accounts) {
        Some(summary) => Err(Failure::Check(summary)),
        None => output.people(&format!(
            "{}, no drift; {} live in the store.",
            counted(accounts, "account", "accounts"),
            verify.live_accounts
        )),
    }
}

/// What is wrong.
#[derive(Default)]
struct Found {
    drifts: usize,
    quarantined: usize,
    refused: usize,
    stopped: usize,
}

impl Found {
    fn summary(&self, accounts: usize) -> Option<String> {
        let Self {
            drifts,
            quarantined,
            refused,
            stopped,
        } = self;
        if drifts + quarantined + refused + stopped == 0 {
            return None;
        }
        let mut parts = vec![format!(
            "{} in {}",
            counted(*drifts, "drift", "drifts"),
            counted(accounts, "account", "accounts")
        )];
        if *quarantined > 0 {
            parts.push(format!(
                "{quarantined} entries are in quarantine: mend what is wrong and run `tollgate flush --quarantined`"
            ));
        }
        if *refused > 0 {
            parts.push(format!(
                "{} not to be touched in the store: each line says why and what to do",
                counted(*refused, "shard is", "shards are")
            ));
        }
        if *stopped > 0 {
            parts.push(format!(
                "{stopped} shards of the store do not follow the ledger: mend the change that stops each; where no sidecar runs, `tollgate flush` applies them"
            ));
        }
        Some(parts.join("; "))
    }
}

/// A change that the store had not applied when its shard was looked at.
struct Waits {
    shard: ShardId,
    seq: ChangeSeq,
    since: Instant,
}

struct Verify<'a> {
    place: &'a Place,
    live: &'a Live,
    output: &'a Output,
    accounts: usize,
    /// So many of them the store has: of the others there is nothing to compare with.
    live_accounts: usize,
    /// Shards that begin a new epoch, each with the reason.
    cold: Vec<(ShardId, String)>,
    waiting: Vec<Waits>,
    found: Found,
    said_at: Instant,
}

impl Verify<'_> {
    async fn shard(&mut self, shard: ShardId, page: &Page) -> Result<(), Failure> {
        self.ledger(shard, page.clone()).await?;
        self.quarantine(shard, page).await?;
        match self.live.glance(shard).await? {
            Glance::Live => {}
            Glance::Unused => return Ok(()),
            Glance::Cold(reason) => {
                self.cold.push((shard, reason));
                return Ok(());
            }
            Glance::Refused(reason) => {
                self.found.refused += 1;
                let value = json!({ "what": "shard", "shard": shard, "reason": reason });
                let text = format!("shard {shard} of the store is not to be touched: {reason}");
                return self.output.answer(&value, &text);
            }
        }
        if !self.follows(shard).await? {
            return Ok(());
        }
        match self.store(shard, page.clone()).await {
            Err(Failure::Store(StoreError::Lost { reason, .. })) => {
                self.cold.push((shard, reason));
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// The ledger against itself.
    async fn ledger(&mut self, shard: ShardId, mut page: Page) -> Result<(), Failure> {
        loop {
            let ledger = &self.live.ledger;
            let sums = ledger.own_sums(shard, &page, Depth::Records).await?;
            self.accounts += sums.accounts.len();
            for drift in sums.drifts {
                self.say(drift).await?;
            }
            self.say_how_far();
            match (page, sums.accounts.into_iter().last()) {
                (Page::After(_), Some(last)) => page = Page::After(Some(last)),
                _ => return Ok(()),
            }
        }
    }

    /// The store against the ledger.
    async fn store(&mut self, shard: ShardId, mut page: Page) -> Result<(), Failure> {
        loop {
            let (store, ledger) = (&*self.live.store, &self.live.ledger);
            let books = ledger.books(shard, store, &page).await?;
            for (books, view) in &books {
                self.live_accounts += usize::from(view.is_some());
                for drift in audit::compare(books, view.as_ref()) {
                    self.say(drift).await?;
                }
            }
            self.say_how_far();
            match (page, books.last()) {
                (Page::After(_), Some((last, _))) => page = Page::After(Some(last.account.clone())),
                _ => return Ok(()),
            }
        }
    }

    /// Entries that the ledger could not take in (rule 26).
    async fn quarantine(&mut self, shard: ShardId, page: &Page) -> Result<(), Failure> {
        let admin = self.place.admin().await?;
        let mut after = OutSeq(0);
        loop {
            let entries = admin.quarantined(shard, after).await?;
            let Some(last) = entries.last() else {
                return Ok(());
            };
            after = last.seq;
            for entry in &entries {
                if let Page::Only(account) = page
                    && entry.account.as_ref() != Some(account)
                {
                    continue;
                }
                self.found.quarantined += 1;
                let (seq, reason) = (entry.seq, &entry.reason);
                let account = entry.account.as_ref().map(AccountId::as_str);
                let value = json!({
                    "what": "quarantined", "account": account, "shard": shard, "seq": seq, "reason": reason,
                });
                let of = quarantined::named(shard, seq, entry.account.as_ref());
                let text = format!("{of} is in quarantine: {reason}");
                self.output.answer(&value, &text)?;
            }
        }
    }

    /// Whether the ledger's changes can be read: what nobody can read stops the shard for good, and its books with it
    /// (rule 20). One that waits is a term of every sum, and is looked at again in the end.
    async fn follows(&mut self, shard: ShardId) -> Result<bool, Failure> {
        let applied = self.applied(shard).await?.unwrap_or_default();
        match self.live.ledger.changes_after(shard, applied, 1).await {
            Ok(changes) => {
                let waits = changes.first().map(|change| Waits {
                    shard,
                    seq: change.seq,
                    since: Instant::now(),
                });
                self.waiting.extend(waits);
                Ok(true)
            }
            Err(LedgerError::Nonsense(reason)) => {
                self.say_stopped(shard, &reason)?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the store takes what waited for it.
    async fn wait(&mut self) -> Result<(), Failure> {
        for Waits { shard, seq, since } in std::mem::take(&mut self.waiting) {
            // A store that lost its header begins a new epoch, with all changes in it.
            while self
                .applied(shard)
                .await?
                .is_some_and(|applied| applied < seq)
            {
                if since.elapsed() >= PATIENCE {
                    let reason = format!("the store has not taken change {seq} for {PATIENCE:?}");
                    self.say_stopped(shard, &reason)?;
                    break;
                }
                sleep(LOOK_EACH).await;
            }
        }
        Ok(())
    }

    async fn applied(&self, shard: ShardId) -> Result<Option<ChangeSeq>, Failure> {
        let header = self.live.store.view(shard).await?.header;
        Ok(header.map(|header| header.applied_seq))
    }

    fn say_stopped(&mut self, shard: ShardId, reason: &str) -> Result<(), Failure> {
        self.found.stopped += 1;
        let value = json!({ "what": "applier", "shard": shard, "reason": reason });
        let text = format!("the applier of shard {shard} is stopped by a change: {reason}");
        self.output.answer(&value, &text)
    }

    async fn say(&mut self, mut drift: Drift) -> Result<(), Failure> {
        self.found.drifts += 1;
        if self.found.drifts <= EXPLAINED {
            // A drift without an explanation is one all the same.
            let clues = self.live.ledger.trace(&drift).await;
            drift.blame(clues.unwrap_or_default());
        }
        self.output.answer(&drift, &drift.to_string())
    }

    /// A store that is new to the ledger, or lost what it had, is no drift: the next call begins a new epoch there, in
    /// which every account is loaded from the ledger.
    fn say_cold(&self) {
        if let Some((shard, reason)) = self.cold.first() {
            let shards = self.cold.len();
            self.output.note(&format!(
                "{shards} shards begin a new epoch with their next call, so the store has nothing to compare there yet: \
                 shard {shard}, because {reason}"
            ));
        }
    }

    fn say_how_far(&mut self) {
        if self.said_at.elapsed() >= SAY_EACH {
            self.said_at = Instant::now();
            self.output
                .note(&format!("{} accounts audited", self.accounts));
        }
    }
}
