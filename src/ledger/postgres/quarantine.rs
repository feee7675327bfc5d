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
use super::write::{Unwritten, json, of};
use crate::ledger::LedgerError;
use crate::ledger::bounds::can_be_summed;
use crate::ledger::quarantined::name;
use crate::quota::{AccountId, Entry, Epoch, Moved, OutSeq, ShardId, Unreadable};

const PUT: &str = "\
    INSERT INTO quarantine (id, shard, seq, account_id, raw, reason, moved) \
    SELECT id, $1, seq, account_id, raw, reason, moved::json \
    FROM UNNEST($2::uuid[], $3::bigint[], $4::text[], $5::bytea[], $6::text[], $7::text[]) \
    AS odd (id, seq, account_id, raw, reason, moved) ON CONFLICT DO NOTHING";
const MOVED: &str = "\
    SELECT account_id, moved FROM quarantine \
    WHERE account_id = ANY($1) AND resolved_at IS NULL AND moved IS NOT NULL ORDER BY shard, seq";

/// So many are put aside in one transaction, which has a deadline: what comes after them waits for the next flush.
const ODD_AT_ONCE: usize = 8;

/// How far entries were taken into the ledger.
pub(super) struct TakenIn<'a> {
    /// The last one that was dealt with.
    pub upto: Option<OutSeq>,
    /// Whether that was the last one of all.
    pub is_all: bool,
    /// Those that could not be taken in, and why.
    pub odd: Vec<(&'a Entry, String)>,
}

/// Takes entries into the ledger, in their order, but for those that are odd.
pub(super) async fn take_in<'a>(
    tx: &mut PgConnection,
    locked: &mut LockedShard,
    entries: &[&'a Entry],
) -> Result<TakenIn<'a>, LedgerError> {
    let mut taken = TakenIn {
        upto: None,
        is_all: true,
        odd: Vec::new(),
    };
    let stands = locked.row.home.as_ref().map(|home| home.epoch);
    // The last part is the one whose turn it is.
    let mut parts = vec![entries];
    while let Some(part) = parts.pop() {
        let Some(last) = part.last() else { continue };
        if let Err(reason) = try_to_write(tx, locked, part, stands).await? {
            if let [odd] = part {
                taken.odd.push((odd, reason));
            } else {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
                continue;
            }
        }
        taken.upto = Some(last.seq);
        if taken.odd.len() == ODD_AT_ONCE {
            break;
        }
    }
    taken.is_all = parts.is_empty();
    Ok(taken)
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
    let odd = odd.iter().map(|(entry, reason)| Aside {
        seq: entry.seq,
        account: Some(&entry.account),
        raw: json(entry).into_bytes(),
        reason: clean(reason),
        // No store can have moved what is beyond all bounds.
        moved: can_be_summed(&[entry]).then(|| json(&entry.moved)),
    });
    let unreadable = unreadable.iter().map(|odd| Aside {
        seq: odd.seq,
        account: odd.account.as_ref(),
        raw: odd.raw.clone(),
        reason: clean(&odd.reason),
        moved: None,
    });
    let rows: Vec<Aside> = odd.chain(unreadable).collect();
    if rows.is_empty() {
        return Ok(());
    }
    for Aside { seq, reason, .. } in &rows {
        tracing::error!(%shard, %seq, reason, "an entry of the outbox is put into quarantine");
    }
    sqlx::query(PUT)
        .bind(column(shard))
        .bind(of(&rows, |row| name(shard, row.seq, &row.raw)))
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

/// One line of the table.
struct Aside<'a> {
    seq: OutSeq,
    account: Option<&'a AccountId>,
    raw: Vec<u8>,
    reason: String,
    moved: Option<String>,
}

/// No text column takes a NUL, and what is put aside must not be refused again.
fn clean(reason: &str) -> String {
    reason.replace('\0', "\u{fffd}")
}
