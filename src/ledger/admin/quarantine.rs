//! What is in quarantine: listed, and tried again once what was wrong is mended (rule 26).
//!
//! An entry that is taken in late is decided like any other, so that a numbered change undoes whatever of it the ledger
//! has had from elsewhere meanwhile (rule 24).

use serde::Serialize;
use sqlx::Row;
use time::OffsetDateTime;
use uuid::Uuid;

use super::tx::{Dialects, Tx, on};
use super::{Admin, no_moment};
use crate::ledger::LedgerError;
use crate::ledger::sql::to_account_id;
use crate::quota::{AccountId, Entry, OutSeq, ShardId};

/// The next few entries of a shard, and all that are numbered as the last of them: servers that parted may have done so.
macro_rules! next {
    ($columns:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM quarantine WHERE shard = $1 AND resolved_at IS NULL AND seq > $2 AND seq <= ( \
                SELECT max(seq) FROM ( \
                    SELECT seq FROM quarantine WHERE shard = $1 AND resolved_at IS NULL AND seq > $2 \
                    ORDER BY seq LIMIT $3) AS page) \
            ORDER BY seq, id"
        )
    };
}
const LIST: &str = next!("seq, account_id, reason, quarantined_at");
const NEXT: &str = next!("id, seq, account_id, reason, raw");
const RESOLVE: Dialects = Dialects {
    postgres: "UPDATE quarantine SET resolved_at = now() WHERE id = $1",
    sqlite: "\
        UPDATE quarantine SET resolved_at = CAST(round(unixepoch('subsec') * 1000) AS INTEGER) WHERE id = $1",
};

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
        self.read(async |tx: &mut Tx<'_>| {
            on!(tx, conn, ledger => {
                let rows = sqlx::query(LIST)
                    .bind(ledger::change::column(shard))
                    .bind(after.0)
                    .bind(BATCH)
                    .fetch_all(conn)
                    .await?;
                let entries = rows.iter().map(|row| {
                    let at = ledger::moment::read(row, "quarantined_at")?;
                    Ok(Quarantined {
                        shard,
                        seq: OutSeq(row.try_get("seq")?),
                        account: account(row.try_get("account_id")?)?,
                        reason: row.try_get("reason")?,
                        quarantined_at: at.ok_or_else(no_moment)?,
                    })
                });
                entries.collect()
            })
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
        self.write(async |tx: &mut Tx<'_>| {
            tx.lock(shard).await?;
            let mut retried = Vec::new();
            for (id, seq, text, reason, raw) in next(tx, shard, after).await? {
                let refused = match serde_json::from_slice::<Entry>(&raw) {
                    Ok(entry) => tx.take_in(shard, &entry).await?.err(),
                    // It never was an entry that anybody could read.
                    Err(_) => Some(reason),
                };
                if refused.is_none() {
                    resolve(tx, id).await?;
                }
                retried.push(Retried {
                    seq: OutSeq(seq),
                    account: account(text.as_deref())?,
                    refused,
                });
            }
            Ok(retried)
        })
        .await
    }
}

/// Name, number, account, reason and the entry as it came.
type InQuarantine = (Uuid, i64, Option<String>, String, Vec<u8>);

async fn next(
    tx: &mut Tx<'_>,
    shard: ShardId,
    after: OutSeq,
) -> Result<Vec<InQuarantine>, LedgerError> {
    let next = on!(tx, conn, ledger => {
        let next = sqlx::query_as(NEXT).bind(ledger::change::column(shard));
        next.bind(after.0).bind(BATCH).fetch_all(conn).await?
    });
    Ok(next)
}

async fn resolve(tx: &mut Tx<'_>, id: Uuid) -> Result<(), LedgerError> {
    let resolve = tx.sql(&RESOLVE);
    on!(tx, conn => {
        sqlx::query(resolve).bind(id).execute(conn).await?;
    });
    Ok(())
}

fn account(text: Option<&str>) -> Result<Option<AccountId>, LedgerError> {
    text.map(to_account_id).transpose()
}
