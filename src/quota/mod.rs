//! Quota: reservations, and the live store that keeps them exact.
//!
//! The verbs of the protocol are typed here once; [`engine`] is their meaning, and every backend must answer as it does.

use crate::clock::UnixMs;

mod account;
mod any;
mod aside;
mod bounded;
mod change;
pub mod embedded;
pub mod engine;
mod entry;
mod epochs;
mod heartbeat;
mod id;
mod journal;
mod kept;
mod left;
mod limit;
pub mod redis;
mod reservation;
mod settler;
mod sweeper;
mod verb;
mod view;

pub use account::{Burst, Lot, MAX_BURST, Mode, Snapshot, Status, Throttle};
pub use any::AnyStore;
pub use bounded::{Bounded, BoundedCall, LeftOpen};
pub use change::{AccountImage, ApplyAnswer, ChangeBody, CounterBalance, LoadAnswer, StoreChange};
pub use entry::{Cut, EndedEntry, Entry, EntryKind, Moved};
pub use epochs::{Epochs, NewEpoch, NewEpochs};
pub use id::{
    AccountId, AccountIdError, ChangeSeq, Detail, Epoch, LotId, OutSeq, ReservationId, RunId,
    ShardId, Version,
};
pub use kept::Kept;
pub use limit::{CounterKey, Limit, NameError, Resource, Scope, Span, Window};
pub use reservation::{Ending, Metered, Reservation};
pub use settler::{NotLoaded, Settler, SettlerSettings, Surroundings};
pub use sweeper::{Sweeper, SweeperSettings};
pub use verb::{
    Admission, Count, Ended, ExpireAnswer, ExpiredLot, LapseAnswer, Line, LineState, Outcome,
    Overdue, Progress, Progressed, Reserve, Reserved, Seen, Settle, SettleAnswer, Withdrawal,
    WithdrawalReason,
};
pub use view::{
    AccountView, CounterState, Header, LotState, OpenHold, Outbox, ShardView, Unreadable,
};

/// The most quota lines one call may claim.
pub const MAX_LINES: usize = 32;
/// The most lots with something left that an account may have.
pub const MAX_LOTS: usize = 256;
/// The longest [`Detail`] a hold or an entry carries.
pub const MAX_DETAIL_BYTES: usize = 16 * 1024;
/// How long the store remembers that a reservation ended (rule 7).
pub const ENDED_MARK_MS: i64 = 15 * 60 * 1000;
/// The layout of what the store keeps; a sidecar of another format keeps its hands off.
pub const STORE_FORMAT: u32 = 2;

/// Why a store did not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Out of reach, or too slow: the command may have run all the same.
    #[error("the store is away: {0}")]
    Away(String),
    /// The shard's header is missing, or of another epoch than this sidecar knows.
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
    /// Writes a header where there is none, or an older epoch's: epochs only go up, and so does its `out_seq`
    /// (rules 18, 21). Needs no adoption.
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
    /// Rules 4, 5, 7, 33.
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

    /// Rule 27.
    fn expire(
        &self,
        lot: &ExpiredLot,
    ) -> impl Future<Output = Result<ExpireAnswer, StoreError>> + Send;

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
