//! The flush: one transaction that takes outbox entries into the ledger (rules 19, 24).
//!
//! Every row it writes belongs to the shard whose row it has locked, so two flushes, or a flush and a grant, cannot
//! deadlock: they wait for that one row, or pass it by.

use std::collections::{BTreeSet, HashMap};

use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::change::{LockedShard, column};
use super::quarantine;
use super::write::{of, write};
use crate::ledger::batch::{Batch, Known, corrections_of, ended_in, withdrawals_of};
use crate::ledger::bounds::can_be_summed;
use crate::ledger::sql;
use crate::ledger::unwritten::Unwritten;
use crate::ledger::{Committed, LedgerError};
use crate::quota::{Entry, Epoch, Outbox, ReservationId, ShardId, Unreadable};

const RECORDED: &str = "\
    SELECT id, corrects, outcome, allocation, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, \
           cost_nanos \
    FROM usage_record WHERE id = ANY($1)";
const PENDING: &str = "\
    SELECT withdrawal.id FROM withdrawal \
    JOIN UNNEST($1::uuid[], $2::text[], $3::bigint[]) AS asked (id, account_id, lot_id) USING (id, account_id, lot_id) \
    WHERE taken_nanos IS NULL";
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
        .bind(column(shard))
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
    tx: &mut PgConnection,
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

/// Which of the entries' withdrawals the ledger still waits for.
async fn pending(tx: &mut PgConnection, entries: &[&Entry]) -> Result<BTreeSet<Uuid>, LedgerError> {
    let asked = withdrawals_of(entries);
    if asked.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows = sqlx::query_scalar(PENDING)
        .bind(of(&asked, |(_, withdrawal)| withdrawal.id))
        .bind(of(&asked, |(account, _)| account.as_str()))
        .bind(of(&asked, |(_, withdrawal)| withdrawal.lot.0))
        .fetch_all(tx)
        .await?;
    Ok(rows.into_iter().collect())
}

/// What is recorded of the entries' reservations, with their corrections.
async fn recorded(
    tx: &mut PgConnection,
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

async fn records(tx: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::query(RECORDED).bind(ids).fetch_all(tx).await
}
