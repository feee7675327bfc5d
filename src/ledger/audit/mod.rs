//! The audit: what is kept in two places, compared to the last nano.
//!
//! The store is compared with the ledger, and the ledger with itself: its balances with the lines they are sums of. What
//! does not add up is a [`Drift`], and comes with what may account for it.

use crate::quota::{AccountId, ChangeSeq, CounterBalance, LotId, Moved, OutSeq};

pub mod clue;
mod compare;
mod drift;
pub mod own;

pub use clue::{Clue, Suspect};
pub use compare::compare;
pub use drift::{Drift, Of, Terms, Thing};
pub use own::{Check, Depth, OwnSums};

/// Which accounts of a shard are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// Those after this one, in the order of their ids.
    After(Option<AccountId>),
    /// This one alone.
    Only(AccountId),
}

/// Accounts whose books are read at once: few, so that an audit never holds up a flush for long.
pub const BATCH: usize = 50;

/// What the ledger says of one account, read while its shard's row stood still.
#[derive(Debug, Clone, PartialEq)]
pub struct Books {
    /// Whose.
    pub account: AccountId,
    /// What is left of each grant, empty ones included.
    pub lots: Vec<(LotId, i64)>,
    /// What it owes.
    pub debt: i64,
    /// Its counters, each in its latest span.
    pub counters: Vec<CounterBalance>,
    /// Numbered changes that the store may not have applied.
    pub changes: Vec<(ChangeSeq, Moved)>,
    /// Every outbox entry up to this one is in the ledger.
    pub flushed_seq: OutSeq,
    /// What the store moved for entries that are in quarantine (rule 26).
    pub quarantined: Vec<Moved>,
}
