//! The shard's row and the changes numbered in it (rules 17 to 20).
//!
//! Whoever changes an account reads its shard's row in a writing transaction and appends a change in the same one. The
//! whole file is locked meanwhile, so the row is.

use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{Row, SqliteConnection};

pub(super) use crate::ledger::sql::account_id;
use crate::ledger::{Home, LedgerError, ShardRow};
use crate::quota::{AccountId, ChangeBody, ChangeSeq, Epoch, OutSeq, RunId, ShardId, StoreChange};

const READ: &str = "SELECT epoch, run_id, flushed_seq, last_change FROM shard WHERE id = ?1";
const APPEND: &str = "\
    INSERT INTO store_change (shard, seq, account_id, body) \
    SELECT ?1, value ->> 0, value ->> 1, value ->> 2 FROM json_each(?2)";
const RAISE_LAST_CHANGE: &str = "UPDATE shard SET last_change = ?2 WHERE id = ?1";
const AFTER: &str = "\
    SELECT seq, account_id, body FROM store_change WHERE shard = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";

/// A shard's row, locked until the transaction ends.
#[derive(Debug)]
pub struct LockedShard {
    /// Which.
    pub id: ShardId,
    /// What it says.
    pub row: ShardRow,
}

impl LockedShard {
    /// Reads the row in a transaction that [`super::file::begin`] has begun.
    pub async fn lock(tx: &mut SqliteConnection, id: ShardId) -> Result<Self, LedgerError> {
        let row = row(tx, id).await?;
        Ok(Self { id, row })
    }

    /// Numbers changes in their order.
    pub async fn append(
        &mut self,
        tx: &mut SqliteConnection,
        changes: &[(AccountId, ChangeBody)],
    ) -> Result<(), sqlx::Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut last = self.row.last_change;
        let rows = changes.iter().map(|(account, body)| {
            last.0 += 1;
            let body = serde_json::to_string(body).expect("a change has string keys only");
            json!([last.0, account, body])
        });
        let rows: serde_json::Value = rows.collect();
        sqlx::query(APPEND)
            .bind(self.id.0)
            .bind(rows.to_string())
            .execute(&mut *tx)
            .await?;
        sqlx::query(RAISE_LAST_CHANGE)
            .bind(self.id.0)
            .bind(last.0)
            .execute(tx)
            .await?;
        self.row.last_change = last;
        Ok(())
    }
}

/// The row as it is now, locked or not.
pub async fn row(conn: &mut SqliteConnection, id: ShardId) -> Result<ShardRow, LedgerError> {
    let row = sqlx::query(READ)
        .bind(id.0)
        .fetch_optional(conn)
        .await?
        .ok_or_else(|| LedgerError::Nonsense(format!("it has no shard {id}")))?;
    read_row(&row)
}

fn read_row(row: &SqliteRow) -> Result<ShardRow, LedgerError> {
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
    conn: &mut SqliteConnection,
    shard: ShardId,
    seq: ChangeSeq,
    max: usize,
) -> Result<Vec<StoreChange>, LedgerError> {
    let rows = sqlx::query(AFTER)
        .bind(shard.0)
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

/// A shard's number as its column has it.
pub(in crate::ledger) fn column(shard: ShardId) -> u16 {
    shard.0
}
