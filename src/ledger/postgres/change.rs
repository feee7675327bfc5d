//! The shard's row and the changes numbered under its lock (rules 17 to 20).
//!
//! Whoever changes an account locks its shard first and appends a change in the same transaction.

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row};

pub(super) use crate::ledger::sql::account_id;
use crate::ledger::{Home, LedgerError, ShardRow};
use crate::quota::{AccountId, ChangeBody, ChangeSeq, Epoch, OutSeq, RunId, ShardId, StoreChange};

const LOCK: &str =
    "SELECT epoch, run_id, flushed_seq, last_change FROM shard WHERE id = $1 FOR UPDATE";
const TRY_LOCK: &str = "\
    SELECT epoch, run_id, flushed_seq, last_change FROM shard WHERE id = $1 FOR UPDATE SKIP LOCKED";
const READ: &str = "SELECT epoch, run_id, flushed_seq, last_change FROM shard WHERE id = $1";
const APPEND: &str = "\
    INSERT INTO store_change (shard, seq, account_id, body) \
    SELECT $1, seq, account_id, body FROM UNNEST($2::bigint[], $3::text[], $4::jsonb[]) AS new (seq, account_id, body)";
const RAISE_LAST_CHANGE: &str = "UPDATE shard SET last_change = $2 WHERE id = $1";
const AFTER: &str = "\
    SELECT seq, account_id, body FROM store_change WHERE shard = $1 AND seq > $2 ORDER BY seq LIMIT $3";

/// A shard's row, locked until the transaction ends.
#[derive(Debug)]
pub struct LockedShard {
    /// Which.
    pub id: ShardId,
    /// What it says.
    pub row: ShardRow,
}

impl LockedShard {
    /// Waits for the lock. Lock several shards in ascending order only.
    pub async fn lock(tx: &mut PgConnection, id: ShardId) -> Result<Self, LedgerError> {
        let row = sqlx::query(LOCK)
            .bind(column(id))
            .fetch_optional(tx)
            .await?
            .ok_or_else(|| LedgerError::Nonsense(format!("it has no shard {id}")))?;
        Self::read(id, &row)
    }

    /// `None` where another holds the lock.
    pub(super) async fn try_lock(
        tx: &mut PgConnection,
        id: ShardId,
    ) -> Result<Option<Self>, LedgerError> {
        let row = sqlx::query(TRY_LOCK)
            .bind(column(id))
            .fetch_optional(tx)
            .await?;
        row.map(|row| Self::read(id, &row)).transpose()
    }

    fn read(id: ShardId, row: &PgRow) -> Result<Self, LedgerError> {
        let row = read_row(row)?;
        Ok(Self { id, row })
    }

    /// Numbers changes in their order.
    pub async fn append(
        &mut self,
        tx: &mut PgConnection,
        changes: &[(AccountId, ChangeBody)],
    ) -> Result<(), sqlx::Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let seqs: Vec<i64> = (self.row.last_change.0 + 1..).take(changes.len()).collect();
        let accounts: Vec<&str> = changes
            .iter()
            .map(|(account, _)| account.as_str())
            .collect();
        let bodies: Vec<Json<&ChangeBody>> = changes.iter().map(|(_, body)| Json(body)).collect();
        let last = seqs[seqs.len() - 1];
        sqlx::query(APPEND)
            .bind(column(self.id))
            .bind(&seqs)
            .bind(&accounts)
            .bind(&bodies)
            .execute(&mut *tx)
            .await?;
        sqlx::query(RAISE_LAST_CHANGE)
            .bind(column(self.id))
            .bind(last)
            .execute(tx)
            .await?;
        self.row.last_change = ChangeSeq(last);
        Ok(())
    }
}

/// The row as it is now, locked or not.
pub(super) async fn row(conn: &mut PgConnection, id: ShardId) -> Result<ShardRow, LedgerError> {
    let row = sqlx::query(READ).bind(column(id)).fetch_one(conn).await?;
    read_row(&row)
}

fn read_row(row: &PgRow) -> Result<ShardRow, LedgerError> {
    let epoch: Option<i64> = row.try_get("epoch")?;
    let run_id: Option<String> = row.try_get("run_id")?;
    let home = epoch.map(Epoch).zip(run_id.map(RunId));
    Ok(ShardRow {
        home: home.map(|(epoch, run_id)| Home { epoch, run_id }),
        flushed_seq: OutSeq(row.try_get("flushed_seq")?),
        last_change: ChangeSeq(row.try_get("last_change")?),
    })
}

/// The changes after `seq`, in order, at most `max`.
pub(super) async fn after(
    conn: &mut PgConnection,
    shard: ShardId,
    seq: ChangeSeq,
    max: usize,
) -> Result<Vec<StoreChange>, LedgerError> {
    let rows = sqlx::query(AFTER)
        .bind(column(shard))
        .bind(seq.0)
        .bind(i64::try_from(max).unwrap_or(i64::MAX))
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| {
            let Json(body) = row.try_get("body")?;
            Ok(StoreChange {
                shard,
                seq: ChangeSeq(row.try_get("seq")?),
                account: account_id(row)?,
                body,
            })
        })
        .collect()
}

/// A shard's number as its column has it; the schema bounds it to 16384.
pub(in crate::ledger) fn column(shard: ShardId) -> i16 {
    i16::try_from(shard.0).unwrap_or(i16::MAX)
}
