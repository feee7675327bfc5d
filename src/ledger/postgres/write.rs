//! What one flush writes, each kind of row in one statement.
//!
//! Each statement says all that happens to its table, so that a flush costs the same few round trips for any number of
//! entries.

use std::collections::BTreeSet;

use sqlx::{PgConnection, Row};
use time::OffsetDateTime;

use super::account::lots_of;
use super::change::{LockedShard, account_id};
use crate::ledger::LedgerError;
use crate::ledger::batch::{Batch, UsageRecord, orders_of};
use crate::ledger::posting::Posting;
use crate::ledger::sql::text;
use crate::ledger::unwritten::{Unwritten, expect_all};
use crate::quota::{AccountId, ChangeBody};

const RECORD: &str = "\
    INSERT INTO usage_record (id, account_id, occurred_at, route, provider, model, outcome, overrun, input_tokens, \
        output_tokens, cache_read_tokens, cache_write_tokens, reserved_nanos, charged_nanos, cost_nanos, price_id, \
        api_key_id, user_ref, project_ref, tags, usage, properties, corrects, allocation, posting_id) \
    SELECT id, account_id, occurred_at, route, provider, model, outcome, overrun, input_tokens, \
        output_tokens, cache_read_tokens, cache_write_tokens, reserved_nanos, charged_nanos, cost_nanos, price_id, \
        api_key_id, user_ref, project_ref, tags::json, usage::json, properties::json, corrects, \
        allocation::json, posting_id \
    FROM UNNEST($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], \
        $8::boolean[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], \
        $15::bigint[], $16::bigint[], $17::uuid[], $18::text[], $19::text[], $20::text[], $21::text[], $22::text[], \
        $23::uuid[], $24::text[], $25::uuid[]) \
    AS new (id, account_id, occurred_at, route, provider, model, outcome, overrun, input_tokens, output_tokens, \
        cache_read_tokens, cache_write_tokens, reserved_nanos, charged_nanos, cost_nanos, price_id, api_key_id, \
        user_ref, project_ref, tags, usage, properties, corrects, allocation, posting_id)";
const MOVE_LOTS: &str = "\
    UPDATE credit_grant AS lot SET balance_nanos = lot.balance_nanos + move.nanos \
    FROM UNNEST($1::text[], $2::bigint[], $3::bigint[]) AS move (account_id, id, nanos) \
    WHERE lot.id = move.id AND lot.account_id = move.account_id \
    RETURNING lot.account_id, lot.balance_nanos - move.nanos <= 0 AND lot.balance_nanos > 0 AS rose_from_zero";
const MOVE_DEBTS: &str = "\
    UPDATE account SET debt_nanos = account.debt_nanos + move.nanos \
    FROM UNNEST($1::text[], $2::bigint[]) AS move (id, nanos) WHERE account.id = move.id";
const MOVE_COUNTERS: &str = "\
    INSERT INTO usage_counter AS counter (account_id, scope, resource, \"window\", window_start, used) \
    SELECT * FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[]) \
    ON CONFLICT (account_id, scope, resource, \"window\", window_start) \
    DO UPDATE SET used = counter.used + excluded.used";
const POST: &str = "\
    INSERT INTO posting (id, account_id, kind) SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::text[])";
const ENTER: &str = "\
    INSERT INTO ledger_entry (posting_id, account_id, book, lot_id, amount_nanos) \
    SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])";
const WITHDRAWN: &str = "\
    UPDATE withdrawal SET taken_nanos = done.taken, done_at = now() \
    FROM UNNEST($1::uuid[], $2::bigint[]) AS done (id, taken) \
    WHERE withdrawal.id = done.id AND taken_nanos IS NULL";

/// Writes a batch, and numbers what the store must learn of it.
pub(super) async fn write(
    tx: &mut PgConnection,
    locked: &mut LockedShard,
    batch: Batch,
) -> Result<(), Unwritten> {
    post(tx, &batch.postings).await?;
    insert_records(tx, &batch.records).await?;
    let risen = move_lots(tx, &batch).await?;
    move_debts(tx, &batch).await?;
    move_counters(tx, &batch).await?;
    withdraw(tx, &batch).await?;
    let mut changes = batch.rests;
    changes.extend(new_orders(tx, &risen).await?);
    locked.append(tx, &changes).await?;
    Ok(())
}

/// Writes postings: all their entries in one statement, since the schema wants each statement to sum to zero.
// holds: 6, exact
pub(in crate::ledger) async fn post(
    tx: &mut PgConnection,
    postings: &[Posting],
) -> Result<(), Unwritten> {
    if postings.is_empty() {
        return Ok(());
    }
    sqlx::query(POST)
        .bind(of(postings, |posting| posting.id))
        .bind(of(postings, |posting| posting.account.as_str()))
        .bind(of(postings, |posting| posting.kind.as_str()))
        .execute(&mut *tx)
        .await?;
    let entries = postings.iter().flat_map(|posting| {
        let entries = posting.entries.iter();
        entries.map(move |(book, nanos)| (posting, *book, *nanos))
    });
    let entries: Vec<_> = entries.collect();
    sqlx::query(ENTER)
        .bind(of(&entries, |(posting, ..)| posting.id))
        .bind(of(&entries, |(posting, ..)| posting.account.as_str()))
        .bind(of(&entries, |(_, book, _)| book.as_str()))
        .bind(of(&entries, |(_, book, _)| book.lot().map(|lot| lot.0)))
        .bind(of(&entries, |(.., nanos)| nanos.0))
        .execute(tx)
        .await?;
    Ok(())
}

