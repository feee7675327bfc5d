//! The ledger: the durable truth, and the tasks that keep store and ledger one.
//!
//! The data plane sees it through [`Ledger`] only; the commands that change plans, keys and grants speak to a backend's
//! own administration.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::price::PriceEntry;
use crate::quota::{
    AccountId, AccountImage, ChangeSeq, Epoch, OutSeq, Outbox, ShardId, Store, StoreChange,
    StoreError,
};

mod applier;
pub mod audit;
mod batch;
mod check;
pub mod decide;
mod dirty;
mod flusher;
mod keeper;
mod loader;
mod memory;
pub mod postgres;
mod record;
mod standing;

pub use applier::{Applier, ApplyError};
pub use batch::UsageRecord;
pub use check::ShardRow;
pub use flusher::{FlushError, Flushed, Flusher};
pub use keeper::{Health, Keeper};
pub use loader::{LoadError, Loader};
pub use memory::{MemoryLedger, NewGrant};
pub use postgres::PostgresLedger;
pub use record::{Numbers, RecordDetail};
pub use standing::Away;

/// What was decided once, when the ledger was first migrated (rule 17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// Names it; every header in the store carries it.
    pub id: Uuid,
    /// How many shards it has, for ever.
    pub shards: u16,
}

/// The SHA-256 of a key's secret: all that is ever stored of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

/// What a live key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The key's id, which usage records name.
    pub key: Uuid,
    /// Whose it is.
    pub account: AccountId,
    /// The account's `keys_version` when it was looked up; a snapshot with a higher one means: look again (rule 13).
    pub keys_version: i64,
}

/// The result of a flush (rule 19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// Every entry up to `entry` is in the ledger.
    UpTo {
        /// The last one.
        entry: OutSeq,
        /// Whether the store must still move for some of them, so that there are new changes for it.
        changed: bool,
    },
    /// Another flusher is at this shard; nothing was done.
    Busy,
    /// The ledger knows this shard to be on another server; nothing was done.
    OtherServer,
}

/// The result of a shard's check (rule 21, with a single epoch).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// Store and ledger agree: commands may expect this epoch.
    Agreed(Epoch),
    /// The store lost this shard's state; in words.
    Lost(String),
}

/// The prices a sidecar charges by.
#[derive(Debug, Clone, PartialEq)]
pub struct Prices {
    /// Looked up each second; a higher one means: read again.
    pub version: i64,
    /// Every price, in the order they were made; those of the catalogue win over the seeded ones.
    pub entries: Vec<PriceEntry>,
    /// The catalogue's markup.
    pub markup_percent: rust_decimal::Decimal,
}

/// The durable truth, as the data plane sees it.
pub trait Ledger: Send + Sync {
    /// What this installation is.
    fn installation(&self) -> Installation;
    /// Locks the shard's row, then reads the store's header, opens it the first time, and takes note of the server.
    fn check<S: Store>(
        &self,
        shard: ShardId,
        store: &S,
    ) -> impl Future<Output = Result<Checked, CheckError>> + Send;
    /// Takes entries into the ledger in one transaction (rules 19, 24). Entries it has already are skipped.
    fn commit(
        &self,
        shard: ShardId,
        outbox: &Outbox,
    ) -> impl Future<Output = Result<Committed, LedgerError>> + Send;
    /// The changes after `seq`, in order, at most `max`.
    fn changes_after(
        &self,
        shard: ShardId,
        seq: ChangeSeq,
        max: usize,
    ) -> impl Future<Output = Result<Vec<StoreChange>, LedgerError>> + Send;
    /// An account in one snapshot (rule 22); `None` where there is none.
    fn image(
        &self,
        account: &AccountId,
    ) -> impl Future<Output = Result<Option<AccountImage>, LedgerError>> + Send;
    /// Whose key this is; `None` where it is unknown or revoked.
    fn identify(
        &self,
        hash: &KeyHash,
    ) -> impl Future<Output = Result<Option<Identity>, LedgerError>> + Send;
    /// The version of the catalogue.
    fn prices_version(&self) -> impl Future<Output = Result<i64, LedgerError>> + Send;
    /// The prices.
    fn prices(&self) -> impl Future<Output = Result<Prices, LedgerError>> + Send;
}

/// Why a ledger did not answer.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Out of reach, or too slow.
    #[error("the ledger is away: {0}")]
    Away(String),
    /// It holds what no version of the schema allows, or its schema is not this version's.
    #[error("the ledger cannot be used: {0}")]
    Nonsense(String),
    /// The request cannot be carried out as it stands.
    #[error("{0}")]
    Invalid(String),
}

/// Why a check did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The ledger's side.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store's side.
    #[error(transparent)]
    Store(#[from] StoreError),
}
