//! What the store keeps of one reservation: a hold while it is open, a mark once it has ended.
//!
//! The hold carries all that its record will need (rule 9), so that whoever ends it can write it.

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::money::{Amount, Nanos};
use crate::quota::{
    AccountId, Count, CounterKey, Cut, Detail, Ended, EndedEntry, EntryKind, Line, OpenHold,
    Outcome, Progress, ReservationId, Reserve, Settle,
};

use super::wallet::Drawn;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Reservation {
    Held(Box<Hold>),
    Ended(Box<Mark>),
}

/// A reservation that is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Hold {
    pub account: AccountId,
    /// Where the wallet holds its charge.
    pub slices: Drawn,
    pub floor: Nanos,
    pub metered: Nanos,
    pub lines: Vec<HeldLine>,
    pub fits: bool,
    pub deadline: UnixMs,
    /// No heartbeat moves the deadline beyond this.
    pub latest: UnixMs,
    pub detail: Detail,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct HeldLine {
    pub key: CounterKey,
    pub start: UnixMs,
    pub amount: Amount,
    pub floor: Amount,
    pub metered: Amount,
}

impl Hold {
    pub fn new(now: UnixMs, reserve: &Reserve, slices: Drawn, fits: bool) -> Self {
        Self {
            account: reserve.account.clone(),
            slices,
            floor: reserve.floor,
            metered: Nanos::ZERO,
            lines: reserve.lines.iter().map(HeldLine::new).collect(),
            fits,
            deadline: now.plus_ms(reserve.deadline_ms.min(reserve.max_age_ms)),
            latest: now.plus_ms(reserve.max_age_ms),
            detail: reserve.detail.clone(),
        }
    }

    /// Notes a heartbeat. Neither what is metered nor the deadline ever goes back (rule 3), so that heartbeats may
    /// arrive in any order.
    pub fn note(&mut self, now: UnixMs, progress: &Progress) {
        if progress.charge >= self.metered {
            self.metered = progress.charge;
            self.detail = progress.detail.clone();
        }
        for (line, amount) in self.lines.iter_mut().zip(&progress.amounts) {
            line.metered = line.metered.max(*amount);
        }
        let deadline = now.plus_ms(progress.deadline_ms).min(self.latest);
        self.deadline = self.deadline.max(deadline);
    }

    /// What it is charged if it lapses now: a lapse assumes that the call was forwarded (rule 6).
    pub fn lapsed(&self) -> Totals {
        let count = |line: &HeldLine| line.count(line.floor.max(line.metered));
        Totals {
            outcome: Outcome::Lapsed,
            charge: self.floor.max(self.metered),
            counts: without_zeros(self.lines.iter().map(count)),
            detail: self.detail.clone(),
            cut: Cut::default(),
        }
    }

    /// What the counters hold for it.
    pub fn counts(&self) -> Vec<Count> {
        let count = |line: &HeldLine| line.count(line.amount);
        self.lines.iter().map(count).collect()
    }

    /// What `explain` shows of it.
    pub fn open(&self, id: ReservationId) -> OpenHold {
        OpenHold {
            id,
            reserved: self.slices.total(),
            slices: self.slices.lots.clone(),
            counts: self.counts(),
            deadline: self.deadline,
        }
    }
}

impl HeldLine {
    fn new(line: &Line) -> Self {
        Self {
            key: line.key.clone(),
            start: line.span.start,
            amount: line.amount,
            floor: line.floor,
            metered: Amount(0),
        }
    }

    fn count(&self, amount: Amount) -> Count {
        Count {
            key: self.key.clone(),
            start: self.start,
            amount,
        }
    }
}

/// What a reservation comes to in all.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Totals {
    pub outcome: Outcome,
    pub charge: Nanos,
    /// None with zero.
    pub counts: Vec<Count>,
    pub detail: Detail,
    pub cut: Cut,
}

impl Totals {
    pub fn of(settle: &Settle) -> Self {
        Self {
            outcome: settle.outcome,
            charge: settle.charge,
            counts: without_zeros(settle.counts.iter().cloned()),
            detail: settle.detail.clone(),
            cut: Cut::default(),
        }
    }

    /// No more than this was charged.
    pub fn charged(&mut self, charge: Nanos) {
        self.cut.charge = self.charge - charge;
        self.charge = charge;
    }

    /// So much less was counted.
    pub fn not_counted(&mut self, count: &Count, amount: Amount) {
        if amount == Amount(0) {
            return;
        }
        for counted in &mut self.counts {
            if is_same(counted, count) {
                counted.amount -= amount;
            }
        }
        self.counts.retain(|count| count.amount != Amount(0));
        self.cut.counts.push(Count {
            amount,
            ..count.clone()
        });
        self.cut
            .counts
            .sort_by(|one, other| one.key.cmp(&other.key));
    }

    /// Whether it used more than was held, of credit or of any counter (invariant 5).
    pub fn overruns(&self, reserved: Nanos, held: &[Count]) -> bool {
        let beyond = |count: &Count| count.amount > amount_of(held, count);
        self.charge > reserved || self.counts.iter().any(beyond)
    }

    /// The record that the outbox carries.
    pub fn entry(self, id: ReservationId, reserved: Nanos, overrun: bool) -> EntryKind {
        EntryKind::Ended(EndedEntry {
            id,
            outcome: self.outcome,
            overrun,
            reserved,
            charge: self.charge,
            counts: self.counts,
            detail: self.detail,
            cut: self.cut,
        })
    }
}

/// A reservation that has ended (rules 5 and 7).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub ended: Ended,
    /// Set while a settle may still correct it. Few marks have it, and there is one for each call of the last 15 minutes:
    /// without the box each would be more than three times as long.
    pub lapse: Option<Box<Lapse>>,
    /// When the store forgets it.
    pub until: UnixMs,
}

/// What a settle after a lapse needs to know of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Lapse {
    pub reserved: Nanos,
    pub held: Vec<Count>,
    pub charged: Drawn,
    pub counted: Vec<Count>,
}

pub(super) fn is_same(one: &Count, other: &Count) -> bool {
    one.key == other.key && one.start == other.start
}

/// How much a list says of a counter; zero where it says nothing.
pub(super) fn amount_of(counts: &[Count], of: &Count) -> Amount {
    let found = counts.iter().find(|count| is_same(count, of));
    found.map_or(Amount(0), |count| count.amount)
}

fn without_zeros(counts: impl Iterator<Item = Count>) -> Vec<Count> {
    counts.filter(|count| count.amount != Amount(0)).collect()
}
