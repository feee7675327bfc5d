//! Quota: reservations, and the live store that keeps them exact.
//!
//! The verbs of the protocol are typed here once; [`engine`] is their meaning, and every backend must answer as it does.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::UnixMs;
use crate::money::{Amount, Nanos};

pub mod engine;
mod limit;
pub mod memory;
pub mod redis;
mod reservation;
mod settler;
mod sweeper;

pub use limit::{CounterKey, Limit, NameError, Resource, Scope, Span, Window};
pub use reservation::{Ending, Metered, Reservation};
pub use settler::{Settler, SettlerSettings, Surroundings};
pub use sweeper::{Sweeper, SweeperSettings};

/// The most quota lines one call may claim.
pub const MAX_LINES: usize = 32;
/// The most lots with something left that an account may have.
pub const MAX_LOTS: usize = 256;
/// The longest [`Detail`] a hold or an entry carries.
pub const MAX_DETAIL_BYTES: usize = 16 * 1024;
/// How long the store remembers that a reservation ended (rule 7).
pub const ENDED_MARK_MS: i64 = 15 * 60 * 1000;
/// The layout of what the store keeps; a sidecar of another format keeps its hands off.
pub const STORE_FORMAT: u32 = 1;

/// The customer who pays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountId(Arc<str>);

const MAX_ACCOUNT_ID_BYTES: usize = 128;

/// The text cannot name an account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an account id is 1 to 128 of A-Z, a-z, 0-9, `.`, `_`, `-` and `@`")]
pub struct AccountIdError;

impl AccountId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shard this account belongs to, for ever (rule 17).
    pub fn shard(&self, shards: u16) -> ShardId {
        // FNV-1a, because it is stable across versions and platforms; it needs to spread, not to resist.
        let hash = self
            .0
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let shard = hash % u64::from(shards);
        ShardId(u16::try_from(shard).expect("a remainder of a u16 is a u16"))
    }
}

impl FromStr for AccountId {
    type Err = AccountIdError;

    fn from_str(text: &str) -> Result<Self, AccountIdError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@');
        if text.is_empty() || text.len() > MAX_ACCOUNT_ID_BYTES || !text.bytes().all(allowed) {
            return Err(AccountIdError);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for AccountId {
    type Error = AccountIdError;
    fn try_from(text: String) -> Result<Self, AccountIdError> {
        text.parse()
    }
}

impl From<AccountId> for String {
    fn from(id: AccountId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One call's whole claim; a UUIDv7 made by the sidecar (rule 1). Its usage record has the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReservationId(pub Uuid);

impl ReservationId {
    /// A fresh id.
    #[expect(
        clippy::new_without_default,
        reason = "a default would be the same id each time"
    )]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A fixed slice of the accounts.
    ShardId(u16)
);
number!(
    /// One grant's lot: the id of its `credit_grant`.
    LotId(i64)
);
number!(
    /// A life of a shard's state in the store.
    Epoch(i64)
);
number!(
    /// The number of an outbox entry within its shard; it never restarts (rule 18).
    OutSeq(i64)
);
number!(
    /// The number of a change the ledger made, within its shard (rule 20).
    ChangeSeq(i64)
);
number!(
    /// An account's version: a change of its plan, keys, status, limits or lots bumps it (rule 13).
    Version(i64)
);

/// The life of the server that keeps a shard, as it names itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub String);

/// What the outbox will say of a call, as JSON text made at the edge; opaque to the store.
///
/// A hold carries the one that is true if it lapses now (rule 9). At most [`MAX_DETAIL_BYTES`].
pub type Detail = Arc<str>;

/// How strictly an account is held to its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// What does not fit is refused.
    #[default]
    Enforce,
    /// The decision is made and recorded, the call is held by force and charged (rule 30).
    Monitor,
    /// Metered and recorded, nothing charged.
    Off,
}

/// Whether an account may call at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It may.
    #[default]
    Active,
    /// Every call is refused.
    Suspended,
}

/// What a sidecar caches of an account; the store keeps it beside the balances and hands it to whoever has an older one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Whose.
    pub account: AccountId,
    /// Which.
    pub version: Version,
    /// Bumped when a key is revoked: a key cached under an older number is looked up again.
    pub keys_version: i64,
    /// The key of its plan.
    pub plan: Option<String>,
    /// How strictly it is held.
    pub mode: Mode,
    /// Whether it may call.
    pub status: Status,
    /// What its months are counted from; `None`: the calendar.
    pub anchor_at: Option<UnixMs>,
    /// One limit a counter, the lowest where several apply.
    pub limits: Vec<Limit>,
    /// How far below zero the wallet may go.
    pub overage: Nanos,
    /// Its plan's markup in percent, where the plan has one.
    pub markup_percent: Option<Decimal>,
}

