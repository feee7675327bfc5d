//! What a ledger knows, as a value: no lock, no clock, no I/O.
//!
//! [`super::MemoryLedger`] is its shell. The model of the protocol copies it, compares it and goes back to what it was,
//! with the very code that decides in the demo.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::NewGrant;
use super::account::Account;
use crate::clock::UnixMs;
use crate::ledger::batch::{Batch, Known, UsageRecord};
use crate::ledger::posting::{Book, Posting};
use crate::ledger::{Committed, Installation, LedgerError, Looked, ShardRow};
use crate::money::{MAX_AMOUNT, Nanos};
use crate::quota::{
    AccountId, AccountImage, ChangeBody, ChangeSeq, Entry, EntryKind, Epoch, ExpiredLot, LotId,
    MAX_LOTS, Moved, OutSeq, Outbox, ReservationId, ShardId, ShardView, Snapshot, StoreChange,
    Version, Withdrawal,
};

/// Everything but keys and prices, which no protocol hangs on.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    installation: Installation,
    pub(crate) shards: Vec<Shard>,
    pub(crate) accounts: BTreeMap<AccountId, Account>,
    pub(crate) records: Vec<UsageRecord>,
    /// What the records of each reservation come to.
    pub(crate) known: BTreeMap<ReservationId, Known>,
    /// What is to be taken out of lots, and has not been.
    pub(crate) pending: BTreeMap<Uuid, Pending>,
    /// What the withdrawals that are done have taken.
    pub(crate) withdrawn: BTreeMap<Uuid, Nanos>,
    /// What the postings of each account come to, book by book.
    pub(crate) books: BTreeMap<(AccountId, Book), Nanos>,
    last_lot: LotId,
}

#[derive(Debug, Clone)]
pub(crate) struct Shard {
    pub row: ShardRow,
    pub changes: Vec<StoreChange>,
}

/// A withdrawal that waits for its entry.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub account: AccountId,
    pub withdrawal: Withdrawal,
}

impl Truth {
    /// An installation without accounts.
    pub fn new(installation: Installation) -> Self {
        let shard = || Shard {
            row: ShardRow {
                home: None,
                flushed_seq: OutSeq(0),
                last_change: ChangeSeq(0),
            },
            changes: Vec::new(),
        };
        Self {
            installation,
            shards: (0..installation.shards).map(|_| shard()).collect(),
            accounts: BTreeMap::new(),
            records: Vec::new(),
            known: BTreeMap::new(),
            pending: BTreeMap::new(),
            withdrawn: BTreeMap::new(),
            books: BTreeMap::new(),
            last_lot: LotId(0),
        }
    }

    /// Makes an account, with nothing on it.
    pub fn create_account(&mut self, snapshot: Snapshot) {
        let id = snapshot.account.clone();
        self.accounts.insert(id, Account::new(snapshot));
    }

    /// Grants credit, as a numbered change (rule 20).
    pub fn grant(&mut self, id: &AccountId, grant: &NewGrant) -> Result<LotId, LedgerError> {
        if grant.amount <= Nanos::ZERO || grant.amount.0 > MAX_AMOUNT {
            return Err(LedgerError::Invalid("a grant is 1 to 9e15 nanos".into()));
        }
        let lot = LotId(self.last_lot.0 + 1);
        let account = self.account_mut(id)?;
        if account.lots_left().len() >= MAX_LOTS {
            return Err(LedgerError::Invalid(format!(
                "an account has at most {MAX_LOTS} lots with something left"
            )));
        }
        account.add_lot(lot, grant);
        let body = ChangeBody {
            lots: Some(account.order()),
            moved: Moved {
                lots: vec![(lot, grant.amount)],
                ..Moved::default()
            },
            repay: true,
            ..ChangeBody::default()
        };
        self.last_lot = lot;
        self.post(&Posting::of_grant(id, lot, grant.amount));
        self.append(id, body);
        Ok(lot)
    }

    /// Puts an account right by hand: more credit, or less, as a numbered change of its debt (rule 27).
    #[cfg(test)]
    pub fn adjust(&mut self, id: &AccountId, of: Uuid, credit: Nanos) -> Result<(), LedgerError> {
        self.account_mut(id)?.debt -= credit;
        let body = ChangeBody {
            moved: Moved {
                debt: -credit,
                ..Moved::default()
            },
            ..ChangeBody::default()
        };
        self.post(&Posting::of_adjustment(id, of, credit));
        self.append(id, body);
        Ok(())
    }

