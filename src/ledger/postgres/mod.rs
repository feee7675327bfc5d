//! The ledger in PostgreSQL: the durable truth of an installation with many sidecars.
//!
//! Every change of an account happens under its shard's row lock, and every wait here has a deadline.

use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection, Row};
use time::OffsetDateTime;

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
pub(super) mod moment;
pub(super) mod own;
pub(super) mod quarantine;
pub mod schema;
mod usage;
pub(super) mod wire;
pub(super) mod write;

use wire::{Reads, Wire};

const IDENTIFY: &str = "\
    SELECT api_key.id, api_key.account_id, account.keys_version \
    FROM api_key JOIN account ON account.id = api_key.account_id \
    WHERE api_key.hash = $1 AND api_key.revoked_at IS NULL";
const PRICES_VERSION: &str = "SELECT version FROM catalog";
const QUARANTINED: &str = "SELECT count(*) FROM quarantine WHERE resolved_at IS NULL";
const CATALOG: &str = "SELECT version, markup_percent::text AS markup_percent FROM catalog";
const PRICES: &str =
    "SELECT id, body FROM model_price WHERE retired_at IS NULL ORDER BY position, id";
const EXPIRED: &str = "\
    SELECT credit_grant.account_id, credit_grant.id, credit_grant.expires_at \
    FROM credit_grant JOIN account ON account.id = credit_grant.account_id \
    WHERE account.shard = $1 AND credit_grant.expires_at <= $2 AND credit_grant.balance_nanos > 0 \
    ORDER BY credit_grant.expires_at, credit_grant.id LIMIT $3";
pub(super) const ONE_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// The ledger in PostgreSQL, as the data plane sees it.
pub struct PostgresLedger {
    installation: Installation,
    reads: Reads,
    /// For flushes alone, so that no check and no read ever stands in their way.
    flushes: Wire,
    checks: Wire,
    /// For sums that may take long: nothing waits for them, and nothing but their own deadline ends them.
    audits: Wire,
}

impl PostgresLedger {
    /// Connects, and looks over the schema.
    pub async fn connect(url: &str) -> Result<Self, LedgerError> {
        let options = wire::options(url)?;
        let flushes = Wire::new(options.clone());
        let mut turn = flushes.turn().await;
        let mut conn = turn.connection().await?;
        let installation = wire::written(schema::look_over(&mut conn)).await?;
        turn.keep(conn);
        Ok(Self {
            installation,
            reads: Reads::new(options.clone()),
            flushes,
            checks: Wire::new(options),
            audits: Wire::new(wire::patient_options(url)?),
        })
    }
}

impl Ledger for PostgresLedger {
    fn installation(&self) -> Installation {
        self.installation
    }

    async fn look<S: Store>(
        &self,
        shard: ShardId,
        store: &S,
        anew: bool,
    ) -> Result<Looked, CheckError> {
        let mut turn = self.checks.turn().await;
        let mut conn = turn.connection().await?;
        let install = self.installation.id;
        let looked = wire::written(check::look(&mut conn, install, shard, store, anew)).await?;
        turn.keep(conn);
        Ok(looked)
    }

    async fn row(&self, shard: ShardId) -> Result<ShardRow, LedgerError> {
        let read =
            async move |pool: sqlx::PgPool| change::row(&mut *pool.acquire().await?, shard).await;
        self.reads.read(read).await
    }

    async fn expired(
        &self,
        shard: ShardId,
        now: UnixMs,
        max: usize,
    ) -> Result<Vec<ExpiredLot>, LedgerError> {
        let read = async move |pool: sqlx::PgPool| {
            expired(&mut *pool.acquire().await?, shard, now, max).await
        };
        self.reads.read(read).await
    }

    async fn books<S: Store>(
        &self,
        shard: ShardId,
        store: &S,
        page: &audit::Page,
    ) -> Result<Vec<(audit::Books, Option<AccountView>)>, CheckError> {
        let mut turn = self.checks.turn().await;
        let mut conn = turn.connection().await?;
        let books = wire::written(books::books(&mut conn, shard, store, page)).await?;
        turn.keep(conn);
        Ok(books)
    }

