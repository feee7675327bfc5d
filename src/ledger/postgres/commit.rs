//! The flush: one transaction that takes outbox entries into the ledger (rules 19, 24).
//!
//! Every row it writes belongs to the shard whose row it has locked, so two flushes, or a flush and a grant, cannot
//! deadlock: they wait for that one row, or pass it by.

use std::collections::{BTreeSet, HashMap};

use sqlx::types::Json;
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::change::{LockedShard, column};
use super::quarantine;
use super::write::{of, write};
use crate::ledger::batch::{Batch, Known};
use crate::ledger::bounds::can_be_summed;
use crate::ledger::decide::{Recorded, Taken, correction_id};
use crate::ledger::record::Numbers;
use crate::ledger::unwritten::Unwritten;
use crate::ledger::{Committed, LedgerError};
use crate::money::Nanos;
use crate::quota::{
    AccountId, Entry, EntryKind, Epoch, Outbox, ReservationId, ShardId, Unreadable, Withdrawal,
};

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
    let asked = entries.iter().filter_map(|entry| match &entry.kind {
        EntryKind::Withdrawn(withdrawal) => Some((&entry.account, withdrawal)),
        EntryKind::Ended(_) | EntryKind::Repaid | EntryKind::Expired => None,
    });
    let asked: Vec<(&AccountId, &Withdrawal)> = asked.collect();
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