    /// Asks the store to take credit out of a lot (rule 27). The ledger itself takes nothing before it has the entry.
    #[cfg(test)]
    pub fn withdraw(&mut self, id: &AccountId, withdrawal: Withdrawal) {
        let body = ChangeBody {
            withdraw: Some(withdrawal.clone()),
            ..ChangeBody::default()
        };
        let pending = Pending {
            account: id.clone(),
            withdrawal,
        };
        self.pending.insert(pending.withdrawal.id, pending);
        self.append(id, body);
    }

    /// Changes what sidecars know of an account, as a numbered change with a new version (rules 13, 20).
    pub fn update(
        &mut self,
        id: &AccountId,
        update: impl FnOnce(&mut Snapshot),
    ) -> Result<(), LedgerError> {
        let snapshot = &mut self.account_mut(id)?.snapshot;
        update(snapshot);
        snapshot.version = Version(snapshot.version.0 + 1);
        let body = ChangeBody {
            snapshot: Some(snapshot.clone()),
            ..ChangeBody::default()
        };
        self.append(id, body);
        Ok(())
    }

    /// Takes note of what a look at the store found (rule 21).
    pub fn look(&mut self, shard: ShardId, view: &ShardView, anew: bool) -> Looked {
        let install = self.installation.id;
        self.shard_mut(shard).row.look(install, view, anew)
    }

    /// A shard's row.
    pub fn row(&self, shard: ShardId) -> &ShardRow {
        &self.shards[usize::from(shard.0)].row
    }

    /// What sidecars are to know of an account.
    pub fn snapshot(&self, id: &AccountId) -> Option<&Snapshot> {
        Some(&self.accounts.get(id)?.snapshot)
    }

    /// Takes entries in, all or none; what was taken in before is skipped (rules 19, 24).
    // holds: 3, never lost; 4, never twice
    pub fn commit(&mut self, shard: ShardId, outbox: &Outbox) -> Result<Committed, LedgerError> {
        let home = self.row(shard).home.as_ref();
        self.take_in(shard, outbox, home.map(|home| home.epoch))
    }

    /// The same; what was moved in the epoch that `stands` can be undone.
    pub(crate) fn take_in(
        &mut self,
        shard: ShardId,
        outbox: &Outbox,
        stands: Option<Epoch>,
    ) -> Result<Committed, LedgerError> {
        let row = self.row(shard).clone();
        if !row.is_of(outbox) {
            return Ok(Committed::OtherServer);
        }
        let entries = outbox.entries.iter();
        let fresh: Vec<&Entry> = entries.filter(|entry| row.is_news(entry)).collect();
        let last = fresh.last().map(|entry| entry.seq.max(row.flushed_seq));
        let Some(last) = last else {
            return Ok(Committed::UpTo {
                entry: row.flushed_seq,
                changed: false,
            });
        };
        let ended = fresh.iter().filter_map(|entry| match &entry.kind {
            EntryKind::Ended(ended) => Some(ended.id),
            EntryKind::Repaid | EntryKind::Expired | EntryKind::Withdrawn(_) => None,
        });
        let known = ended.filter_map(|id| Some((id, self.known.get(&id)?.clone())));
        let pending: BTreeSet<Uuid> = self.pending.keys().copied().collect();
        let batch = Batch::decided(&fresh, known.collect(), pending, stands);
        self.refuse_nonsense(&batch)?;
        self.write(batch);
        self.shard_mut(shard).row.flushed_seq = last;
        Ok(Committed::UpTo {
            entry: last,
            changed: self.row(shard).last_change > row.last_change,
        })
    }

    /// The changes after `seq`, in order, at most `max`.
    pub fn changes_after(&self, shard: ShardId, seq: ChangeSeq, max: usize) -> Vec<StoreChange> {
        let changes = self.shards[usize::from(shard.0)].changes.iter();
        let later = changes.filter(|change| change.seq > seq).take(max);
        later.cloned().collect()
    }

