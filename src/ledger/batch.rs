//! A batch of outbox entries, decided: all that one flush writes (rules 19, 24).
//!
//! Every ledger writes the same batch, each in its own way, so none can decide otherwise.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::decide::{Line, Recorded, Taken, correction_id, decide};
use super::record::{Numbers, RecordDetail};
use crate::clock::UnixMs;
use crate::money::{Amount, Nanos};
use crate::quota::{
    AccountId, ChangeBody, CounterKey, EndedEntry, Entry, EntryKind, LotId, Moved, ReservationId,
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
}

impl Batch {
    /// Decides entries in their order, each knowing what the ones before it did.
    pub fn decided(entries: &[&Entry], known: HashMap<ReservationId, Known>) -> Self {
        let mut batch = Self {
            known,
            ..Self::default()
        };
        for entry in entries {
            match &entry.kind {
                EntryKind::Ended(ended) => batch.end(entry, ended),
                EntryKind::Repaid => batch.moves(&entry.account, &entry.moved),
            }
        }
        batch.lots.retain(|_, nanos| *nanos != Nanos::ZERO);
        batch.debts.retain(|_, nanos| *nanos != Nanos::ZERO);
        batch.counters.retain(|_, amount| *amount != Amount(0));
        batch
    }

    fn end(&mut self, entry: &Entry, ended: &EndedEntry) {
        let known = self.known.get(&ended.id);
        let decision = decide(ended, &entry.moved, known.map(|known| &known.recorded));
        if decision.rest != Moved::default() {
            let body = ChangeBody {
                moved: decision.rest,
                ..ChangeBody::default()
            };
            self.rests.push((entry.account.clone(), body));
        }
        if decision.line == Line::Nothing {
            return;
        }
        let corrected = known.filter(|_| decision.line == Line::Correction).cloned();
        self.moves(&entry.account, &decision.taken.movement());
        let detail = RecordDetail::read(&ended.detail);
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