/// When credit of one grant may be drawn on. A list of lots is in the order they are drawn:
/// priority → earliest expiry → promotional before paid → effective → created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lot {
    /// Which.
    pub id: LotId,
    /// From when on.
    pub effective_at: UnixMs,
    /// Until when, without that moment; `None`: for ever.
    pub expires_at: Option<UnixMs>,
}

impl Lot {
    /// Whether a new reservation may draw on it.
    pub fn is_live(&self, now: UnixMs) -> bool {
        self.effective_at <= now && self.expires_at.is_none_or(|end| now < end)
    }
}

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
    /// In any case: accounts in monitor mode, and holds made again after the store lost them.
    Forced,
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
    /// How much in all; never negative.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// Which.
    pub id: ReservationId,
    /// Whose.
    pub account: AccountId,
}

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
}

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
}

/// The answer to an apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApplyAnswer {
    /// Applied, or passed over because the account is cold or was loaded later.
    Applied,
    /// The store is at this number; only the next one is accepted.
    At(ChangeSeq),
}

/// What a shard's state begins with (rule 18).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The installation it belongs to.
    pub install: Uuid,
    /// [`STORE_FORMAT`].
    pub format: u32,
    /// Its life.
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
}

/// A piece of the outbox, oldest first, and the server it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct Outbox {
    /// The server that was read; a flush commits only if the ledger knows the shard to be there (rule 19).
    pub run_id: RunId,
    /// The entries.
    pub entries: Vec<Entry>,
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

/// Why a store did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Out of reach, or too slow: the command may have run all the same.
    #[error("the store is away: {0}")]
    Away(String),
    /// The shard's header is missing, or of another life than this sidecar knows.
    #[error("shard {shard} of the store has lost its state, or is of another epoch: {reason}")]
    Lost {
        /// Which.
        shard: ShardId,
        /// In words.
        reason: String,
    },
    /// It answered what no version of the protocol answers.
    #[error("the store's answer makes no sense: {0}")]
    Nonsense(String),
}

/// The live store. Every verb is one atomic step of one shard, and safe to repeat.
///
/// A backend answers [`StoreError::Lost`] for a shard until [`Store::adopt`] has told it which epoch to expect.
pub trait Store: Send + Sync {
    /// How many shards there are.
    fn shards(&self) -> u16;
    /// Reads a shard's header, its server and its clock. Needs no adoption.
    fn view(&self, shard: ShardId) -> impl Future<Output = Result<ShardView, StoreError>> + Send;
    /// Writes a header where there is none, or an older epoch's. Needs no adoption.
    fn open(
        &self,
        shard: ShardId,
        header: &Header,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// From now on commands expect this epoch. A backend forgets it when its connection breaks (rule 21).
    fn adopt(&self, shard: ShardId, epoch: Epoch);
    /// The epoch that commands expect; `None` where the shard must be checked first.
    fn adopted(&self, shard: ShardId) -> Option<Epoch>;

    /// Rules 1, 9, 12, 13.
    fn reserve(
        &self,
        reserve: &Reserve,
    ) -> impl Future<Output = Result<Reserved, StoreError>> + Send;
    /// Rule 3.
    fn progress(
        &self,
        progress: &Progress,
    ) -> impl Future<Output = Result<Progressed, StoreError>> + Send;
    /// Rules 4, 5, 7.
    fn settle(
        &self,
        settle: &Settle,
    ) -> impl Future<Output = Result<SettleAnswer, StoreError>> + Send;
    /// Rule 6.
    fn lapse(
        &self,
        overdue: &Overdue,
    ) -> impl Future<Output = Result<LapseAnswer, StoreError>> + Send;
    /// The holds whose deadline has passed, the oldest first, at most `max`; and the store's clock.
    fn overdue(
        &self,
        shard: ShardId,
        max: usize,
    ) -> impl Future<Output = Result<(UnixMs, Vec<Overdue>), StoreError>> + Send;

    /// Rule 22.
    fn load(
        &self,
        image: &AccountImage,
    ) -> impl Future<Output = Result<LoadAnswer, StoreError>> + Send;
    /// Rule 20.
    fn apply(
        &self,
        change: &StoreChange,
    ) -> impl Future<Output = Result<ApplyAnswer, StoreError>> + Send;
    /// The oldest entries of a shard's outbox, at most `max` (rule 19).
    fn outbox(
        &self,
        shard: ShardId,
        max: usize,
    ) -> impl Future<Output = Result<Outbox, StoreError>> + Send;
    /// Drops entries that the ledger has committed.
    fn forget(
        &self,
        shard: ShardId,
        seqs: &[OutSeq],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// All that is known of one account; `None` where it is cold.
    fn account(
        &self,
        account: &AccountId,
    ) -> impl Future<Output = Result<Option<AccountView>, StoreError>> + Send;
}