    /// An account in one snapshot (rule 22).
    pub fn image(&self, id: &AccountId) -> Option<AccountImage> {
        let account = self.accounts.get(id)?;
        let pending = self.pending.values().filter(|p| p.account == *id);
        Some(AccountImage {
            snapshot: account.snapshot.clone(),
            lots: account.lots_left(),
            debt: account.debt,
            counters: account.latest_counters(),
            withdrawals: pending.map(|p| p.withdrawal.clone()).collect(),
            as_of: self.row(self.shard_of(id)).last_change,
        })
    }

    /// Lots of a shard that have a balance although their time is over (rule 27).
    pub fn expired(&self, shard: ShardId, now: UnixMs, max: usize) -> Vec<ExpiredLot> {
        let here = |id: &&AccountId| self.shard_of(id) == shard;
        let expired = self.accounts.keys().filter(here).flat_map(|id| {
            let expired = self.accounts[id].expired(now);
            expired.map(|(lot, expires_at)| ExpiredLot {
                account: id.clone(),
                lot,
                expires_at,
            })
        });
        expired.take(max).collect()
    }

    fn account_mut(&mut self, id: &AccountId) -> Result<&mut Account, LedgerError> {
        let missing = || LedgerError::Invalid(format!("there is no account `{id}`"));
        self.accounts.get_mut(id).ok_or_else(missing)
    }

    fn shard_of(&self, id: &AccountId) -> ShardId {
        id.shard(self.installation.shards)
    }

    pub(crate) fn shard_mut(&mut self, shard: ShardId) -> &mut Shard {
        &mut self.shards[usize::from(shard.0)]
    }

    pub(crate) fn append(&mut self, account: &AccountId, body: ChangeBody) {
        let id = self.shard_of(account);
        let shard = self.shard_mut(id);
        let seq = ChangeSeq(shard.row.last_change.0 + 1);
        shard.row.last_change = seq;
        shard.changes.push(StoreChange {
            shard: id,
            seq,
            account: account.clone(),
            body,
        });
    }

    pub(crate) fn post(&mut self, posting: &Posting) {
        let sum = posting.entries.iter().map(|(_, nanos)| *nanos).sum();
        assert_eq!(Nanos::ZERO, sum, "a posting sums to zero (6)");
        for (book, nanos) in &posting.entries {
            let sum = self.books.entry((posting.account.clone(), *book));
            *sum.or_default() += *nanos;
        }
    }

    /// Every test comes before the first write.
    fn refuse_nonsense(&self, batch: &Batch) -> Result<(), LedgerError> {
        let nonsense = |text: String| Err(LedgerError::Nonsense(text));
        for (id, lot) in batch.lots.keys() {
            let account = self.accounts.get(id);
            if !account.is_some_and(|account| account.has_lot(*lot)) {
                return nonsense(format!("account `{id}` has no lot {lot}"));
            }
        }
        let touched = batch
            .debts
            .keys()
            .chain(batch.counters.keys().map(|k| &k.0));
        for id in touched {
            if !self.accounts.contains_key(id) {
                return nonsense(format!("there is no account `{id}`"));
            }
        }
        Ok(())
    }

    fn write(&mut self, batch: Batch) {
        const KNOWN: &str = "what does not exist was refused before";
        let mut changes = batch.rests;
        for ((id, lot), moved) in batch.lots {
            let account = self.account_mut(&id).expect(KNOWN);
            if account.move_lot(lot, moved) {
                let body = ChangeBody {
                    lots: Some(account.order()),
                    ..ChangeBody::default()
                };
                changes.push((id, body));
            }
        }
        for (id, moved) in batch.debts {
            self.account_mut(&id).expect(KNOWN).debt += moved;
        }
        for ((id, key, start), moved) in batch.counters {
            let counters = &mut self.account_mut(&id).expect(KNOWN).counters;
            *counters.entry((key, start)).or_default() += moved;
        }
        for (account, body) in changes {
            self.append(&account, body);
        }
        for posting in &batch.postings {
            self.post(posting);
        }
        for (id, taken) in batch.withdrawn {
            self.pending.remove(&id);
            self.withdrawn.insert(id, taken);
        }
        self.records.extend(batch.records);
        self.known.extend(batch.known);
    }
}
