//! The ledger's side of an audit: the books of a few accounts at a time, read while their shard's row is locked.
//!
//! The lock is the flush's: while it is held, the ledger of that shard stands still. It is let go after each few
//! accounts, so that an audit never holds up a flush for long.

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection, Row};
use time::OffsetDateTime;

use super::Admin;
use crate::ledger::LedgerError;
use crate::ledger::audit::Books;
use crate::ledger::postgres::change::{LockedShard, account_id, column};
use crate::money::Amount;
use crate::quota::{AccountId, ChangeBody, ChangeSeq, CounterBalance, CounterKey, LotId, ShardId};

// The sums are read as text, because a sum of bigints is a numeric.
const PAGE: &str = "\
    SELECT id AS account_id, debt_nanos, \
           (SELECT coalesce(sum(amount_nanos), 0) FROM credit_grant WHERE account_id = account.id)::text AS granted, \
           (SELECT coalesce(sum(charged_nanos), 0) FROM usage_record WHERE account_id = account.id)::text AS charged \
    FROM account WHERE shard = $1 AND id > $2 ORDER BY id LIMIT $3";
const LOTS: &str =
    "SELECT account_id, id, balance_nanos FROM credit_grant WHERE account_id = ANY($1)";
const COUNTERS: &str = "\
    SELECT DISTINCT ON (account_id, scope, resource, \"window\") \
           account_id, scope || '/' || resource || '/' || \"window\" AS key, window_start, used \
    FROM usage_counter WHERE account_id = ANY($1) \
    ORDER BY account_id, scope, resource, \"window\", window_start DESC";
const CHANGES: &str = "SELECT account_id, seq, body FROM store_change WHERE account_id = ANY($1) AND seq > $2 ORDER BY seq";

/// Accounts whose books are read under one lock.
const BATCH: i64 = 50;

impl Admin {
    /// Hands the books of the next accounts of a shard to `read`, and keeps the shard locked until it is done.
    /// `applied` is a change that the store is known to have applied. No books: there are no more accounts.
    pub async fn with_books<T, E: From<LedgerError>>(
        &self,
        shard: ShardId,
        after: Option<&AccountId>,
        applied: ChangeSeq,
        read: impl AsyncFnOnce(Vec<Books>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.run(async |conn| {
            let mut tx = conn.begin().await.map_err(LedgerError::from)?;
            let locked = LockedShard::lock(&mut tx, shard).await?;
            let books = books(&mut tx, &locked, after, applied).await?;
            let answer = read(books).await?;
            tx.rollback().await.map_err(LedgerError::from)?;
            Ok(answer)
        })
        .await
    }
}

async fn books(
    tx: &mut PgConnection,
    shard: &LockedShard,
    after: Option<&AccountId>,
    applied: ChangeSeq,
) -> Result<Vec<Books>, LedgerError> {
    let mut books = Vec::new();
    let page = sqlx::query(PAGE)
        .bind(column(shard.id))
        .bind(after.map_or("", AccountId::as_str))
        .bind(BATCH);
    for row in page.fetch_all(&mut *tx).await? {
        books.push(Books {
            account: account_id(&row)?,
            lots: Vec::new(),
            debt: row.try_get("debt_nanos")?,
            counters: Vec::new(),
            changes: Vec::new(),
            flushed_seq: shard.row.flushed_seq,
            granted: whole(&row, "granted")?,
            charged: whole(&row, "charged")?,
        });
    }
    let names: Vec<String> = books.iter().map(|of| of.account.to_string()).collect();
    for row in sqlx::query(LOTS).bind(&names).fetch_all(&mut *tx).await? {
        if let Some(books) = books_of(&mut books, &row)? {
            let lot = LotId(row.try_get("id")?);
            books.lots.push((lot, row.try_get("balance_nanos")?));
        }
    }
    for row in sqlx::query(COUNTERS)
        .bind(&names)
        .fetch_all(&mut *tx)
        .await?
    {
        if let Some(books) = books_of(&mut books, &row)? {
            let key: String = row.try_get("key")?;
            let start: OffsetDateTime = row.try_get("window_start")?;
            books.counters.push(CounterBalance {
                key: key.parse::<CounterKey>().map_err(nonsense)?,
                start: start.into(),
                used: Amount(row.try_get("used")?),
            });
        }
    }
    let changes = sqlx::query(CHANGES).bind(&names).bind(applied.0);
    for row in changes.fetch_all(tx).await? {
        if let Some(books) = books_of(&mut books, &row)? {
            let Json(body): Json<ChangeBody> = row.try_get("body")?;
            let seq = ChangeSeq(row.try_get("seq")?);
            books.changes.push((seq, body.moved));
        }
    }
    Ok(books)
}

/// The books that a row belongs to.
fn books_of<'a>(books: &'a mut [Books], row: &PgRow) -> Result<Option<&'a mut Books>, LedgerError> {
    let account = account_id(row)?;
    Ok(books.iter_mut().find(|books| books.account == account))
}

fn whole(row: &PgRow, column: &str) -> Result<i128, LedgerError> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(nonsense)
}

fn nonsense(error: impl std::fmt::Display) -> LedgerError {
    LedgerError::Nonsense(error.to_string())
}
