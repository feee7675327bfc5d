//! The outbox: what ended and what it moved, on its way to the ledger (invariant 3).

use serde::{Deserialize, Serialize};

use super::{AccountId, Count, Detail, Epoch, LotId, OutSeq, Outcome, ReservationId, Withdrawal};
use crate::clock::UnixMs;
use crate::money::Nanos;

/// What an entry moved, or a change moves. Signed, holds not counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Moved {
    /// Lots: negative is drawn. No lot twice, none with zero; in the order they were drawn.
    pub lots: Vec<(LotId, Nanos)>,
    /// Debt: positive is more debt.
    pub debt: Nanos,
    /// Counters: positive is used.
    pub counters: Vec<Count>,
}

impl Moved {
    /// By how much the wallet went up.
    pub fn wallet(&self) -> Nanos {
        self.lots.iter().map(|(_, nanos)| *nanos).sum::<Nanos>() - self.debt
    }
}

/// One line of the outbox: written in the same atomic step as what it tells of (invariant 3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub seq: OutSeq,
    /// The epoch it was written in.
    pub epoch: Epoch,
    /// When, by the store's clock.
    pub at: UnixMs,
    /// Whose.
    pub account: AccountId,
    /// What happened.
    pub kind: EntryKind,
    /// What the store moved for it.
    pub moved: Moved,
}

/// What an outbox entry tells of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A reservation ended.
    Ended(EndedEntry),
    /// Credit that became available paid debt (rule 27).
    Repaid,
    /// What was left of a lot when its time was over: breakage.
    Expired,
    /// What the ledger asked to be taken out of a lot; `moved` says how much was there to take, nothing included.
    Withdrawn(Withdrawal),
}

/// How a reservation ended, with its totals; `moved` may be less where it had lapsed before (rule 6).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndedEntry {
    /// Which.
    pub id: ReservationId,
    /// How.
    pub outcome: Outcome,
    /// Whether it used more than it had reserved, of credit or of any counter (invariant 5).
    pub overrun: bool,
    /// What the wallet had held; zero where the store knew of no hold.
    pub reserved: Nanos,
    /// The charge in all.
    pub charge: Nanos,
    /// The counts in all.
    pub counts: Vec<Count>,
    /// The record.
    pub detail: Detail,
    /// What was used and is in neither charge nor counts.
    #[serde(default)]
    pub cut: Cut,
}

/// What an ending could not take, because a debt or a counter is at its bound (rule 11). Nothing, but for sums that no
/// honest upstream reports.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cut {
    /// Not charged.
    pub charge: Nanos,
    /// Not counted, by key; none with zero.
    pub counts: Vec<Count>,
}

impl Cut {
    /// Whether everything was taken.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}
