//! Quarantine: entries that the ledger cannot take in for what they say, kept to the byte (rule 26).
//!
//! One odd entry must neither hold up all that come after it nor be lost.

use sqlx::SqliteConnection;

use crate::ledger::LedgerError;
use crate::quota::{Entry, ShardId, Unreadable};

const QUARANTINE: &str = "\
    INSERT INTO quarantine (shard, seq, account_id, raw, reason, moved) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// An entry that nobody can read.
pub(super) async fn keep_unreadable(
    tx: &mut SqliteConnection,
    shard: ShardId,
    entry: &Unreadable,
) -> Result<(), LedgerError> {
    tracing::error!(%shard, seq = %entry.seq, reason = entry.reason, "an entry goes into quarantine");
    sqlx::query(QUARANTINE)
        .bind(shard.0)
        .bind(entry.seq.0)
        .bind(entry.account.as_ref().map(|account| account.as_str()))
        .bind(&entry.raw)
        .bind(&entry.reason)
        .bind(None::<String>)
        .execute(tx)
        .await?;
    Ok(())
}

/// An entry that can be read, and not be written.
pub(super) async fn keep(
    tx: &mut SqliteConnection,
    shard: ShardId,
    entry: &Entry,
    reason: &str,
) -> Result<(), LedgerError> {
    tracing::error!(%shard, seq = %entry.seq, reason, "an entry goes into quarantine");
    let raw = serde_json::to_vec(entry).expect("an entry has string keys only");
    let moved = serde_json::to_string(&entry.moved).expect("a movement has string keys only");
    sqlx::query(QUARANTINE)
        .bind(shard.0)
        .bind(entry.seq.0)
        .bind(entry.account.as_str())
        .bind(raw)
        .bind(reason)
        .bind(moved)
        .execute(tx)
        .await?;
    Ok(())
}
