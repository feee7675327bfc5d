//! The ledger's own sums, and what may account for one that does not come out.
//!
//! Everything is read in one snapshot and nothing is locked. The database adds up, so that only what does not is carried.

use std::time::Duration;

use sqlx::Connection;
use tokio::time::timeout;

use super::postgres::wire;
use super::sql::to_account_id;
use super::tx::{Tx, on};
use crate::ledger::LedgerError;
use crate::ledger::audit::clue::{self, MOST_CLUES, RECENT_CHANGES, RECENT_RECORDS, Traces};
use crate::ledger::audit::own::{Line, MOST_DRIFTS};
use crate::ledger::audit::{BATCH, Check, Clue, Depth, Drift, OwnSums, Page, Thing};
use crate::quota::{AccountId, ShardId};

const AFTER: &str = "SELECT id FROM account WHERE shard = $1 AND id > $2 ORDER BY id LIMIT $3";
const ONLY: &str = "SELECT id FROM account WHERE shard = $1 AND id = $2 LIMIT $3";

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
        .unwrap_or_else(|_| Err(wire::too_slow()))
}

/// What does not add up, of a page of accounts.
pub(super) async fn own_sums(
    conn: impl Into<Tx<'_>>,
    shard: ShardId,
    page: &Page,
    depth: Depth,
) -> Result<OwnSums, LedgerError> {
    let deadline = match depth {
        Depth::Balances => BALANCES_DEADLINE,
        Depth::Records => RECORDS_DEADLINE,
    };
    let mut conn = conn.into();
    let summed = async {
        on!(&mut conn, conn, ledger => {
            let mut tx = conn.begin_with(ledger::ONE_READ).await?;
            let sums = summed(&mut Tx::from(&mut *tx), shard, page, depth).await?;
            tx.rollback().await?;
            Ok(sums)
        })
    };
    timeout(deadline, summed)
        .await
        .unwrap_or_else(|_| Err(wire::too_slow()))
}

async fn summed(
    tx: &mut Tx<'_>,
    shard: ShardId,
    page: &Page,
    depth: Depth,
) -> Result<OwnSums, LedgerError> {
    let (statement, account) = match page {
        Page::After(after) => (AFTER, after.as_ref()),
        Page::Only(account) => (ONLY, Some(account)),
    };
    let names: Vec<String> = on!(&mut *tx, conn, ledger => {
        let names = sqlx::query_scalar(statement)
            .bind(ledger::change::column(shard))
            .bind(account.map_or("", AccountId::as_str))
            .bind(i64::try_from(BATCH).unwrap_or(i64::MAX));
        names.fetch_all(conn).await?
    });
    let mut sums = OwnSums::default();
    on!(tx, conn, ledger => {
        for (check, statement) in ledger::own::sums::ALL {
            if !check.is_of(depth) || names.is_empty() {
                continue;
            }
            let lines = sqlx::query_as(statement).bind(ledger::own::names(&names));
            let lines: Vec<Line> = lines.bind(MOST_DRIFTS).fetch_all(&mut *conn).await?;
            for line in lines {
                sums.drifts.push(Check::drift(check, line)?);
            }
        }
    });
    for name in names {
        sums.accounts.push(to_account_id(&name)?);
    }
    Ok(sums)
}

/// What may account for a drift, as far as the ledger knows.
pub(super) async fn trace(
    conn: impl Into<Tx<'_>>,
    drift: &Drift,
) -> Result<Vec<Clue>, LedgerError> {
    let mut conn = conn.into();
    let traced = async {
        on!(&mut conn, conn, ledger => {
            let mut tx = conn.begin_with(ledger::ONE_READ).await?;
            let clues = traced(&mut Tx::from(&mut *tx), drift).await?;
            tx.rollback().await?;
            Ok(clues)
        })
    };
    timeout(BALANCES_DEADLINE, traced)
        .await
        .unwrap_or_else(|_| Err(wire::too_slow()))
}

async fn traced(tx: &mut Tx<'_>, drift: &Drift) -> Result<Vec<Clue>, LedgerError> {
    let most = i64::try_from(MOST_CLUES).unwrap_or(i64::MAX);
    let difference = drift.difference().abs().to_string();
    let account = drift.account.as_str();
    on!(tx, conn, ledger => {
        use ledger::own::traces;
        Ok(match drift.of.thing() {
            Thing::Posting(posting) => {
                let books = sqlx::query_as(traces::BOOKS).bind(posting).bind(most);
                clue::books_of(books.fetch_all(conn).await?)?
            }
            Thing::Records(posting) => {
                let records = sqlx::query_as(traces::RECORDS_OF).bind(account).bind(posting);
                let records = records.bind(&difference).bind(most);
                clue::records_of(&records.fetch_all(conn).await?)?
            }
            Thing::Charge(record) => {
                let posting = sqlx::query_as(traces::POSTING_OF).bind(record);
                clue::postings_of(&posting.fetch_all(conn).await?)?
            }
            Thing::Corrections(record) => {
                let corrections = sqlx::query_as(traces::CORRECTIONS).bind(account);
                let corrections = corrections.bind(record).bind(most);
                clue::records_of(&corrections.fetch_all(conn).await?)?
            }
            thing => moved(&mut Tx::from(conn), drift, &thing, &difference)
                .await?
                .clues(drift)?,
        })
    })
}

/// Whatever moved a lot, the debt or a counter.
async fn moved(
    tx: &mut Tx<'_>,
    drift: &Drift,
    thing: &Thing,
    difference: &str,
) -> Result<Traces, LedgerError> {
    let account = drift.account.as_str();
    let most = i64::try_from(MOST_CLUES).unwrap_or(i64::MAX);
    let mut found = Traces::default();
    on!(tx, conn, ledger => {
        use ledger::own::traces;
        if let Some((book, lot)) = thing.book() {
            let postings = sqlx::query_as(traces::POSTINGS).bind(account).bind(book).bind(lot);
            let postings = postings.bind(difference).bind(most);
            found.postings = postings.fetch_all(&mut *conn).await?;
        }
        if let Thing::Lot(lot) = thing {
            let withdrawals = sqlx::query_as(traces::WITHDRAWALS).bind(account);
            let withdrawals = withdrawals.bind(lot.0).bind(most);
            found.withdrawals = withdrawals.fetch_all(&mut *conn).await?;
        }
        let latest = |statement: &'static str, most: i64| {
            sqlx::query_as::<_, (String, String)>(statement).bind(account).bind(most)
        };
        let records = latest(traces::RECORDS, RECENT_RECORDS);
        found.records = records.fetch_all(&mut *conn).await?;
        let changes = latest(traces::CHANGES, RECENT_CHANGES);
        found.changes = changes.fetch_all(&mut *conn).await?;
        found.quarantined = latest(traces::QUARANTINED, most).fetch_all(conn).await?;
    });
    Ok(found)
}
