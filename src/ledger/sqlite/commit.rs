//! The flush: one transaction that takes outbox entries into the ledger (rules 19, 24).
//!
//! It has the file to itself, so two flushes, or a flush and a grant, come one after the other.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::change::LockedShard;
use super::rows::Rows;
use super::write::{hex, write};
use super::{file, quarantine};
use crate::ledger::batch::{Batch, Known, corrections_of, ended_in, withdrawals_of};
use crate::ledger::bounds::can_be_summed;
use crate::ledger::sql;
use crate::ledger::unwritten::Unwritten;
use crate::ledger::{Committed, LedgerError};
use crate::quota::{Entry, Epoch, Outbox, ReservationId, ShardId, Unreadable};

static RECORDED: Rows = Rows::new(
    "SELECT id, corrects, outcome, allocation, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, \
            cost_nanos \
    FROM usage_record WHERE id IN (VALUES ",
    1,
    ")",
);
const PENDING: &str = "\
    SELECT withdrawal.id FROM withdrawal JOIN json_each(?1) AS asked \
    ON withdrawal.id = unhex(asked.value ->> 0) AND account_id = asked.value ->> 1 AND lot_id = asked.value ->> 2 \
    WHERE taken_nanos IS NULL";
const RAISE_FLUSHED_SEQ: &str = "UPDATE shard SET flushed_seq = ?2 WHERE id = ?1";

// holds: 3, never lost; 4, never twice
pub(super) async fn commit(
    conn: &mut SqliteConnection,
    shard: ShardId,
    outbox: &Outbox,
) -> Result<Committed, LedgerError> {
    let mut tx = file::begin(conn).await?;
    let mut locked = LockedShard::lock(&mut tx, shard).await?;
    if !locked.row.is_of(outbox) {
        tx.rollback().await?;
        return Ok(Committed::OtherServer);
    }
    let flushed = locked.row.flushed_seq;
    let last_change = locked.row.last_change;
    let fresh = outbox
        .entries
        .iter()
        .filter(|entry| locked.row.is_news(entry));
    let fresh: Vec<&Entry> = fresh.collect();
    let taken = quarantine::take_in(&mut tx, &mut locked, &fresh).await?;
    // Nobody can tell of which epoch they are, so whatever their number, they are put aside, each once.
    let unreadable = outbox.unreadable.iter();
    // Where only a part of the entries was looked at, what comes after it waits for the next flush.
    let unreadable = unreadable.filter(|odd| taken.is_all || Some(odd.seq) < taken.upto);
    let unreadable: Vec<&Unreadable> = unreadable.collect();
    quarantine::put(&mut tx, shard, &taken.odd, &unreadable).await?;
    let upto = unreadable.iter().map(|odd| odd.seq).chain(taken.upto).max();
    let Some(upto) = upto else {
        tx.rollback().await?;
        return Ok(Committed::UpTo {
            entry: flushed,
            changed: false,
        });
    };
    sqlx::query(RAISE_FLUSHED_SEQ)
        .bind(shard.0)
        .bind(upto.max(flushed).0)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(Committed::UpTo {
        // What was not looked at yet, of whatever number, must not be forgotten.
        entry: if taken.is_all {
            upto.max(flushed)
        } else {
            upto
        },
        changed: locked.row.last_change > last_change,
    })
}

/// Decides entries by what the ledger knows of them, and writes that.
pub(super) async fn decide_and_write(
    tx: &mut SqliteConnection,
    locked: &mut LockedShard,
    entries: &[&Entry],
    stands: Option<Epoch>,
) -> Result<(), Unwritten> {
    if !can_be_summed(entries) {
        let reason = "its amounts are beyond what a balance may be";
        return Err(Unwritten::Odd(reason.into()));
    }
    let known = recorded(tx, entries).await?;
    let pending = pending(tx, entries).await?;
    write(tx, locked, Batch::decided(entries, known, pending, stands)).await
}

/// What is recorded of the entries' reservations, with their corrections.
async fn recorded(
    tx: &mut SqliteConnection,
    entries: &[&Entry],
) -> Result<HashMap<ReservationId, Known>, LedgerError> {
    let ids: Vec<Uuid> = ended_in(entries).into_iter().collect();
    let mut rows = records(tx, &ids).await?;
    if !rows.is_empty() {
        let corrections = corrections_of(&sql::ids(&rows)?);
        rows.extend(records(tx, &corrections).await?);
    }
    sql::recorded(&rows)
}

async fn records(tx: &mut SqliteConnection, ids: &[Uuid]) -> Result<Vec<SqliteRow>, sqlx::Error> {
    RECORDED.fetch(tx, ids, |row, id| row.bind(*id)).await
}

/// Which of the entries' withdrawals the ledger still waits for.
async fn pending(
    tx: &mut SqliteConnection,
    entries: &[&Entry],
) -> Result<BTreeSet<Uuid>, LedgerError> {
    let asked = withdrawals_of(entries).into_iter();
    let asked = asked.map(|(account, asked)| json!([hex(asked.id), account, asked.lot]));
    let asked: Vec<Value> = asked.collect();
    if asked.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows = sqlx::query_scalar(PENDING)
        .bind(Value::from(asked).to_string())
        .fetch_all(tx)
        .await?;
    Ok(rows.into_iter().collect())
}
