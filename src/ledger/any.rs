//! The backends of the ledger, one type for all that is built once: which of them it is, the configuration says.

use super::{
    CheckError, Committed, Identity, Installation, KeyHash, Ledger, LedgerError, Looked,
    MemoryLedger, PostgresLedger, Prices, ShardRow, SqliteLedger, audit,
};
use crate::clock::UnixMs;
use crate::quota::{
    AccountId, AccountImage, AccountView, ChangeSeq, ExpiredLot, Outbox, ShardId, Store,
    StoreChange,
};

/// Every ledger there is.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one in a process, behind an Arc"
)]
pub enum AnyLedger {
    /// It ends with the process.
    Memory(MemoryLedger),
    /// PostgreSQL.
    Postgres(PostgresLedger),
    /// A SQLite file.
    Sqlite(SqliteLedger),
}

/// The same call on whichever it is.
macro_rules! on {
    ($ledger:expr, $inner:ident => $call:expr) => {
        match $ledger {
            AnyLedger::Memory($inner) => $call,
            AnyLedger::Postgres($inner) => $call,
            AnyLedger::Sqlite($inner) => $call,
        }
    };
}

impl Ledger for AnyLedger {
    fn installation(&self) -> Installation {
        on!(self, ledger => ledger.installation())
    }

    async fn look<S: Store>(
        &self,
        shard: ShardId,
        store: &S,
        anew: bool,
    ) -> Result<Looked, CheckError> {
        on!(self, ledger => ledger.look(shard, store, anew).await)
    }

    async fn row(&self, shard: ShardId) -> Result<ShardRow, LedgerError> {
        on!(self, ledger => ledger.row(shard).await)
    }

    async fn expired(
        &self,
        shard: ShardId,
        now: UnixMs,
        max: usize,
    ) -> Result<Vec<ExpiredLot>, LedgerError> {
        on!(self, ledger => ledger.expired(shard, now, max).await)
    }

    async fn books<S: Store>(
        &self,
        shard: ShardId,
        store: &S,
        page: &audit::Page,
    ) -> Result<Vec<(audit::Books, Option<AccountView>)>, CheckError> {
        on!(self, ledger => ledger.books(shard, store, page).await)
    }

    async fn own_sums(
        &self,
        shard: ShardId,
        page: &audit::Page,
        depth: audit::Depth,
    ) -> Result<audit::OwnSums, LedgerError> {
        on!(self, ledger => ledger.own_sums(shard, page, depth).await)
    }

    async fn trace(&self, drift: &audit::Drift) -> Result<Vec<audit::Clue>, LedgerError> {
        on!(self, ledger => ledger.trace(drift).await)
    }

    async fn upkeep(&self) -> Result<u64, LedgerError> {
        on!(self, ledger => ledger.upkeep().await)
    }

    async fn quarantined(&self) -> Result<u64, LedgerError> {
        on!(self, ledger => ledger.quarantined().await)
    }

    async fn commit(&self, shard: ShardId, outbox: &Outbox) -> Result<Committed, LedgerError> {
        on!(self, ledger => ledger.commit(shard, outbox).await)
    }

    async fn changes_after(
        &self,
        shard: ShardId,
        seq: ChangeSeq,
        max: usize,
    ) -> Result<Vec<StoreChange>, LedgerError> {
        on!(self, ledger => ledger.changes_after(shard, seq, max).await)
    }

    async fn image(&self, account: &AccountId) -> Result<Option<AccountImage>, LedgerError> {
        on!(self, ledger => ledger.image(account).await)
    }

    async fn identify(&self, hash: &KeyHash) -> Result<Option<Identity>, LedgerError> {
        on!(self, ledger => ledger.identify(hash).await)
    }

    async fn prices_version(&self) -> Result<i64, LedgerError> {
        on!(self, ledger => ledger.prices_version().await)
    }

    async fn prices(&self) -> Result<Prices, LedgerError> {
        on!(self, ledger => ledger.prices().await)
    }
}
