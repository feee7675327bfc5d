//! A batch of outbox entries, decided: all that one flush writes (rules 19, 24).
//!
//! Every ledger writes the same batch, each in its own way, so none can decide otherwise.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::decide::{Line, Recorded, Taken, correction_id, decide};
use super::posting::{Book, Posting, PostingKind};
use super::record::{Numbers, RecordDetail};
use crate::clock::UnixMs;
use crate::money::{Amount, Nanos};
use crate::quota::{
    AccountId, ChangeBody, CounterKey, EndedEntry, Entry, EntryKind, Epoch, Lot, LotId, Moved,
    ReservationId, Withdrawal, WithdrawalReason,
};

/// One usage record, as it is written for ever.
#[derive(Debug, Clone)]
pub struct UsageRecord {
    /// The reservation's, or derived from it.
    pub id: Uuid,
    /// Who pays.
    pub account: AccountId,
    /// When it ended, by the store's clock.
    pub occurred_at: UnixMs,
    /// `settled`, `released`, `lapsed` or `correction`.
    pub outcome: &'static str,
    /// Whether more was used than reserved.
    pub overrun: bool,
    /// What the wallet had held.
    pub reserved: Nanos,
    /// What the wallet was charged; of a correction the difference, like all its numbers: sums are always right.
    pub charged: Nanos,
    /// The numbers.
    pub numbers: Numbers,
    /// The rest of what is known.
    pub detail: RecordDetail,
    /// Which record this one corrects.
    pub corrects: Option<Uuid>,
    /// What was taken from where.
    pub taken: Taken,
    /// The posting it is part of; `None` where it moved no credit.
    pub posting: Option<Uuid>,
}

/// What is known of a reservation before or within a batch.
#[derive(Debug, Clone)]
pub struct Known {
    /// What is recorded of it.
    pub recorded: Recorded,
    /// The numbers of its record.
    pub numbers: Numbers,
}

/// All that one flush writes. Everything is in one order, whoever writes it.
#[derive(Debug, Default)]
pub struct Batch {
    /// New records.
    pub records: Vec<UsageRecord>,
    /// By how much each lot goes up.
    pub lots: BTreeMap<(AccountId, LotId), Nanos>,
    /// By how much each debt goes up.
    pub debts: BTreeMap<AccountId, Nanos>,
    /// By how much each counter goes up.
    pub counters: BTreeMap<(AccountId, CounterKey, UnixMs), Amount>,
    /// What the store must still move.
    pub rests: Vec<(AccountId, ChangeBody)>,
    /// What is known of each reservation of the batch afterwards.
    pub known: HashMap<ReservationId, Known>,
    /// The withdrawals that are done, and how much there was to take.
    pub withdrawn: Vec<(Uuid, Nanos)>,
    /// The same movements of credit as `lots` and `debts`, in double entry.
    pub postings: Vec<Posting>,
    /// Withdrawals that the ledger asked for and has no entry of.
    pending: BTreeSet<Uuid>,
    /// The epoch whose movements stand in the store; `None`: whatever the epoch.
    stands: Option<Epoch>,
    /// Where the posting of an account's usage is.
    usage: HashMap<AccountId, usize>,
}

/// The ids of the reservations that ended in these entries, and so of their records.
pub(super) fn ended_in(entries: &[&Entry]) -> BTreeSet<Uuid> {
    let ids = entries.iter().filter_map(|entry| match &entry.kind {
        EntryKind::Ended(ended) => Some(ended.id.0),
        EntryKind::Repaid | EntryKind::Expired | EntryKind::Withdrawn(_) => None,
    });
    ids.collect()
}

/// The ids of the corrections that there may be beside these records. Nothing is corrected that is not recorded, so
/// nobody has to look for them where an ending is news, as nearly all are.
pub(super) fn corrections_of(recorded: &[Uuid]) -> Vec<Uuid> {
    let ids = recorded.iter().copied().map(ReservationId);
    ids.map(correction_id).collect()
}

/// The withdrawals that these entries tell of, and whose.
pub(super) fn withdrawals_of<'a>(entries: &[&'a Entry]) -> Vec<(&'a AccountId, &'a Withdrawal)> {
    let asked = entries.iter().filter_map(|entry| match &entry.kind {
        EntryKind::Withdrawn(withdrawal) => Some((&entry.account, withdrawal)),
        EntryKind::Ended(_) | EntryKind::Repaid | EntryKind::Expired => None,
    });
    asked.collect()
}

/// What tells the store the order of these lots, those of one account side by side.
pub(super) fn orders_of(lots: Vec<(AccountId, Lot, Nanos)>) -> Vec<(AccountId, ChangeBody)> {
    let mut orders: Vec<(AccountId, ChangeBody)> = Vec::new();
    for (account, lot, _) in lots {
        if orders.last().is_none_or(|(last, _)| *last != account) {
            orders.push((account, ChangeBody::default()));
        }
        if let Some((_, body)) = orders.last_mut() {
            body.lots.get_or_insert_default().push(lot);
        }
    }
    orders
}

