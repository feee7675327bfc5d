//! What one flush writes, each kind of row in one statement.
//!
//! Many rows go in one statement, as one JSON array: SQLite has no arrays, and a statement that is the same for any number
//! of rows is prepared once.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::account::lots_of;
use super::change::{LockedShard, account_id};
use crate::clock::Clock;
use crate::ledger::LedgerError;
use crate::ledger::batch::{Batch, UsageRecord, orders_of};
use crate::ledger::posting::Posting;
use crate::ledger::sql::text;
use crate::ledger::unwritten::{Unwritten, expect_all};
use crate::money::Nanos;
use crate::quota::{AccountId, ChangeBody, LotId};

const RECORD: &str = "\
    INSERT INTO usage_record (id, account_id, occurred_at, route, provider, model, outcome, overrun, input_tokens, \
        output_tokens, cache_read_tokens, cache_write_tokens, reserved_nanos, charged_nanos, cost_nanos, price_id, \
        api_key_id, user_ref, project_ref, tags, usage, properties, corrects, allocation, posting_id) \
    SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
        value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12, value ->> 13, value ->> 14, \
        value ->> 15, unhex(value ->> 16), value ->> 17, value ->> 18, value ->> 19, value ->> 20, value ->> 21, \
        unhex(value ->> 22), value ->> 23, unhex(value ->> 24) \
    FROM json_each(?1)";
const POST: &str = "\
    INSERT INTO posting (id, account_id, kind) \
    SELECT unhex(value ->> 0), value ->> 1, value ->> 2 FROM json_each(?1)";
const POST_ENTRIES: &str = "\
    INSERT INTO ledger_entry (posting_id, account_id, book, lot_id, amount_nanos) \
    SELECT unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?1)";
const CLOSE_POSTINGS: &str =
    "UPDATE posting SET closed = 1 WHERE id IN (SELECT unhex(value ->> 0) FROM json_each(?1))";
const MOVE_LOTS: &str = "\
    UPDATE credit_grant SET balance_nanos = balance_nanos + move.nanos \
    FROM (SELECT value ->> 0 AS account, value ->> 1 AS lot, value ->> 2 AS nanos FROM json_each(?1)) AS move \
    WHERE id = move.lot AND account_id = move.account \
    RETURNING id, account_id, balance_nanos";
const MOVE_DEBTS: &str = "\
    UPDATE account SET debt_nanos = debt_nanos + move.nanos \
    FROM (SELECT value ->> 0 AS account, value ->> 1 AS nanos FROM json_each(?1)) AS move WHERE id = move.account";
const MOVE_COUNTERS: &str = "\
    INSERT INTO usage_counter (account_id, scope, resource, \"window\", window_start, used) \
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?1) WHERE true \
    ON CONFLICT (account_id, scope, resource, \"window\", window_start) DO UPDATE SET used = used + excluded.used";
const WITHDRAWN: &str = "\
    UPDATE withdrawal SET taken_nanos = done.taken, done_at = ?2 \
    FROM (SELECT unhex(value ->> 0) AS withdrawal, value ->> 1 AS taken FROM json_each(?1)) AS done \
    WHERE id = done.withdrawal AND taken_nanos IS NULL";

/// Writes a batch, and numbers what the store must learn of it.
pub(super) async fn write(
    tx: &mut SqliteConnection,
    locked: &mut LockedShard,
    batch: Batch,
) -> Result<(), Unwritten> {
    post(tx, &batch.postings).await?;
    many(tx, RECORD, batch.records.iter().map(record).collect()).await?;
    let risen = move_lots(tx, &batch).await?;
    move_debts(tx, &batch).await?;
    move_counters(tx, &batch).await?;
    withdraw(tx, &batch).await?;
    let mut changes = batch.rests;
    changes.extend(new_orders(tx, &risen).await?);
    locked.append(tx, &changes).await?;
    Ok(())
}

/// Opens the postings, enters what they move, and closes them, which the schema refuses where a sum is not zero.
pub(in crate::ledger) async fn post(
    tx: &mut SqliteConnection,
    postings: &[Posting],
) -> Result<(), Unwritten> {
    let mut rows = Vec::new();
    let mut entries = Vec::new();
    for posting in postings {
        let (id, account) = (hex(posting.id), &posting.account);
        rows.push(json!([id, account, posting.kind.as_str()]));
        for (book, nanos) in &posting.entries {
            let lot = book.lot().map(|lot| lot.0);
            entries.push(json!([id, account, book.as_str(), lot, nanos.0]));
        }
    }
    many(tx, POST, rows.clone()).await?;
    many(tx, POST_ENTRIES, entries).await?;
    many(tx, CLOSE_POSTINGS, rows).await?;
    Ok(())
}

