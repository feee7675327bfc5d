//! What the ledger tells the store: an account to load, and the numbered changes that follow (rules 20 and 22).

use serde::{Deserialize, Serialize};

use super::{AccountId, ChangeSeq, CounterKey, Lot, Moved, ShardId, Snapshot, Withdrawal};
use crate::clock::UnixMs;
use crate::money::{Amount, Nanos};

/// A counter as the ledger knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterBalance {
    /// Which.
    pub key: CounterKey,
    /// The start of its span.
    pub start: UnixMs,
    /// Settled.
    pub used: Amount,
}

/// An account as the ledger knows it, read in one snapshot: what a load puts into the store (rule 22).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountImage {
    /// What sidecars cache.
    pub snapshot: Snapshot,
    /// Its lots, in the order they are drawn, with what the ledger says is left of each.
    pub lots: Vec<(Lot, Nanos)>,
    /// What it owes.
    pub debt: Nanos,
    /// Its counters, each in its latest span.
    pub counters: Vec<CounterBalance>,
    /// What the ledger wants taken out of its lots and has no entry of yet: the store does so with the load.
    pub withdrawals: Vec<Withdrawal>,
    /// The last change the ledger had made to this shard.
    pub as_of: ChangeSeq,
}

/// The answer to a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadAnswer {
    /// The account is live.
    Loaded,
    /// It was live already; nothing was moved.
    Warm,
    /// The image is older than what the store has applied; read it again.
    Behind,
}

/// One change that the ledger made, on its way to the store (rule 20).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreChange {
    /// Of which shard.
    pub shard: ShardId,
    /// Its number there.
    pub seq: ChangeSeq,
    /// Whose.
    pub account: AccountId,
    /// What.
    pub body: ChangeBody,
}

/// What a change does, in this order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ChangeBody {
    /// What sidecars are to know from now on.
    pub snapshot: Option<Snapshot>,
    /// The lots in their new order.
    pub lots: Option<Vec<Lot>>,
    /// What moves.
    pub moved: Moved,
    /// Whether new credit is in `moved`, which pays debt first (rule 27).
    pub repay: bool,
    /// What is to be taken out of a lot (rule 27).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdraw: Option<Withdrawal>,
}

/// The answer to an apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApplyAnswer {
    /// Applied, or passed over because the account is cold or was loaded later.
    Applied,
    /// The store is at this number; only the next one is accepted.
    At(ChangeSeq),
}
