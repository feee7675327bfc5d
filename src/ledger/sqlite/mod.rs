//! The ledger in one SQLite file: the durable truth of an installation that is one process.
//!
//! Who writes has the file to itself ([`file::File::turn`]), so every change has one order; and every wait has a deadline.

use std::sync::Arc;

use futures_util::TryStreamExt;
use sqlx::types::Json;
use sqlx::{Connection, Row, SqliteConnection};

use super::{
    CheckError, Committed, Identity, Installation, KeyHash, Ledger, LedgerError, Looked, Prices,
    ShardRow, audit,
};
use crate::clock::UnixMs;
use crate::price::PriceEntry;
use crate::quota::{
    AccountId, AccountImage, AccountView, ChangeSeq, ExpiredLot, LotId, Outbox, ShardId, Store,
    StoreChange,
};

pub mod account;
mod books;
pub mod change;
mod check;
mod commit;
pub mod file;
mod folding;
pub mod journal;
pub(super) mod moment;
pub(super) mod own;
pub(super) mod quarantine;
mod rows;
pub mod schema;
mod usage;
pub(super) mod write;

use file::File;

const IDENTIFY: &str = "\
    SELECT api_key.id, api_key.account_id, account.keys_version \
    FROM api_key JOIN account ON account.id = api_key.account_id \
    WHERE api_key.hash = ?1 AND api_key.revoked_at IS NULL";
const PRICES_VERSION: &str = "SELECT version FROM catalog";
const QUARANTINED: &str = "SELECT count(*) FROM quarantine WHERE resolved_at IS NULL";
const CATALOG: &str = "SELECT version, markup_percent FROM catalog";
const PRICES: &str =
    "SELECT id, body FROM model_price WHERE retired_at IS NULL ORDER BY position, id";
const EXPIRED: &str = "\
    SELECT lot.account_id, lot.id, lot.expires_at \
    FROM credit_grant AS lot JOIN account ON account.id = lot.account_id \
    WHERE lot.balance_nanos > 0 AND lot.expires_at <= ?2 AND account.shard = ?1 \
    ORDER BY lot.expires_at, lot.id LIMIT ?3";
/// In WAL mode a transaction sees the file as it was at its first read.
pub(super) const ONE_READ: &str = "BEGIN";
const OPTIMIZE: &str = "PRAGMA optimize";

/// The ledger in a SQLite file, as the data plane sees it.
pub struct SqliteLedger {
    installation: Installation,
    file: Arc<File>,
}

impl SqliteLedger {
    /// Looks over the schema of an open file.
    pub async fn over(file: Arc<File>) -> Result<Self, LedgerError> {
        let looked = async { schema::look_over(&mut *file.reader().await?).await };
        let installation = file::read(looked).await?;
        Ok(Self { installation, file })
    }
}

impl Ledger for SqliteLedger {
    fn installation(&self) -> Installation {
        self.installation
    }

    async fn look<S: Store>(
        &self,
        shard: ShardId,
        store: &S,
        anew: bool,
    ) -> Result<Looked, CheckError> {
        check::look(&self.file, self.installation, shard, store, anew).await
    }

    async fn row(&self, shard: ShardId) -> Result<ShardRow, LedgerError> {
        check::read(&self.file, shard).await
    }

    async fn expired(
        &self,
        shard: ShardId,
        now: UnixMs,
        max: usize,
    ) -> Result<Vec<ExpiredLot>, LedgerError> {
        file::read(async { expired(&mut *self.file.reader().await?, shard, now, max).await }).await
    }

    async fn books<S: Store>(
        &self,
        shard: ShardId,
        store: &S,
        page: &audit::Page,
    ) -> Result<Vec<(audit::Books, Option<AccountView>)>, CheckError> {
        books::books(&self.file, shard, store, page).await
    }

    async fn own_sums(
        &self,
        shard: ShardId,
        page: &audit::Page,
        depth: audit::Depth,
    ) -> Result<audit::OwnSums, LedgerError> {
        let mut reader = self.file.reader().await?;
        crate::ledger::own::own_sums(&mut *reader, shard, page, depth).await
    }

    async fn trace(&self, drift: &audit::Drift) -> Result<Vec<audit::Clue>, LedgerError> {
        let mut reader = self.file.reader().await?;
        crate::ledger::own::trace(&mut *reader, drift).await
    }

