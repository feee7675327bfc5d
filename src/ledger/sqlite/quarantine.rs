//! Quarantine (rule 26): entries that the ledger cannot take in for what they say are found and put aside, so that all
//! others pass.
//!
//! They are found by bisection, under savepoints of the flush's own transaction: whatever is put aside, and whatever
//! passes it, is committed together.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::types::Json;
use sqlx::{Connection, Row, SqliteConnection};

use super::change::{LockedShard, account_id};
use super::commit::decide_and_write;
use super::write::text;
use crate::ledger::LedgerError;
use crate::ledger::bounds::can_be_summed;
use crate::ledger::quarantined::name;
use crate::ledger::unwritten::Unwritten;
use crate::quota::{AccountId, Entry, Epoch, Moved, OutSeq, ShardId, Unreadable};

const PUT: &str = "\
    INSERT INTO quarantine (id, shard, seq, account_id, raw, reason, moved) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
    ON CONFLICT DO NOTHING";
const MOVED: &str = "\
    SELECT account_id, moved FROM quarantine \
    WHERE account_id IN (SELECT value FROM json_each(?1)) AND resolved_at IS NULL AND moved IS NOT NULL \
    ORDER BY shard, seq";

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
    tx: &mut SqliteConnection,
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
    tx: &mut SqliteConnection,
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
    tx: &mut SqliteConnection,
    shard: ShardId,
    odd: &[(&Entry, String)],
    unreadable: &[&Unreadable],
) -> Result<(), LedgerError> {
    for (entry, reason) in odd {
        // No store can have moved what is beyond all bounds.
        let moved = can_be_summed(&[entry]).then(|| text(&entry.moved));
        let raw = text(entry).into_bytes();
        put_one(
            tx,
            shard,
            entry.seq,
            reason,
            (Some(&entry.account), raw, moved),
        )
        .await?;
    }
    for odd in unreadable {
        let what = (odd.account.as_ref(), odd.raw.clone(), None);
        put_one(tx, shard, odd.seq, &odd.reason, what).await?;
    }
    Ok(())
}

async fn put_one(
    tx: &mut SqliteConnection,
    shard: ShardId,
    seq: OutSeq,
    reason: &str,
    (account, raw, moved): (Option<&AccountId>, Vec<u8>, Option<String>),
) -> Result<(), LedgerError> {
    tracing::error!(%shard, %seq, reason, "an entry of the outbox is put into quarantine");
    sqlx::query(PUT)
        .bind(name(shard, seq, &raw))
        .bind(shard.0)
        .bind(seq.0)
        .bind(account.map(AccountId::as_str))
        .bind(raw)
        .bind(reason)
        .bind(moved)
        .execute(tx)
        .await?;
    Ok(())
}

/// What the store moved for entries that are in quarantine.
pub(super) async fn moved(
    conn: &mut SqliteConnection,
    accounts: &[&AccountId],
) -> Result<BTreeMap<AccountId, Vec<Moved>>, LedgerError> {
    let rows = sqlx::query(MOVED)
        .bind(json!(accounts).to_string())
        .fetch_all(conn)
        .await?;
    let mut by_account: BTreeMap<AccountId, Vec<Moved>> = BTreeMap::new();
    for row in &rows {
        let Json(moved) = row.try_get("moved")?;
        by_account.entry(account_id(row)?).or_default().push(moved);
    }
    Ok(by_account)
}
