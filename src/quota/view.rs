//! What the store shows of itself: a shard, its outbox, an account, each in one atomic read.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    AccountId, ChangeSeq, Count, CounterKey, Entry, Epoch, Lot, LotId, OutSeq, ReservationId,
    RunId, Snapshot,
};
use crate::clock::UnixMs;
use crate::money::{Amount, Nanos};

/// What a shard's state begins with (rule 18).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The installation it belongs to.
    pub install: Uuid,
    /// [`STORE_FORMAT`].
    pub format: u32,
    /// Its epoch.
    pub epoch: Epoch,
    /// The number of the last outbox entry.
    pub out_seq: OutSeq,
    /// The number of the last change applied.
    pub applied_seq: ChangeSeq,
}

/// A shard as one atomic read sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardView {
    /// `None`: the store has lost it, or never had it.
    pub header: Option<Header>,
    /// The server that answered.
    pub run_id: RunId,
    /// Its clock.
    pub now: UnixMs,
    /// Whether it never evicts (rule 14).
    pub noeviction: bool,
    /// How many entries wait.
    pub outbox_len: u64,
    /// The epoch of the oldest of them. While it is an earlier one, no account may be loaded (rule 22).
    pub oldest_epoch: Option<Epoch>,
}

/// A piece of the outbox, oldest first, and the server it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Outbox {
    /// The server that was read; a flush commits only if the ledger knows the shard to be there (rule 19).
    pub run_id: RunId,
    /// Its epoch, as the reader knew it: by then another may have begun.
    pub epoch: Epoch,
    /// The entries.
    pub entries: Vec<Entry>,
    /// Those among them that nobody can read.
    pub unreadable: Vec<Unreadable>,
}

/// An entry that makes no sense: it goes to quarantine as it is (rule 26).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its number.
    pub seq: OutSeq,
    /// Whose, where that much can be read.
    pub account: Option<AccountId>,
    /// What is there.
    pub raw: Vec<u8>,
    /// What is wrong with it.
    pub reason: String,
}

/// A balance, and what calls in flight hold of it beyond that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LotState {
    /// What can be drawn; less than zero only while a correction is on its way.
    pub left: Nanos,
    /// What is held.
    pub held: Nanos,
}

/// A counter as the store has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterState {
    /// Which.
    pub key: CounterKey,
    /// The start of its latest span.
    pub start: UnixMs,
    /// Settled in that span.
    pub used: Amount,
    /// Held in that span.
    pub held: Amount,
}

/// One open hold, as `explain` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenHold {
    /// Which.
    pub id: ReservationId,
    /// What the wallet holds for it.
    pub reserved: Nanos,
    /// From which lots, in the order they were drawn; what is on no lot is on the debt.
    pub slices: Vec<(LotId, Nanos)>,
    /// What each counter holds for it.
    pub counts: Vec<Count>,
    /// When it lapses.
    pub deadline: UnixMs,
}

/// All that the store knows of one account, in one atomic read: what `verify` and `account show` look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountView {
    /// What sidecars cache.
    pub snapshot: Snapshot,
    /// The lots that may be drawn, in their order.
    pub order: Vec<Lot>,
    /// Every lot the store has a balance of, by id.
    pub lots: Vec<(LotId, LotState)>,
    /// What is owed, and what of it calls in flight hold beyond that. Here `left` counts up: it is debt.
    pub debt: LotState,
    /// Every counter, by key.
    pub counters: Vec<CounterState>,
    /// The change its load was read at.
    pub as_of: ChangeSeq,
    /// The change the store is at.
    pub applied_seq: ChangeSeq,
    /// The account's entries that still wait in the outbox.
    pub unflushed: Vec<Entry>,
    /// Its open holds, by id.
    pub holds: Vec<OpenHold>,
}