impl Batch {
    /// Decides entries in their order, each knowing what the ones before it did. `known` is what is recorded of their
    /// reservations, `pending` which of their withdrawals the ledger still waits for.
    ///
    /// `stands` is the shard's epoch. What the store moved in an earlier one is gone with it, so there is nothing to undo:
    /// every account is loaded once the ledger has that epoch's entries (rule 22). `None` is for entries whose movements
    /// count in loads, too: those in quarantine.
    pub fn decided(
        entries: &[&Entry],
        known: HashMap<ReservationId, Known>,
        pending: BTreeSet<Uuid>,
        stands: Option<Epoch>,
    ) -> Self {
        let mut batch = Self {
            known,
            pending,
            stands,
            ..Self::default()
        };
        for entry in entries {
            match &entry.kind {
                EntryKind::Ended(ended) => batch.end(entry, ended),
                EntryKind::Repaid => batch.post(entry, PostingKind::Repayment, Book::Debt),
                EntryKind::Expired => batch.post(entry, PostingKind::Expiry, Book::Expired),
                EntryKind::Withdrawn(withdrawal) => batch.withdraw(entry, withdrawal),
            }
        }
        batch.postings.retain(|posting| !posting.entries.is_empty());
        batch.lots.retain(|_, nanos| *nanos != Nanos::ZERO);
        batch.debts.retain(|_, nanos| *nanos != Nanos::ZERO);
        batch.counters.retain(|_, amount| *amount != Amount(0));
        batch
    }

    fn end(&mut self, entry: &Entry, ended: &EndedEntry) {
        let known = self.known.get(&ended.id);
        let decision = decide(ended, &entry.moved, known.map(|known| &known.recorded));
        let corrected = known.filter(|_| decision.line == Line::Correction).cloned();
        self.undo(entry, decision.rest);
        if decision.line == Line::Nothing {
            return;
        }
        let posting = self.post_charge(entry, decision.line, &decision.taken);
        let detail = RecordDetail::of(ended);
        let record = UsageRecord {
            id: ended.id.0,
            account: entry.account.clone(),
            occurred_at: entry.at,
            outcome: ended.outcome.as_str(),
            overrun: ended.overrun,
            reserved: ended.reserved,
            charged: decision.taken.charge(),
            numbers: detail.numbers(),
            detail,
            corrects: None,
            taken: decision.taken,
            posting,
        };
        let (record, known) = match corrected {
            None => {
                let known = Known::of(ended, &record);
                (record, known)
            }
            Some(known) => known.correct(ended.id, record),
        };
        self.known.insert(ended.id, known);
        self.records.push(record);
    }

    /// Credit that moved otherwise than by a call.
    fn post(&mut self, entry: &Entry, kind: PostingKind, other: Book) {
        self.moves(&entry.account, &entry.moved);
        let mut posting = Posting::of_outbox(kind, entry);
        posting.wallet(&entry.moved, other);
        self.postings.push(posting);
    }

    /// What the records of an account come to is one posting; a correction is one of its own.
    fn post_charge(&mut self, entry: &Entry, line: Line, taken: &Taken) -> Option<Uuid> {
        let movement = taken.movement();
        self.moves(&entry.account, &movement);
        if movement.lots.is_empty() && movement.debt == Nanos::ZERO {
            return None;
        }
        let kind = match line {
            Line::Correction => PostingKind::Correction,
            _ => PostingKind::Usage,
        };
        let usage = self.usage.get(&entry.account).copied();
        let at = usage
            .filter(|_| kind == PostingKind::Usage)
            .unwrap_or_else(|| {
                let posting = Posting::of_outbox(kind, entry);
                self.postings.push(posting);
                self.postings.len() - 1
            });
        if kind == PostingKind::Usage {
            self.usage.insert(entry.account.clone(), at);
        }
        self.postings[at].wallet(&movement, Book::Used);
        Some(self.postings[at].id)
    }

    /// What was asked for once is taken once; whatever else the store took goes back (rule 24).
    // holds: 4, never twice
    fn withdraw(&mut self, entry: &Entry, withdrawal: &Withdrawal) {
        if !self.pending.remove(&withdrawal.id) {
            self.undo(entry, Taken::default().rest(&entry.moved));
            return;
        }
        let (kind, book) = match withdrawal.reason {
            WithdrawalReason::Void => (PostingKind::Void, Book::Voided),
            WithdrawalReason::Refund => (PostingKind::Refund, Book::Refunded),
        };
        self.post(entry, kind, book);
        self.withdrawn.push((withdrawal.id, -entry.moved.wallet()));
    }

    /// Has the store move what it did otherwise than the ledger.
    fn undo(&mut self, entry: &Entry, rest: Moved) {
        let stands = self.stands.is_none_or(|epoch| epoch == entry.epoch);
        if stands && rest != Moved::default() {
            let body = ChangeBody {
                moved: rest,
                ..ChangeBody::default()
            };
            self.rests.push((entry.account.clone(), body));
        }
    }

    fn moves(&mut self, account: &AccountId, moved: &Moved) {
        for (lot, nanos) in &moved.lots {
            *self.lots.entry((account.clone(), *lot)).or_default() += *nanos;
        }
        *self.debts.entry(account.clone()).or_default() += moved.debt;
        for count in &moved.counters {
            let counter = (account.clone(), count.key.clone(), count.start);
            *self.counters.entry(counter).or_default() += count.amount;
        }
    }
}

impl Known {
    fn of(ended: &EndedEntry, record: &UsageRecord) -> Self {
        Self {
            recorded: Recorded {
                outcome: ended.outcome,
                corrected: false,
                taken: record.taken.clone(),
            },
            numbers: record.numbers,
        }
    }

    /// Makes a correction of what would be a record: the lapse had held as much, and all else is a difference.
    fn correct(self, id: ReservationId, record: UsageRecord) -> (UsageRecord, Self) {
        let correction = UsageRecord {
            id: correction_id(id),
            outcome: "correction",
            reserved: Nanos::ZERO,
            numbers: record.numbers.less(self.numbers),
            corrects: Some(id.0),
            ..record
        };
        let known = Self {
            recorded: Recorded {
                corrected: true,
                taken: self.recorded.taken.and(&correction.taken),
                ..self.recorded
            },
            numbers: self.numbers,
        };
        (correction, known)
    }
}
