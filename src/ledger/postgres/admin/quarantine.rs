//! What is in quarantine: listed, and tried again once what was wrong is mended (rule 26).
//!
//! An entry that is taken in late is decided like any other, so that a numbered change undoes whatever of it the ledger
//! has had from elsewhere meanwhile (rule 24).

use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{Connection, Row};
use time::OffsetDateTime;

use super::Admin;
use crate::ledger::LedgerError;
use crate::ledger::postgres::change::{LockedShard, column};
use crate::ledger::postgres::quarantine::try_to_write;
use crate::quota::{AccountId, Entry, OutSeq, ShardId};

const LIST: &str = "\
    SELECT seq, account_id, reason, quarantined_at FROM quarantine \
    WHERE shard = $1 AND seq > $2 AND resolved_at IS NULL ORDER BY seq LIMIT $3";
const NEXT: &str = "\
    SELECT seq, account_id, reason, raw FROM quarantine \
    WHERE shard = $1 AND seq > $2 AND resolved_at IS NULL ORDER BY seq LIMIT $3";
const RESOLVE: &str = "UPDATE quarantine SET resolved_at = now() WHERE shard = $1 AND seq = $2";

/// Entries of one call; those tried again are one transaction.
const BATCH: i64 = 50;

/// An entry that the ledger could not take in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantined {
    /// Of which shard.
    pub shard: ShardId,
    /// Its number in the outbox.
    pub seq: OutSeq,
    /// Whose, where that can be told.
    pub account: Option<AccountId>,
    /// What is wrong with it.
    pub reason: String,
    /// Since when.
    #[serde(serialize_with = "time::serde::rfc3339::serialize")]
    pub quarantined_at: OffsetDateTime,
}

/// An entry that was tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retried {
    /// Its number in the outbox.
    pub seq: OutSeq,
    /// Whose, where that can be told.
    pub account: Option<AccountId>,
    /// What is still wrong with it; `None`: it is in the ledger now.
    pub refused: Option<String>,
}

impl Admin {
    /// The entries of a shard that are in quarantine after this one, the first few. None: there are no more.
    pub async fn quarantined(
        &self,
        shard: ShardId,
        after: OutSeq,
    ) -> Result<Vec<Quarantined>, LedgerError> {
        self.run(async |conn| {
            let rows = sqlx::query(LIST)
                .bind(column(shard))
                .bind(after.0)
                .bind(BATCH)
                .fetch_all(conn)
                .await?;
            let entries = rows.iter().map(|row| {
                Ok(Quarantined {
                    shard,
                    seq: OutSeq(row.try_get("seq")?),
                    account: account(row)?,
                    reason: row.try_get("reason")?,
                    quarantined_at: row.try_get("quarantined_at")?,
                })
            });
            entries.collect()
        })
        .await
    }

    /// Tries the next few entries of a shard again, after this one. None: there are no more.
    // holds: 3, never lost
    pub async fn retry_quarantined(
        &self,
        shard: ShardId,
        after: OutSeq,
    ) -> Result<Vec<Retried>, LedgerError> {
        self.run(async |conn| {
            let mut tx = conn.begin().await?;
            let mut locked = LockedShard::lock(&mut tx, shard).await?;
            let rows = sqlx::query(NEXT)
                .bind(column(shard))
                .bind(after.0)
                .bind(BATCH)
                .fetch_all(&mut *tx)
                .await?;
            let mut retried = Vec::new();
            for row in &rows {
                let seq = OutSeq(row.try_get("seq")?);
                let raw: &[u8] = row.try_get("raw")?;
                let refused = match serde_json::from_slice::<Entry>(raw) {
                    Ok(entry) => try_to_write(&mut tx, &mut locked, &[&entry]).await?.err(),
                    // It never was an entry that anybody could read.
                    Err(_) => Some(row.try_get("reason")?),
                };
                if refused.is_none() {
                    let resolve = sqlx::query(RESOLVE).bind(column(shard)).bind(seq.0);
                    resolve.execute(&mut *tx).await?;
                }
                retried.push(Retried {
                    seq,
                    account: account(row)?,
                    refused,
                });
            }
            tx.commit().await?;
            Ok(retried)
        })
        .await
    }
}

fn account(row: &PgRow) -> Result<Option<AccountId>, LedgerError> {
    let text: Option<String> = row.try_get("account_id")?;
    text.map(|text| {
        text.parse()
            .map_err(|_| LedgerError::Nonsense(format!("`{text}` is no account id")))
    })
    .transpose()
}