async fn insert_records(tx: &mut PgConnection, records: &[UsageRecord]) -> Result<(), Unwritten> {
    if records.is_empty() {
        return Ok(());
    }
    sqlx::query(RECORD)
        .bind(of(records, |r| r.id))
        .bind(of(records, |r| r.account.as_str()))
        .bind(of(records, |r| r.occurred_at.to_utc()))
        .bind(of(records, |r| r.detail.route.as_str()))
        .bind(of(records, |r| r.detail.provider.as_str()))
        .bind(of(records, |r| r.detail.model.as_str()))
        .bind(of(records, |r| r.outcome))
        .bind(of(records, |r| r.overrun))
        .bind(of(records, |r| r.numbers.input_tokens))
        .bind(of(records, |r| r.numbers.output_tokens))
        .bind(of(records, |r| r.numbers.cache_read_tokens))
        .bind(of(records, |r| r.numbers.cache_write_tokens))
        .bind(of(records, |r| r.reserved.0))
        .bind(of(records, |r| r.charged.0))
        .bind(of(records, |r| r.numbers.cost.0))
        .bind(of(records, |r| r.detail.price_id))
        .bind(of(records, |r| r.detail.api_key_id))
        .bind(of(records, |r| r.detail.user_ref.as_deref()))
        .bind(of(records, |r| r.detail.project_ref.as_deref()))
        .bind(of(records, |r| text(&r.detail.tags)))
        .bind(of(records, |r| {
            r.detail.usage.as_ref().map(|usage| usage.get())
        }))
        .bind(of(records, |r| text(&r.detail.properties)))
        .bind(of(records, |r| r.corrects))
        .bind(of(records, |r| text(&r.taken)))
        .bind(of(records, |r| r.posting))
        .execute(tx)
        .await?;
    Ok(())
}

/// Moves the lots, and says whose came back from nothing.
async fn move_lots(tx: &mut PgConnection, batch: &Batch) -> Result<BTreeSet<AccountId>, Unwritten> {
    if batch.lots.is_empty() {
        return Ok(BTreeSet::new());
    }
    let moves: Vec<_> = batch.lots.iter().collect();
    let rows = sqlx::query(MOVE_LOTS)
        .bind(of(&moves, |((account, _), _)| account.as_str()))
        .bind(of(&moves, |((_, lot), _)| lot.0))
        .bind(of(&moves, |(_, nanos)| nanos.0))
        .fetch_all(tx)
        .await?;
    expect_all("lot", moves.len(), rows.len())?;
    let mut risen = BTreeSet::new();
    for row in &rows {
        if row.try_get("rose_from_zero")? {
            risen.insert(account_id(row)?);
        }
    }
    Ok(risen)
}

async fn move_debts(tx: &mut PgConnection, batch: &Batch) -> Result<(), Unwritten> {
    if batch.debts.is_empty() {
        return Ok(());
    }
    let moves: Vec<_> = batch.debts.iter().collect();
    let done = sqlx::query(MOVE_DEBTS)
        .bind(of(&moves, |(account, _)| account.as_str()))
        .bind(of(&moves, |(_, nanos)| nanos.0))
        .execute(tx)
        .await?;
    let found = usize::try_from(done.rows_affected()).unwrap_or(usize::MAX);
    expect_all("account", moves.len(), found)
}

async fn move_counters(tx: &mut PgConnection, batch: &Batch) -> Result<(), Unwritten> {
    if batch.counters.is_empty() {
        return Ok(());
    }
    let moves: Vec<_> = batch.counters.iter().collect();
    let starts: Vec<OffsetDateTime> = of(&moves, |((_, _, start), _)| start.to_utc());
    sqlx::query(MOVE_COUNTERS)
        .bind(of(&moves, |((account, _, _), _)| account.as_str()))
        .bind(of(&moves, |((_, key, _), _)| key.scope.to_string()))
        .bind(of(&moves, |((_, key, _), _)| key.resource.to_string()))
        .bind(of(&moves, |((_, key, _), _)| key.window.to_string()))
        .bind(starts)
        .bind(of(&moves, |(_, amount)| amount.0))
        .execute(tx)
        .await?;
    Ok(())
}

/// The withdrawals that are done.
async fn withdraw(tx: &mut PgConnection, batch: &Batch) -> Result<(), Unwritten> {
    if batch.withdrawn.is_empty() {
        return Ok(());
    }
    let done = sqlx::query(WITHDRAWN)
        .bind(of(&batch.withdrawn, |(id, _)| *id))
        .bind(of(&batch.withdrawn, |(_, taken)| taken.0))
        .execute(tx)
        .await?;
    let found = usize::try_from(done.rows_affected()).unwrap_or(usize::MAX);
    expect_all("withdrawal", batch.withdrawn.len(), found)
}

/// Lists of lots for accounts that got credit back on a lot that had nothing left: the store may not have it in its
/// order any more.
async fn new_orders(
    tx: &mut PgConnection,
    risen: &BTreeSet<AccountId>,
) -> Result<Vec<(AccountId, ChangeBody)>, LedgerError> {
    if risen.is_empty() {
        return Ok(Vec::new());
    }
    let accounts: Vec<AccountId> = risen.iter().cloned().collect();
    Ok(orders_of(lots_of(tx, &accounts).await?))
}

/// One column of a batch.
pub(super) fn of<'a, T, C>(rows: &'a [T], column: impl Fn(&'a T) -> C) -> Vec<C> {
    rows.iter().map(column).collect()
}
