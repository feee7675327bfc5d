//! The ledger: the durable truth, and the tasks that keep store and ledger one.
//!
//! The data plane sees it through [`Ledger`] only; the commands that change plans, keys and grants do so through
//! [`admin`].

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::UnixMs;
use crate::price::PriceEntry;
use crate::quota::{
    AccountId, AccountImage, AccountView, ChangeSeq, Epoch, ExpiredLot, Header, OutSeq, Outbox,
    ShardId, Store, StoreChange, StoreError,
};

pub mod admin;
mod any;
mod applier;
pub mod audit;
mod auditor;
mod batch;
mod bisection;
mod bounds;
mod check;
pub mod decide;
mod dirty;
mod expiry;
mod flusher;
mod keeper;
mod loader;
mod memory;
mod migrations;
mod own;
pub mod postgres;
pub mod posting;
mod quarantined;
mod record;
#[cfg(test)]
mod recovery;
mod sql;
pub mod sqlite;
mod standing;
mod tx;
mod unwritten;
pub mod usage;

pub use any::AnyLedger;
pub use applier::{Applier, ApplyError};
pub use auditor::Auditor;
pub use batch::UsageRecord;
pub use check::{Home, ShardRow};
pub use expiry::{Expiry, ExpiryError};
pub use flusher::{FlushError, Flushed, Flusher};
pub use keeper::{Health, Keeper};
pub use loader::{LoadError, Loader};
pub use memory::{MemoryLedger, NewGrant};
#[cfg(test)]
pub(crate) use memory::{Pending, Truth};
pub use postgres::PostgresLedger;
pub use record::{Numbers, RecordDetail};
pub use sqlite::SqliteLedger;
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

/// What a look at a shard found (rule 21).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// Store and ledger agree: commands may expect this epoch.
    Agreed(Epoch),
    /// A new epoch has begun in the ledger, for a reason in words: the store is to be told by this header.
    Open {
        /// Which.
        header: Header,
        /// Why.
        reason: String,
    },
    /// What is there is not ours to touch; in words.
    Refused(String),
}

/// The result of a shard's check (rule 21).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// Store and ledger agree: commands may expect this epoch.
    Agreed(Epoch),
    /// What is there is not ours to touch; in words.
    Refused(String),
}

/// How often a check begins anew because another one has begun a later epoch.
const LOOKS: usize = 8;

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
    /// Reads the store's header while the shard's row stands still, and takes note of what it finds ([`ShardRow::look`]).
    fn look<S: Store>(
        &self,
        shard: ShardId,
        store: &S,
        anew: bool,
    ) -> impl Future<Output = Result<Looked, CheckError>> + Send;
    /// Brings store and ledger to agree on a shard's epoch (rule 21).
    fn check<S: Store>(
        &self,
        shard: ShardId,
        store: &S,
    ) -> impl Future<Output = Result<Checked, CheckError>> + Send {
        self.agree(shard, store, false)
    }
    /// Begins a new epoch although nothing is lost: every account is loaded from the ledger again.
    fn rebuild<S: Store>(
        &self,
        shard: ShardId,
        store: &S,
    ) -> impl Future<Output = Result<Checked, CheckError>> + Send {
        self.agree(shard, store, true)
    }
    /// Looks until both sides agree. The header is written when the ledger has committed the epoch, and then looked at
    /// again: it only goes up, so whoever began a later one has won.
    #[doc(hidden)]
    fn agree<S: Store>(
        &self,
        shard: ShardId,
        store: &S,
        mut anew: bool,
    ) -> impl Future<Output = Result<Checked, CheckError>> + Send {
        async move {
            for _ in 0..LOOKS {
                match self.look(shard, store, anew).await? {
                    Looked::Agreed(epoch) => return Ok(Checked::Agreed(epoch)),
                    Looked::Refused(reason) => return Ok(Checked::Refused(reason)),
                    Looked::Open { header, reason } => {
                        // The first one is the beginning of everything, and nothing to worry about.
                        if header.epoch == Epoch(1) {
                            tracing::debug!(%shard, reason, "its first epoch begins");
                        } else if anew {
                            tracing::info!(%shard, epoch = %header.epoch, reason, "a new epoch begins");
                        } else {
                            tracing::warn!(%shard, epoch = %header.epoch, reason, "a new epoch begins");
                        }
                        store.open(shard, &header).await?;
                    }
                }
                anew = false;
            }
            Err(StoreError::Away("others begin new epochs all the time".into()).into())
        }
    }
    /// A shard's row, as it is now.
    fn row(&self, shard: ShardId) -> impl Future<Output = Result<ShardRow, LedgerError>> + Send;
    /// Lots of a shard that have a balance although their time is over, at most `max` (rule 27).
    fn expired(
        &self,
        shard: ShardId,
        now: UnixMs,
        max: usize,
    ) -> impl Future<Output = Result<Vec<ExpiredLot>, LedgerError>> + Send;
    /// What the ledger and the store say of accounts of a shard, at most [`audit::BATCH`], read while the shard's row
    /// stands still. None: there are no more.
    fn books<S: Store>(
        &self,
        shard: ShardId,
        store: &S,
        page: &audit::Page,
    ) -> impl Future<Output = Result<Vec<(audit::Books, Option<AccountView>)>, CheckError>> + Send;
    /// What of the ledger's own sums does not come out, of accounts of a shard, at most [`audit::BATCH`], in one snapshot
    /// and without a lock.
    fn own_sums(
        &self,
        shard: ShardId,
        page: &audit::Page,
        depth: audit::Depth,
    ) -> impl Future<Output = Result<audit::OwnSums, LedgerError>> + Send;
    /// What the ledger knows that may account for a drift.
    fn trace(
        &self,
        drift: &audit::Drift,
    ) -> impl Future<Output = Result<Vec<audit::Clue>, LedgerError>> + Send;
    /// Looks after what grows with time, such as the partitions of the coming months. Says how many records have no
    /// partition of their own.
    fn upkeep(&self) -> impl Future<Output = Result<u64, LedgerError>> + Send;
    /// How many entries are in quarantine (rule 26).
    fn quarantined(&self) -> impl Future<Output = Result<u64, LedgerError>> + Send;
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
