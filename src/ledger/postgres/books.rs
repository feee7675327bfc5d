//! The books of a few accounts at a time, beside what the store says of them, read while their shard's row is locked.
//!
//! The lock is the flush's: while it is held, the ledger of that shard stands still. It is let go after each few
//! accounts, so that an audit never holds up a flush for long.

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection, Row};

use super::account::read_counter;
use super::change::{LockedShard, account_id, column};
use super::quarantine;
use crate::ledger::audit::{BATCH, Books, Page};
use crate::ledger::{CheckError, LedgerError};
use crate::quota::{AccountId, AccountView, ChangeBody, ChangeSeq, LotId, ShardId, Store};

const AFTER: &str = "\
    SELECT id AS account_id, debt_nanos FROM account WHERE shard = $1 AND id > $2 ORDER BY id LIMIT $3";
const ONLY: &str = "\
    SELECT id AS account_id, debt_nanos FROM account WHERE shard = $1 AND id = $2 LIMIT $3";
const LOTS: &str =
    "SELECT account_id, id, balance_nanos FROM credit_grant WHERE account_id = ANY($1)";
const COUNTERS: &str = "\
    SELECT DISTINCT ON (account_id, scope, resource, \"window\") \
           account_id, scope, resource, \"window\", window_start, used \
    FROM usage_counter WHERE account_id = ANY($1) \
    ORDER BY account_id, scope, resource, \"window\", window_start DESC";
const CHANGES: &str = "SELECT account_id, seq, body FROM store_change WHERE account_id = ANY($1) AND seq > $2 ORDER BY seq";

pub(super) async fn books<S: Store>(
    conn: &mut PgConnection,
    shard: ShardId,
    store: &S,
    page: &Page,
) -> Result<Vec<(Books, Option<AccountView>)>, CheckError> {
    // Read first: what the store has applied by then, it has applied when its accounts are read.
    let header = store.view(shard).await?.header;
    let applied = header.map_or(ChangeSeq(0), |header| header.applied_seq);
    let mut tx = conn.begin().await.map_err(LedgerError::from)?;
    let locked = LockedShard::lock(&mut tx, shard).await?;
    let mut pairs = Vec::new();
    for books in read(&mut tx, &locked, page, applied).await? {
        let view = store.account(&books.account).await?;
        pairs.push((books, view));
    }
    tx.rollback().await.map_err(LedgerError::from)?;
    Ok(pairs)
}

async fn read(
    tx: &mut PgConnection,
    shard: &LockedShard,
    page: &Page,
    applied: ChangeSeq,
) -> Result<Vec<Books>, LedgerError> {
    let (query, account) = match page {
        Page::After(after) => (AFTER, after.as_ref()),
        Page::Only(account) => (ONLY, Some(account)),
    };
    let mut books = Vec::new();
    let page = sqlx::query(query)
        .bind(column(shard.id))
        .bind(account.map_or("", AccountId::as_str))
        .bind(i64::try_from(BATCH).unwrap_or(i64::MAX));
    for row in page.fetch_all(&mut *tx).await? {
        books.push(Books {
            account: account_id(&row)?,
            lots: Vec::new(),
            debt: row.try_get("debt_nanos")?,
            counters: Vec::new(),
            changes: Vec::new(),
            flushed_seq: shard.row.flushed_seq,
            quarantined: Vec::new(),
        });
    }
    fill(tx, &mut books, applied).await?;
    Ok(books)
}

async fn fill(
    tx: &mut PgConnection,
    books: &mut [Books],
    applied: ChangeSeq,
) -> Result<(), LedgerError> {
    let names: Vec<String> = books.iter().map(|of| of.account.to_string()).collect();
    for row in sqlx::query(LOTS).bind(&names).fetch_all(&mut *tx).await? {
        if let Some(books) = books_of(books, &row)? {
            let lot = LotId(row.try_get("id")?);
            books.lots.push((lot, row.try_get("balance_nanos")?));
        }
    }
    for row in sqlx::query(COUNTERS)
        .bind(&names)
        .fetch_all(&mut *tx)
        .await?
    {
        if let Some(books) = books_of(books, &row)? {
            books.counters.push(read_counter(&row)?);
        }
    }
    let changes = sqlx::query(CHANGES).bind(&names).bind(applied.0);
    for row in changes.fetch_all(&mut *tx).await? {
        if let Some(books) = books_of(books, &row)? {
            let Json(body): Json<ChangeBody> = row.try_get("body")?;
            let seq = ChangeSeq(row.try_get("seq")?);
            books.changes.push((seq, body.moved));
        }
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut quarantined = quarantine::moved(tx, &names).await?;
    for books in books {
        books.quarantined = quarantined.remove(&books.account).unwrap_or_default();
    }
    Ok(())
}

/// The books that a row belongs to.
fn books_of<'a>(books: &'a mut [Books], row: &PgRow) -> Result<Option<&'a mut Books>, LedgerError> {
    let account = account_id(row)?;
    Ok(books.iter_mut().find(|books| books.account == account))
}