fn record(record: &UsageRecord) -> Value {
    let UsageRecord {
        numbers, detail, ..
    } = record;
    json!([
        hex(record.id),
        record.account,
        record.occurred_at,
        detail.route,
        detail.provider,
        detail.model,
        record.outcome,
        record.overrun,
        numbers.input_tokens,
        numbers.output_tokens,
        numbers.cache_read_tokens,
        numbers.cache_write_tokens,
        record.reserved.0,
        record.charged.0,
        numbers.cost.0,
        detail.price_id,
        detail.api_key_id.map(hex),
        detail.user_ref,
        detail.project_ref,
        text(&detail.tags),
        detail.usage.as_ref().map(|usage| usage.get()),
        text(&detail.properties),
        record.corrects.map(hex),
        text(&record.taken),
        record.posting.map(hex),
    ])
}

/// Moves the lots, and says whose came back from nothing.
async fn move_lots(
    tx: &mut SqliteConnection,
    batch: &Batch,
) -> Result<BTreeSet<AccountId>, Unwritten> {
    if batch.lots.is_empty() {
        return Ok(BTreeSet::new());
    }
    let moves = batch.lots.iter();
    let moves: Value = moves
        .map(|((account, lot), nanos)| json!([account, lot.0, nanos.0]))
        .collect();
    let rows = sqlx::query(MOVE_LOTS)
        .bind(moves.to_string())
        .fetch_all(tx)
        .await?;
    expect_all("lot", batch.lots.len(), rows.len())?;
    let mut risen = BTreeSet::new();
    for row in &rows {
        let lot = (account_id(row)?, LotId(row.try_get("id")?));
        let left = Nanos(row.try_get("balance_nanos")?);
        let by = batch.lots.get(&lot).copied().unwrap_or_default();
        if left > Nanos::ZERO && left - by <= Nanos::ZERO {
            risen.insert(lot.0);
        }
    }
    Ok(risen)
}

async fn move_debts(tx: &mut SqliteConnection, batch: &Batch) -> Result<(), Unwritten> {
    let moves = batch.debts.iter();
    let moves = moves.map(|(account, nanos)| json!([account, nanos.0]));
    let found = many(tx, MOVE_DEBTS, moves.collect()).await?;
    expect_all("account", batch.debts.len(), found)
}

async fn move_counters(tx: &mut SqliteConnection, batch: &Batch) -> Result<(), Unwritten> {
    let moves = batch.counters.iter();
    let moves = moves.map(|((account, key, start), amount)| {
        let (scope, resource) = (key.scope.to_string(), key.resource.to_string());
        json!([
            account,
            scope,
            resource,
            key.window.to_string(),
            start,
            amount
        ])
    });
    many(tx, MOVE_COUNTERS, moves.collect()).await?;
    Ok(())
}

/// The withdrawals that are done.
async fn withdraw(tx: &mut SqliteConnection, batch: &Batch) -> Result<(), Unwritten> {
    if batch.withdrawn.is_empty() {
        return Ok(());
    }
    let done = batch.withdrawn.iter();
    let done: Value = done.map(|(id, taken)| json!([hex(*id), taken.0])).collect();
    let done = sqlx::query(WITHDRAWN)
        .bind(done.to_string())
        .bind(Clock::System.now().0)
        .execute(tx)
        .await?;
    let found = usize::try_from(done.rows_affected()).unwrap_or(usize::MAX);
    expect_all("withdrawal", batch.withdrawn.len(), found)
}

/// Lists of lots for accounts that got credit back on a lot that had nothing left: the store may not have it in its
/// order any more.
async fn new_orders(
    tx: &mut SqliteConnection,
    risen: &BTreeSet<AccountId>,
) -> Result<Vec<(AccountId, ChangeBody)>, LedgerError> {
    if risen.is_empty() {
        return Ok(Vec::new());
    }
    let accounts: Vec<AccountId> = risen.iter().cloned().collect();
    Ok(orders_of(lots_of(tx, &accounts, &BTreeSet::new()).await?))
}

/// Runs a statement over many rows at once; says how many it touched.
async fn many(
    tx: &mut SqliteConnection,
    statement: &'static str,
    rows: Vec<Value>,
) -> Result<usize, Unwritten> {
    if rows.is_empty() {
        return Ok(0);
    }
    let rows = sqlx::query(statement).bind(Value::from(rows).to_string());
    let done = rows.execute(tx).await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}

/// An id within JSON, which has no bytes.
pub(super) fn hex(id: Uuid) -> String {
    id.simple().to_string()
}
