//! The books of a few accounts, and what the store says of them (the audit's raw material).
//!
//! Both must be of one moment. The file is not locked while the store is read, for the store may be waiting for its journal
//! in it; so the books are read in one snapshot, and count only if the shard's row is the same afterwards: whatever moves
//! an account moves its shard's row.

use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{Connection, Row, SqliteConnection};

use super::account::read_counter;
use super::change::{account_id, row};
use super::check;
use super::file::{self, File};
use super::quarantine;
use crate::ledger::audit::{BATCH, Books, Page};
use crate::ledger::{CheckError, LOOKS, LedgerError, ShardRow};
use crate::quota::{AccountId, AccountView, ChangeBody, ChangeSeq, LotId, ShardId, Store};

const AFTER: &str = "\
    SELECT id AS account_id, debt_nanos FROM account WHERE shard = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
const ONLY: &str = "\
    SELECT id AS account_id, debt_nanos FROM account WHERE shard = ?1 AND id = ?2 LIMIT ?3";
const LOTS: &str = "\
    SELECT account_id, id, balance_nanos FROM credit_grant \
    WHERE account_id IN (SELECT value FROM json_each(?1)) ORDER BY id";
const COUNTERS: &str = "\
    SELECT account_id, scope, resource, \"window\", max(window_start) AS window_start, used FROM usage_counter \
    WHERE account_id IN (SELECT value FROM json_each(?1)) GROUP BY account_id, scope, resource, \"window\"";
const CHANGES: &str = "\
    SELECT account_id, seq, body FROM store_change \
    WHERE account_id IN (SELECT value FROM json_each(?1)) AND seq > ?2 ORDER BY seq";

pub(super) async fn books<S: Store>(
    file: &File,
    shard: ShardId,
    store: &S,
    page: &Page,
) -> Result<Vec<(Books, Option<AccountView>)>, CheckError> {
    for look in 0..LOOKS {
        // The shorter the page, the likelier it is that nothing moves while it is read.
        let most = (BATCH >> look).max(1);
        let header = store.view(shard).await?.header;
        let applied = header.map_or(ChangeSeq(0), |header| header.applied_seq);
        let read = async { of_page(&mut *file.reader().await?, shard, page, most, applied).await };
        let (before, books) = file::read(read).await?;
        let mut seen = Vec::with_capacity(books.len());
        for books in books {
            let view = store.account(&books.account).await?;
            seen.push((books, view));
        }
        if check::read(file, shard).await? == before {
            return Ok(seen);
        }
    }
    Err(check::restless().into())
}

async fn of_page(
    conn: &mut SqliteConnection,
    shard: ShardId,
    page: &Page,
    most: usize,
    applied: ChangeSeq,
) -> Result<(ShardRow, Vec<Books>), LedgerError> {
    // In WAL mode a transaction sees the file as it was at its first read.
    let mut tx = conn.begin().await?;
    let row = row(&mut tx, shard).await?;
    let (statement, account) = match page {
        Page::After(after) => (AFTER, after.as_ref()),
        Page::Only(account) => (ONLY, Some(account)),
    };
    let rows = sqlx::query(statement)
        .bind(shard.0)
        .bind(account.map_or("", AccountId::as_str))
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&mut *tx)
        .await?;
    let mut books = Vec::new();
    for of in &rows {
        books.push(Books {
            account: account_id(of)?,
            lots: Vec::new(),
            debt: of.try_get("debt_nanos")?,
            counters: Vec::new(),
            changes: Vec::new(),
            flushed_seq: row.flushed_seq,
            quarantined: Vec::new(),
        });
    }
    fill(&mut tx, &mut books, applied).await?;
    tx.rollback().await?;
    Ok((row, books))
}

async fn fill(
    tx: &mut SqliteConnection,
    books: &mut [Books],
    applied: ChangeSeq,
) -> Result<(), LedgerError> {
    let accounts: Vec<&AccountId> = books.iter().map(|books| &books.account).collect();
    let accounts = json!(accounts).to_string();
    let rows = async |tx: &mut SqliteConnection, statement: &'static str| {
        let rows = sqlx::query(statement).bind(&accounts);
        rows.fetch_all(tx).await
    };
    for row in rows(tx, LOTS).await? {
        if let Some(books) = books_of(books, &row)? {
            let lot = LotId(row.try_get("id")?);
            books.lots.push((lot, row.try_get("balance_nanos")?));
        }
    }
    for row in rows(tx, COUNTERS).await? {
        if let Some(books) = books_of(books, &row)? {
            books.counters.push(read_counter(&row)?);
        }
    }
    let changes = sqlx::query(CHANGES).bind(&accounts).bind(applied.0);
    for row in changes.fetch_all(&mut *tx).await? {
        if let Some(books) = books_of(books, &row)? {
            let Json(body): Json<ChangeBody> = row.try_get("body")?;
            let seq = ChangeSeq(row.try_get("seq")?);
            books.changes.push((seq, body.moved));
        }
    }
    let accounts: Vec<&AccountId> = books.iter().map(|books| &books.account).collect();
    let mut quarantined = quarantine::moved(tx, &accounts).await?;
    for books in books {
        books.quarantined = quarantined.remove(&books.account).unwrap_or_default();
    }
    Ok(())
}

/// The books that a row belongs to.
fn books_of<'a>(
    books: &'a mut [Books],
    row: &SqliteRow,
) -> Result<Option<&'a mut Books>, LedgerError> {
    let account = account_id(row)?;
    Ok(books.iter_mut().find(|books| books.account == account))
}
