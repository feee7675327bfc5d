//! The verbs of a reservation, what each is asked and what each answers.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AccountId, CounterKey, Detail, LotId, OutSeq, ReservationId, Snapshot, Span, Version};
use crate::clock::UnixMs;
use crate::money::{Amount, Nanos};

/// A claim on one counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Which counter.
    pub key: CounterKey,
    /// Which span of its window, decided once (rule 12).
    pub span: Span,
    /// How much is held; never negative.
    pub amount: Amount,
    /// How much a lapse counts at the least.
    pub floor: Amount,
    /// What used and held may come to, this claim included.
    pub limit: Amount,
}

/// Whether a claim may be held that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admission {
    /// Never: invariant 1.
    Strict,
    /// In any case: accounts in monitor mode.
    Forced,
    /// In any case, and as it was: a hold that the store has lost is made again, whatever has changed meanwhile of the
    /// account's version, its windows or the outbox (rule 23).
    Again,
}

/// Reserve: claim credit and quota for one call, all or nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reserve {
    /// The claim's id; the same id again holds nothing twice.
    pub id: ReservationId,
    /// Who pays.
    pub account: AccountId,
    /// The version of the snapshot that the lines were built from.
    pub version: Version,
    /// What the wallet holds.
    pub charge: Nanos,
    /// What a lapse charges at the least: the charge of the input.
    pub floor: Nanos,
    /// What the counters hold; one line a counter, at most [`MAX_LINES`].
    pub lines: Vec<Line>,
    /// How long the hold lives without a heartbeat.
    pub deadline_ms: i64,
    /// How long it lives at the most.
    pub max_age_ms: i64,
    /// Whether it may be held by force.
    pub admission: Admission,
    /// The record if it lapses before any progress.
    pub detail: Detail,
}

/// What a counter stood at, in the span that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LineState {
    /// Settled.
    pub used: Amount,
    /// Held by calls in flight.
    pub held: Amount,
}

/// What the decision saw, before this claim: enough to explain a refusal or to fill the rate-limit headers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Live lots less debt: what is left of the wallet, overage not counted. Negative when it is in debt.
    pub balance: Nanos,
    /// What calls in flight hold of the wallet.
    pub held: Nanos,
    /// One a line, in the order of the lines.
    pub lines: Vec<LineState>,
}

/// The answer to [`Reserve`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reserved {
    /// It is held until `deadline`. The same id again answers the same, with what is seen then.
    Held {
        /// When it lapses unless a heartbeat comes.
        deadline: UnixMs,
        /// False where only force made it fit.
        fits: bool,
        /// What the decision saw.
        seen: Seen,
    },
    /// It does not fit; nothing was taken.
    Short(Seen),
    /// The caller's snapshot is old; here is the one that counts (rule 13).
    Stale(Box<Snapshot>),
    /// A line's span does not hold the store's time: build the lines for this moment and try again (rule 12).
    WindowMoved(UnixMs),
    /// The account must be loaded first.
    Cold,
    /// This id has ended already (rule 5).
    Ended(Ended),
    /// The outbox is longer than its bound: endings would have nowhere to go (rule 14).
    OutboxFull,
}

/// How a reservation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// With what was used.
    Settled,
    /// With nothing used.
    Released,
    /// Its deadline passed.
    Lapsed,
}

impl Outcome {
    /// The word in the store and the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Lapsed => "lapsed",
        }
    }
}

impl FromStr for Outcome {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Settled, Self::Released, Self::Lapsed]
            .into_iter()
            .find(|o| o.as_str() == text)
            .ok_or(())
    }
}

/// The mark that a reservation leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How it ended.
    pub outcome: Outcome,
    /// What it was charged in all.
    pub charge: Nanos,
}

/// Progress: the heartbeat, with what has been metered so far (rule 3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Of which hold.
    pub id: ReservationId,
    /// Whose.
    pub account: AccountId,
    /// What a settle would charge now; a lower one than noted is ignored.
    pub charge: Nanos,
    /// What it would count, a number a line of the hold in their order; each never decreases.
    pub amounts: Vec<Amount>,
    /// How long the hold lives from now on.
    pub deadline_ms: i64,
    /// The record if it lapses from now on; ignored where `charge` is lower than noted.
    pub detail: Detail,
}

/// The answer to [`Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progressed {
    /// Held on until this moment.
    Held(UnixMs),
    /// It ended; nothing was moved.
    Ended(Ended),
    /// The store knows nothing of it.
    Unknown,
}

/// What one counter is charged by an ending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Which counter.
    pub key: CounterKey,
    /// The start of the span it was reserved in.
    pub start: UnixMs,
    /// How much in all; negative only where a cumulative count goes down (rule 33).
    pub amount: Amount,
}

/// Settle or release: the end of a reservation, with what was really used (rule 4).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settle {
    /// Which.
    pub id: ReservationId,
    /// Whose.
    pub account: AccountId,
    /// Settled, or released: never lapsed. A release has no charge and no count.
    pub outcome: Outcome,
    /// The charge in all.
    pub charge: Nanos,
    /// The counts in all, one for each line of the hold in their order.
    pub counts: Vec<Count>,
    /// The record.
    pub detail: Detail,
}

/// The answer to [`Settle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettleAnswer {
    /// It ended now, and this is the number of its outbox entry.
    Ended(OutSeq),
    /// It had ended before; nothing was moved.
    Already(Ended),
    /// A cumulative count would go below zero; nothing was moved, and what was held is held (rule 33).
    BelowZero,
    /// The account must be loaded first.
    Cold,
}

/// The answer to a lapse, which checks the deadline again (rule 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LapseAnswer {
    /// It lapsed now, and this is the number of its outbox entry.
    Lapsed(OutSeq),
    /// Not yet: a heartbeat moved its deadline to this moment.
    NotDue(UnixMs),
    /// It ended otherwise.
    Already(Ended),
    /// The store knows nothing of it.
    Unknown,
    /// The account must be loaded first.
    Cold,
}

/// A hold whose deadline has passed, as a sweeper finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overdue {
    /// Which.
    pub id: ReservationId,
    /// Whose.
    pub account: AccountId,
}

/// A lot whose time is over: what is left of it is to be taken (rule 27).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredLot {
    /// Whose.
    pub account: AccountId,
    /// Which.
    pub lot: LotId,
    /// Since when, which no change ever moves: the store compares it with its own clock.
    pub expires_at: UnixMs,
}

/// The answer to [`ExpiredLot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpireAnswer {
    /// What was left was taken, and this is the number of the outbox entry.
    Expired(OutSeq),
    /// Nothing is left, or the store knows nothing of the lot. What holds give back later is taken later.
    Nothing,
    /// Its time is not over by the store's clock.
    NotDue,
    /// The account must be loaded first.
    Cold,
}

/// Takes credit out of a lot otherwise than by using it. Only the store takes from a lot, so the ledger asks it to, by
/// a numbered change or with the image it loads (rule 27).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// The same id takes once.
    pub id: Uuid,
    /// From which lot.
    pub lot: LotId,
    /// Why.
    pub reason: WithdrawalReason,
    /// How much at the most: what is held or used already stays.
    pub amount: Nanos,
}

/// Why credit is taken out of a lot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WithdrawalReason {
    /// The grant should not have been made.
    Void,
    /// What was paid for it is paid back.
    Refund,
}

impl WithdrawalReason {
    /// The word in the store and the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Void => "void",
            Self::Refund => "refund",
        }
    }
}

impl FromStr for WithdrawalReason {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::Void, Self::Refund]
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or(())
    }
}
