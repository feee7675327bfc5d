//! Every ledger there is, as one type: what the programs are built over.

use super::memory::MemoryLedger;
use super::postgres::PostgresLedger;
use super::{
    CheckError, Checked, Committed, Identity, Installation, KeyHash, Ledger, LedgerError, Prices,
};
use crate::quota::{AccountId, AccountImage, ChangeSeq, Outbox, ShardId, Store, StoreChange};

/// One of the ledgers.
#[expect(clippy::large_enum_variant, reason = "there is one of it in a process")]
pub enum AnyLedger {
    /// In memory.
    Memory(MemoryLedger),
    /// In PostgreSQL.
    Postgres(PostgresLedger),
}

/// Asks the ledger that there is.
macro_rules! ask {
    ($any:ident, $ledger:ident => $question:expr) => {
        match $any {
            Self::Memory($ledger) => $question,
            Self::Postgres($ledger) => $question,
        }
    };
}

impl Ledger for AnyLedger {
    fn installation(&self) -> Installation {
        ask!(self, ledger => ledger.installation())
    }

    async fn check<S: Store>(&self, shard: ShardId, store: &S) -> Result<Checked, CheckError> {
        ask!(self, ledger => ledger.check(shard, store).await)
    }

    async fn commit(&self, shard: ShardId, outbox: &Outbox) -> Result<Committed, LedgerError> {
        ask!(self, ledger => ledger.commit(shard, outbox).await)
    }

    async fn changes_after(
        &self,
        shard: ShardId,
        seq: ChangeSeq,
        max: usize,
    ) -> Result<Vec<StoreChange>, LedgerError> {
        ask!(self, ledger => ledger.changes_after(shard, seq, max).await)
    }

    async fn image(&self, account: &AccountId) -> Result<Option<AccountImage>, LedgerError> {
        ask!(self, ledger => ledger.image(account).await)
    }

    async fn identify(&self, hash: &KeyHash) -> Result<Option<Identity>, LedgerError> {
        ask!(self, ledger => ledger.identify(hash).await)
    }

    async fn prices_version(&self) -> Result<i64, LedgerError> {
        ask!(self, ledger => ledger.prices_version().await)
    }

    async fn prices(&self) -> Result<Prices, LedgerError> {
        ask!(self, ledger => ledger.prices().await)
    }
}
