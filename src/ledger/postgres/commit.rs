//! The flush: one transaction that takes outbox entries into the ledger (rules 19, 24).
//!
//! Every row it writes belongs to the shard whose row it has locked, so two flushes, or a flush and a grant, cannot
//! deadlock: they wait for that one row, or pass it by.

use std::collections::{BTreeSet, HashMap};

use sqlx::types::Json;
use sqlx::{Connection, PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::account::lots_of;
use super::change::{LockedShard, account_id, column};
use crate::ledger::batch::{Batch, Known, UsageRecord};
use crate::ledger::decide::{Recorded, Taken, correction_id};
use crate::ledger::record::Numbers;
use crate::ledger::{Committed, LedgerError};
use crate::money::Nanos;
use crate::quota::{
    AccountId, ChangeBody, Entry, EntryKind, OutSeq, Outbox, ReservationId, ShardId,
};

const RECORDED: &str = "\
    SELECT id, corrects, outcome, allocation, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, \
           cost_nanos \
    FROM usage_record WHERE id = ANY($1)";
const RECORD: &str = "\
    INSERT INTO usage_record (id, account_id, occurred_at, route, provider, model, outcome, overrun, input_tokens, \
        output_tokens, cache_read_tokens, cache_write_tokens, reserved_nanos, charged_nanos, cost_nanos, price_id, \
        api_key_id, user_ref, project_ref, tags, usage, properties, corrects, allocation) \
    SELECT id, account_id, occurred_at, route, provider, model, outcome, overrun, input_tokens, \
        output_tokens, cache_read_tokens, cache_write_tokens, reserved_nanos, charged_nanos, cost_nanos, price_id, \
        api_key_id, user_ref, project_ref, tags::json, usage::json, properties::json, corrects, allocation::json \
    FROM UNNEST($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], \
        $8::boolean[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], \
        $15::bigint[], $16::bigint[], $17::uuid[], $18::text[], $19::text[], $20::text[], $21::text[], $22::text[], \
        $23::uuid[], $24::text[]) \
    AS new (id, account_id, occurred_at, route, provider, model, outcome, overrun, input_tokens, output_tokens, \
        cache_read_tokens, cache_write_tokens, reserved_nanos, charged_nanos, cost_nanos, price_id, api_key_id, \
        user_ref, project_ref, tags, usage, properties, corrects, allocation)";
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
const RAISE_FLUSHED_SEQ: &str = "UPDATE shard SET flushed_seq = $2 WHERE id = $1";

// holds: 3, never lost; 4, never twice
pub(super) async fn commit(
    conn: &mut PgConnection,
    shard: ShardId,
    outbox: &Outbox,
) -> Result<Committed, LedgerError> {
    let mut tx = conn.begin().await?;
    let Some(mut locked) = LockedShard::try_lock(&mut tx, shard).await? else {
        tx.rollback().await?;
        return Ok(Committed::Busy);
    };
    if !locked.row.is_of(outbox) {
        tx.rollback().await?;
        return Ok(Committed::OtherServer);
    }
    let flushed = locked.row.flushed_seq;
    let fresh = outbox.entries.iter().filter(|entry| entry.seq > flushed);
    let fresh: Vec<&Entry> = fresh.collect();
    let Some(last) = fresh.last().map(|entry| entry.seq) else {
        tx.rollback().await?;
        return Ok(Committed::UpTo {
            entry: flushed,
            changed: false,
        });
    };
    let last_change = locked.row.last_change;
    let known = recorded(&mut tx, &fresh).await?;
    let batch = Batch::decided(&fresh, known, BTreeSet::new());
    write(&mut tx, &mut locked, batch, last).await?;
    tx.commit().await?;
    Ok(Committed::UpTo {
        entry: last,
        changed: locked.row.last_change > last_change,
    })
}

async fn write(
    tx: &mut PgConnection,
    locked: &mut LockedShard,
    batch: Batch,
    last: OutSeq,
) -> Result<(), LedgerError> {
    insert_records(tx, &batch.records).await?;
    let risen = move_lots(tx, &batch).await?;
    move_debts(tx, &batch).await?;
    move_counters(tx, &batch).await?;
    let mut changes = batch.rests;
    changes.extend(new_orders(tx, &risen).await?);
    locked.append_all(tx, &changes).await?;
    sqlx::query(RAISE_FLUSHED_SEQ)
        .bind(column(locked.id))
        .bind(last.0)
        .execute(tx)
        .await?;
    Ok(())
}

/// What is recorded of the entries' reservations, with their corrections.
async fn recorded(
    tx: &mut PgConnection,
    entries: &[&Entry],
) -> Result<HashMap<ReservationId, Known>, LedgerError> {
    let ids = entries.iter().filter_map(|entry| match &entry.kind {
        EntryKind::Ended(ended) => Some(ended.id),
        EntryKind::Repaid | EntryKind::Expired | EntryKind::Withdrawn(_) => None,
    });
    let ids: BTreeSet<Uuid> = ids.flat_map(|id| [id.0, correction_id(id)]).collect();
    let ids: Vec<Uuid> = ids.into_iter().collect();
    let rows = sqlx::query(RECORDED).bind(&ids).fetch_all(tx).await?;

    let mut known = HashMap::new();
    let mut corrections = Vec::new();
    for row in &rows {
        let Json(taken): Json<Taken> = row.try_get("allocation")?;
        if let Some(corrects) = row.try_get::<Option<Uuid>, _>("corrects")? {
            corrections.push((ReservationId(corrects), taken));
            continue;
        }
        let outcome: &str = row.try_get("outcome")?;
        let outcome = outcome
            .parse()
            .map_err(|()| LedgerError::Nonsense(format!("a record is `{outcome}`")))?;
        let recorded = Recorded {
            outcome,
            corrected: false,
            taken,
        };
        let numbers = Numbers {
            input_tokens: row.try_get("input_tokens")?,
            output_tokens: row.try_get("output_tokens")?,
            cache_read_tokens: row.try_get("cache_read_tokens")?,
            cache_write_tokens: row.try_get("cache_write_tokens")?,
            cost: Nanos(row.try_get("cost_nanos")?),
        };
        known.insert(
            ReservationId(row.try_get("id")?),
            Known { recorded, numbers },
        );
    }
    for (id, taken) in corrections {
        let corrected: &mut Known = known.get_mut(&id).ok_or_else(|| {
            LedgerError::Nonsense(format!("a correction corrects {id}, which is not there"))
        })?;
        corrected.recorded.corrected = true;
        corrected.recorded.taken = std::mem::take(&mut corrected.recorded.taken).and(&taken);
    }
    Ok(known)
}

async fn insert_records(tx: &mut PgConnection, records: &[UsageRecord]) -> Result<(), LedgerError> {
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
        .bind(of(records, |r| json(&r.detail.tags)))
        .bind(of(records, |r| {
            r.detail.usage.as_ref().map(|usage| usage.get())
        }))
        .bind(of(records, |r| json(&r.detail.properties)))
        .bind(of(records, |r| r.corrects))
        .bind(of(records, |r| json(&r.taken)))
        .execute(tx)
        .await?;
    Ok(())
}

/// Moves the lots, and says whose came back from nothing.
async fn move_lots(
    tx: &mut PgConnection,
    batch: &Batch,
) -> Result<BTreeSet<AccountId>, LedgerError> {
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

async fn move_debts(tx: &mut PgConnection, batch: &Batch) -> Result<(), LedgerError> {
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

async fn move_counters(tx: &mut PgConnection, batch: &Batch) -> Result<(), LedgerError> {
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
    let mut orders: Vec<(AccountId, ChangeBody)> = Vec::new();
    for (account, lot, _) in lots_of(tx, &accounts).await? {
        if orders.last().is_none_or(|(last, _)| *last != account) {
            orders.push((account, ChangeBody::default()));
        }
        if let Some((_, body)) = orders.last_mut() {
            body.lots.get_or_insert_default().push(lot);
        }
    }
    Ok(orders)
}

/// A movement of what is not there would be lost money: nothing is committed then.
fn expect_all(what: &str, wanted: usize, found: usize) -> Result<(), LedgerError> {
    if wanted == found {
        return Ok(());
    }
    Err(LedgerError::Nonsense(format!(
        "entries move {wanted} {what}s, and the ledger has {found} of them"
    )))
}

/// One column of a batch.
fn of<'a, T, C>(rows: &'a [T], column: impl Fn(&'a T) -> C) -> Vec<C> {
    rows.iter().map(column).collect()
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("what is recorded has string keys only")
}
