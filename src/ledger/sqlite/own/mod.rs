//! The ledger's own sums in SQLite, and what may account for one that does not come out.
//!
//! Everything is read in one snapshot, which in WAL mode holds up nobody who writes. SQLite adds up, so that only what
//! does not is carried.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, SqliteConnection};
use tokio::time::timeout;

use super::file::{File, too_slow};
use crate::ledger::LedgerError;
use crate::ledger::audit::clue::{self, MOST_CLUES, RECENT_CHANGES, RECENT_RECORDS, Traces};
use crate::ledger::audit::own::{Line, MOST_DRIFTS};
use crate::ledger::audit::{BATCH, Check, Clue, Depth, Drift, OwnSums, Page, Thing};
use crate::ledger::sql::to_account_id;
use crate::quota::{AccountId, ShardId};

mod sums;
mod traces;

const AFTER: &str = "SELECT id FROM account WHERE shard = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
const ONLY: &str = "SELECT id FROM account WHERE shard = ?1 AND id = ?2 LIMIT ?3";

/// How long the balances of one page may take.
const BALANCES_DEADLINE: Duration = Duration::from_secs(30);
/// How long its records may take: an account may have very many.
const RECORDS_DEADLINE: Duration = Duration::from_mins(10);

/// Gives long work as much time as the records of a page may take.
pub(super) async fn patiently<T>(
    work: impl Future<Output = Result<T, LedgerError>>,
) -> Result<T, LedgerError> {
    timeout(RECORDS_DEADLINE, work)
        .await
        .unwrap_or_else(|_| Err(too_slow()))
}

/// What does not add up, of a page of accounts.
pub(super) async fn own_sums(
    file: &File,
    shard: ShardId,
    page: &Page,
    depth: Depth,
) -> Result<OwnSums, LedgerError> {
    let deadline = match depth {
        Depth::Balances => BALANCES_DEADLINE,
        Depth::Records => RECORDS_DEADLINE,
    };
    let summed = async { summed(&mut *file.reader().await?, shard, page, depth).await };
    timeout(deadline, summed)
        .await
        .unwrap_or_else(|_| Err(too_slow()))
}

async fn summed(
    conn: &mut SqliteConnection,
    shard: ShardId,
    page: &Page,
    depth: Depth,
) -> Result<OwnSums, LedgerError> {
    let mut tx = conn.begin().await?;
    let (statement, account) = match page {
        Page::After(after) => (AFTER, after.as_ref()),
        Page::Only(account) => (ONLY, Some(account)),
    };
    let names: Vec<String> = sqlx::query_scalar(statement)
        .bind(shard.0)
        .bind(account.map_or("", AccountId::as_str))
        .bind(i64::try_from(BATCH).unwrap_or(i64::MAX))
        .fetch_all(&mut *tx)
        .await?;
    let mut sums = OwnSums::default();
    for (check, statement) in sums::ALL {
        if !check.is_of(depth) || names.is_empty() {
            continue;
        }
        let lines: Vec<Line> = sqlx::query_as(statement)
            .bind(json!(names).to_string())
            .bind(MOST_DRIFTS)
            .fetch_all(&mut *tx)
            .await?;
        for line in lines {
            sums.drifts.push(Check::drift(check, line)?);
        }
    }
    tx.rollback().await?;
    for name in names {
        sums.accounts.push(to_account_id(&name)?);
    }
    Ok(sums)
}

/// What may account for a drift, as far as the ledger knows.
pub(super) async fn trace(file: &File, drift: &Drift) -> Result<Vec<Clue>, LedgerError> {
    let traced = async { traced(&mut *file.reader().await?, drift).await };
    timeout(BALANCES_DEADLINE, traced)
        .await
        .unwrap_or_else(|_| Err(too_slow()))
}

async fn traced(conn: &mut SqliteConnection, drift: &Drift) -> Result<Vec<Clue>, LedgerError> {
    let mut tx = conn.begin().await?;
    let most = i64::try_from(MOST_CLUES).unwrap_or(i64::MAX);
    let difference = drift.difference().abs().to_string();
    let account = drift.account.as_str();
    let clues = match drift.of.thing() {
        Thing::Posting(posting) => {
            let books = sqlx::query_as(traces::BOOKS).bind(posting).bind(most);
            clue::books_of(books.fetch_all(&mut *tx).await?)?
        }
        Thing::Records(posting) => {
            let records = sqlx::query_as(traces::RECORDS_OF)
                .bind(account)
                .bind(posting)
                .bind(&difference)
                .bind(most);
            clue::records_of(&records.fetch_all(&mut *tx).await?)?
        }
        Thing::Charge(record) => {
            let posting = sqlx::query_as(traces::POSTING_OF).bind(record);
            clue::postings_of(&posting.fetch_all(&mut *tx).await?)?
        }
        Thing::Corrections(record) => {
            let corrections = sqlx::query_as(traces::CORRECTIONS)
                .bind(account)
                .bind(record)
                .bind(most);
            clue::records_of(&corrections.fetch_all(&mut *tx).await?)?
        }
        thing => moved(&mut tx, drift, &thing, &difference)
            .await?
            .clues(drift)?,
    };
    tx.rollback().await?;
    Ok(clues)
}

/// Whatever moved a lot, the debt or a counter.
async fn moved(
    tx: &mut SqliteConnection,
    drift: &Drift,
    thing: &Thing,
    difference: &str,
) -> Result<Traces, LedgerError> {
    let account = drift.account.as_str();
    let most = i64::try_from(MOST_CLUES).unwrap_or(i64::MAX);
    let mut traces = Traces::default();
    if let Some((book, lot)) = thing.book() {
        traces.postings = sqlx::query_as(traces::POSTINGS)
            .bind(account)
            .bind(book)
            .bind(lot)
            .bind(difference)
            .bind(most)
            .fetch_all(&mut *tx)
            .await?;
    }
    if let Thing::Lot(lot) = thing {
        traces.withdrawals = sqlx::query_as(traces::WITHDRAWALS)
            .bind(account)
            .bind(lot.0)
            .bind(most)
            .fetch_all(&mut *tx)
            .await?;
    }
    let latest = async |tx: &mut SqliteConnection, statement: &'static str, most: i64| {
        let lines = sqlx::query_as::<_, (String, String)>(statement);
        lines.bind(account).bind(most).fetch_all(tx).await
    };
    traces.records = latest(tx, traces::RECORDS, RECENT_RECORDS).await?;
    traces.changes = latest(tx, traces::CHANGES, RECENT_CHANGES).await?;
    traces.quarantined = latest(tx, traces::QUARANTINED, most).await?;
    Ok(traces)
}
