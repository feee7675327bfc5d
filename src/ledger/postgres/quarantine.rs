//! Quarantine (rule 26): entries that the ledger cannot take in for what they say are found and put aside, so that all
//! others pass.
//!
//! They are found by bisection, under savepoints of the flush's own transaction: whatever is put aside, and whatever
//! passes it, is committed together.

use std::collections::BTreeMap;

use sqlx::types::Json;
use sqlx::{Connection, PgConnection, Row};

use super::change::{LockedShard, account_id, column};
use super::commit::decide_and_write;
use super::write::of;
use crate::ledger::LedgerError;
use crate::ledger::bisection::{Bisection, TakenIn};
use crate::ledger::quarantined::put_aside;
use crate::ledger::unwritten::Unwritten;
use crate::quota::{AccountId, Entry, Epoch, Moved, ShardId, Unreadable};

const PUT: &str = "\
    INSERT INTO quarantine (id, shard, seq, account_id, raw, reason, moved) \
    SELECT id, $1, seq, account_id, raw, reason, moved::json \
    FROM UNNEST($2::uuid[], $3::bigint[], $4::text[], $5::bytea[], $6::text[], $7::text[]) \
    AS odd (id, seq, account_id, raw, reason, moved) ON CONFLICT DO NOTHING";
const MOVED: &str = "\
    SELECT account_id, moved FROM quarantine \
    WHERE account_id = ANY($1) AND resolved_at IS NULL AND moved IS NOT NULL ORDER BY shard, seq";

/// Takes entries into the ledger, in their order, but for those that are odd.
pub(super) async fn take_in<'a>(
    tx: &mut PgConnection,
    locked: &mut LockedShard,
    entries: &[&'a Entry],
) -> Result<TakenIn<'a>, LedgerError> {
    let stands = locked.row.home.as_ref().map(|home| home.epoch);
    let mut bisection = Bisection::of(entries);
    while let Some(part) = bisection.next_part() {
        let written = try_to_write(tx, locked, part, stands).await?;
        bisection.tell(part, written);
    }
    Ok(bisection.taken_in())
}

/// Writes entries, or nothing and says what is odd about them. What was moved in the epoch that `stands` can be undone.
pub(in crate::ledger) async fn try_to_write(
    tx: &mut PgConnection,
    locked: &mut LockedShard,
    entries: &[&Entry],
    stands: Option<Epoch>,
) -> Result<Result<(), String>, LedgerError> {
    let before = locked.row.clone();
    let mut savepoint = tx.begin().await?;
    match decide_and_write(&mut savepoint, locked, entries, stands).await {
        Ok(()) => {
            savepoint.commit().await?;
            Ok(Ok(()))
        }
        Err(Unwritten::Odd(reason)) => {
            savepoint.rollback().await?;
            locked.row = before;
            Ok(Err(reason))
        }
        Err(Unwritten::Ledger(error)) => Err(error),
    }
}

/// Puts aside what could not be taken in, and what could not be read.
pub(super) async fn put(
    tx: &mut PgConnection,
    shard: ShardId,
    odd: &[(&Entry, String)],
    unreadable: &[&Unreadable],
) -> Result<(), LedgerError> {
    let rows = put_aside(shard, odd, unreadable);
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(PUT)
        .bind(column(shard))
        .bind(of(&rows, |row| row.id))
        .bind(of(&rows, |row| row.seq.0))
        .bind(of(&rows, |row| row.account.map(AccountId::as_str)))
        .bind(of(&rows, |row| row.raw.as_slice()))
        .bind(of(&rows, |row| row.reason.as_str()))
        .bind(of(&rows, |row| row.moved.as_deref()))
        .execute(tx)
        .await?;
    Ok(())
}

/// What the store moved for entries that are in quarantine.
pub(super) async fn moved(
    conn: &mut PgConnection,
    accounts: &[&str],
) -> Result<BTreeMap<AccountId, Vec<Moved>>, LedgerError> {
    let rows = sqlx::query(MOVED).bind(accounts).fetch_all(conn).await?;
    let mut by_account: BTreeMap<AccountId, Vec<Moved>> = BTreeMap::new();
    for row in &rows {
        let Json(moved) = row.try_get("moved")?;
        by_account.entry(account_id(row)?).or_default().push(moved);
    }
    Ok(by_account)
}