    async fn own_sums(
        &self,
        shard: ShardId,
        page: &audit::Page,
        depth: audit::Depth,
    ) -> Result<audit::OwnSums, LedgerError> {
        let mut turn = self.audits.turn().await;
        let mut conn = turn.connection().await?;
        let sums = crate::ledger::own::own_sums(&mut conn, shard, page, depth).await?;
        turn.keep(conn);
        Ok(sums)
    }

    async fn trace(&self, drift: &audit::Drift) -> Result<Vec<audit::Clue>, LedgerError> {
        let mut turn = self.audits.turn().await;
        let mut conn = turn.connection().await?;
        let clues = crate::ledger::own::trace(&mut conn, drift).await?;
        turn.keep(conn);
        Ok(clues)
    }

    async fn upkeep(&self) -> Result<u64, LedgerError> {
        let mut turn = self.checks.turn().await;
        let mut conn = turn.connection().await?;
        let strays = wire::written(schema::upkeep(&mut conn)).await?;
        turn.keep(conn);
        Ok(strays)
    }

    async fn quarantined(&self) -> Result<u64, LedgerError> {
        let read = async move |pool: sqlx::PgPool| {
            let count: i64 = sqlx::query_scalar(QUARANTINED).fetch_one(&pool).await?;
            Ok(count.unsigned_abs())
        };
        self.reads.read(read).await
    }

    async fn commit(&self, shard: ShardId, outbox: &Outbox) -> Result<Committed, LedgerError> {
        let mut turn = self.flushes.turn().await;
        let mut conn = turn.connection().await?;
        let committed = wire::written(commit::commit(&mut conn, shard, outbox)).await?;
        turn.keep(conn);
        Ok(committed)
    }

    async fn changes_after(
        &self,
        shard: ShardId,
        seq: ChangeSeq,
        max: usize,
    ) -> Result<Vec<StoreChange>, LedgerError> {
        let read = async move |pool: sqlx::PgPool| {
            change::after(&mut *pool.acquire().await?, shard, seq, max).await
        };
        self.reads.read(read).await
    }

    async fn image(&self, account: &AccountId) -> Result<Option<AccountImage>, LedgerError> {
        let account = account.clone();
        let read = async move |pool: sqlx::PgPool| {
            account::image(&mut *pool.acquire().await?, &account).await
        };
        self.reads.read(read).await
    }

    async fn identify(&self, hash: &KeyHash) -> Result<Option<Identity>, LedgerError> {
        let hash = *hash;
        let read =
            async move |pool: sqlx::PgPool| identify(&mut *pool.acquire().await?, &hash).await;
        self.reads.read(read).await
    }

    async fn prices_version(&self) -> Result<i64, LedgerError> {
        let read = async move |pool: sqlx::PgPool| {
            Ok(sqlx::query_scalar(PRICES_VERSION).fetch_one(&pool).await?)
        };
        self.reads.read(read).await
    }

    async fn prices(&self) -> Result<Prices, LedgerError> {
        let read = async move |pool: sqlx::PgPool| prices(&mut *pool.acquire().await?).await;
        self.reads.read(read).await
    }
}

async fn expired(
    conn: &mut PgConnection,
    shard: ShardId,
    now: UnixMs,
    max: usize,
) -> Result<Vec<ExpiredLot>, LedgerError> {
    let rows = sqlx::query(EXPIRED)
        .bind(change::column(shard))
        .bind(now.to_utc())
        .bind(i64::try_from(max).unwrap_or(i64::MAX))
        .fetch_all(conn)
        .await?;
    let lots = rows.iter().map(|row| {
        let expires_at: OffsetDateTime = row.try_get("expires_at")?;
        Ok(ExpiredLot {
            account: change::account_id(row)?,
            lot: LotId(row.try_get("id")?),
            expires_at: expires_at.into(),
        })
    });
    lots.collect()
}

async fn identify(
    conn: &mut PgConnection,
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

async fn prices(conn: &mut PgConnection) -> Result<Prices, LedgerError> {
    let mut tx = conn.begin_with(ONE_READ).await?;
    let catalog = sqlx::query(CATALOG).fetch_one(&mut *tx).await?;
    let mut entries = Vec::new();
    // One after the other: thousands of rows at once would be memory that the process keeps.
    let mut rows = sqlx::query(PRICES).fetch(&mut *tx);
    while let Some(row) = rows.try_next().await? {
        let sqlx::types::Json(mut entry): sqlx::types::Json<PriceEntry> = row.try_get("body")?;
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