    /// Nothing here has partitions; the planner's notes on what the tables hold are brought up to date.
    async fn upkeep(&self) -> Result<u64, LedgerError> {
        let mut turn = self.file.turn().await;
        let mut conn = turn.connection().await?;
        let optimized = async { Ok(sqlx::query(OPTIMIZE).execute(&mut conn).await?) };
        file::written::<_, LedgerError>(optimized).await?;
        turn.keep(conn);
        Ok(0)
    }

    async fn quarantined(&self) -> Result<u64, LedgerError> {
        let counted = async {
            let mut conn = self.file.reader().await?;
            let count: i64 = sqlx::query_scalar(QUARANTINED)
                .fetch_one(&mut *conn)
                .await?;
            Ok(count.unsigned_abs())
        };
        file::read(counted).await
    }

    async fn commit(&self, shard: ShardId, outbox: &Outbox) -> Result<Committed, LedgerError> {
        let mut turn = self.file.turn().await;
        let mut conn = turn.connection().await?;
        let committed = file::written(commit::commit(&mut conn, shard, outbox)).await?;
        turn.keep(conn);
        Ok(committed)
    }

    async fn changes_after(
        &self,
        shard: ShardId,
        seq: ChangeSeq,
        max: usize,
    ) -> Result<Vec<StoreChange>, LedgerError> {
        let after = async { change::after(&mut *self.file.reader().await?, shard, seq, max).await };
        file::read(after).await
    }

    async fn image(&self, account: &AccountId) -> Result<Option<AccountImage>, LedgerError> {
        file::read(async { account::image(&mut *self.file.reader().await?, account).await }).await
    }

    async fn identify(&self, hash: &KeyHash) -> Result<Option<Identity>, LedgerError> {
        file::read(async { identify(&mut *self.file.reader().await?, hash).await }).await
    }

    async fn prices_version(&self) -> Result<i64, LedgerError> {
        let version = async {
            let mut conn = self.file.reader().await?;
            Ok(sqlx::query_scalar(PRICES_VERSION)
                .fetch_one(&mut *conn)
                .await?)
        };
        file::read(version).await
    }

    async fn prices(&self) -> Result<Prices, LedgerError> {
        file::read(async { prices(&mut *self.file.reader().await?).await }).await
    }
}

async fn identify(
    conn: &mut SqliteConnection,
    hash: &KeyHash,
) -> Result<Option<Identity>, LedgerError> {
    let row = sqlx::query(IDENTIFY)
        .bind(&hash.0[..])
        .fetch_optional(conn)
        .await?;
    row.map(|row| {
        Ok(Identity {
            key: row.try_get("id")?,
            account: change::account_id(&row)?,
            keys_version: row.try_get("keys_version")?,
        })
    })
    .transpose()
}

async fn prices(conn: &mut SqliteConnection) -> Result<Prices, LedgerError> {
    let mut tx = conn.begin().await?;
    let catalog = sqlx::query(CATALOG).fetch_one(&mut *tx).await?;
    let mut entries = Vec::new();
    // One after the other: thousands of rows at once would be memory that the process keeps.
    let mut rows = sqlx::query(PRICES).fetch(&mut *tx);
    while let Some(row) = rows.try_next().await? {
        let Json(mut entry): Json<PriceEntry> = row.try_get("body")?;
        entry.id = row.try_get("id")?;
        entries.push(entry);
    }
    drop(rows);
    tx.rollback().await?;
    let markup: String = catalog.try_get("markup_percent")?;
    Ok(Prices {
        version: catalog.try_get("version")?,
        entries,
        markup_percent: markup
            .parse()
            .map_err(|_| LedgerError::Nonsense(format!("a markup of {markup} percent")))?,
    })
}

async fn expired(
    conn: &mut SqliteConnection,
    shard: ShardId,
    now: UnixMs,
    max: usize,
) -> Result<Vec<ExpiredLot>, LedgerError> {
    let rows = sqlx::query(EXPIRED)
        .bind(shard.0)
        .bind(now.0)
        .bind(i64::try_from(max).unwrap_or(i64::MAX))
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(ExpiredLot {
                account: change::account_id(row)?,
                lot: LotId(row.try_get("id")?),
                expires_at: UnixMs(row.try_get("expires_at")?),
            })
        })
        .collect()
}
