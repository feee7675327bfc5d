//! An account as the ledger knows it: its snapshot, its lots in order, its counters.
//!
//! Loads and changes must tell the store the same story, so both are read here.

use std::collections::BTreeSet;

use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Json;
use sqlx::{Connection, Row, SqliteConnection};

use super::change::account_id;
use super::quarantine;
use crate::catalog::Plan;
use crate::clock::UnixMs;
use crate::ledger::LedgerError;
use crate::ledger::quarantined::count_in;
use crate::ledger::sql::word;
use crate::money::{Amount, Nanos};
use crate::quota::{
    AccountId, AccountImage, ChangeSeq, CounterBalance, CounterKey, Lot, LotId, Mode, Snapshot,
    Status, Version, Withdrawal, WithdrawalReason,
};

const SNAPSHOT: &str = "\
    SELECT account.version, account.keys_version, account.plan_key, account.mode, account.status, account.anchor_at, \
           account.overage_nanos, account.debt_nanos, plan.body AS plan, shard.last_change \
    FROM account JOIN shard ON shard.id = account.shard LEFT JOIN plan ON plan.key = account.plan_key \
    WHERE account.id = ?1";
// priority → earliest expiry → promotional before paid → effective → created
const LOTS: &str = "\
    SELECT id, account_id, balance_nanos, effective_at, expires_at FROM credit_grant \
    WHERE account_id IN (SELECT value FROM json_each(?1)) \
      AND (balance_nanos <> 0 OR id IN (SELECT value FROM json_each(?2))) \
    ORDER BY account_id, priority, expires_at NULLS LAST, kind <> 'promotional', effective_at, created_at, id";
// Next to a single max(), SQLite takes the other columns from the row that has it.
const COUNTERS: &str = "\
    SELECT scope, resource, \"window\", max(window_start) AS window_start, used \
    FROM usage_counter WHERE account_id = ?1 GROUP BY scope, resource, \"window\"";
const WITHDRAWALS: &str = "\
    SELECT id, lot_id, reason, amount_nanos FROM withdrawal \
    WHERE account_id = ?1 AND taken_nanos IS NULL ORDER BY change_seq";

/// What sidecars cache; `None` where there is no such account.
pub async fn snapshot(
    conn: &mut SqliteConnection,
    account: &AccountId,
) -> Result<Option<Snapshot>, LedgerError> {
    let row = row(conn, account).await?;
    row.map(|row| read_snapshot(account, &row)).transpose()
}

/// The lots with something left, in the order they are drawn.
pub async fn lots(
    conn: &mut SqliteConnection,
    account: &AccountId,
) -> Result<Vec<(Lot, Nanos)>, LedgerError> {
    let lots = lots_of(conn, std::slice::from_ref(account), &BTreeSet::new()).await?;
    Ok(lots.into_iter().map(|(_, lot, left)| (lot, left)).collect())
}

/// The same for several accounts, those of one account side by side; of those in `also`, empty ones too.
pub(super) async fn lots_of(
    conn: &mut SqliteConnection,
    accounts: &[AccountId],
    also: &BTreeSet<LotId>,
) -> Result<Vec<(AccountId, Lot, Nanos)>, LedgerError> {
    let rows = sqlx::query(LOTS)
        .bind(json!(accounts).to_string())
        .bind(json!(also).to_string())
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| {
            let expires_at: Option<i64> = row.try_get("expires_at")?;
            let lot = Lot {
                id: LotId(row.try_get("id")?),
                effective_at: UnixMs(row.try_get("effective_at")?),
                expires_at: expires_at.map(UnixMs),
            };
            let left = Nanos(row.try_get("balance_nanos")?);
            Ok((account_id(row)?, lot, left))
        })
        .collect()
}

/// All of an account, in one snapshot (rule 22).
pub(super) async fn image(
    conn: &mut SqliteConnection,
    account: &AccountId,
) -> Result<Option<AccountImage>, LedgerError> {
    // In WAL mode a transaction sees the file as it was at its first read.
    let mut tx = conn.begin().await?;
    let Some(row) = row(&mut tx, account).await? else {
        return Ok(None);
    };
    let mut quarantined = quarantine::moved(&mut tx, &[account]).await?;
    let quarantined = quarantined.remove(account).unwrap_or_default();
    let also = quarantined.iter().flat_map(|moved| &moved.lots);
    let also = also.map(|(lot, _)| *lot).collect();
    let lots = lots_of(&mut tx, std::slice::from_ref(account), &also).await?;
    let mut image = AccountImage {
        snapshot: read_snapshot(account, &row)?,
        lots: lots.into_iter().map(|(_, lot, left)| (lot, left)).collect(),
        debt: Nanos(row.try_get("debt_nanos")?),
        counters: counters(&mut tx, account).await?,
        withdrawals: withdrawals(&mut tx, account).await?,
        as_of: ChangeSeq(row.try_get("last_change")?),
    };
    tx.rollback().await?;
    count_in(&mut image, &quarantined);
    Ok(Some(image))
}

async fn row(
    conn: &mut SqliteConnection,
    account: &AccountId,
) -> Result<Option<SqliteRow>, LedgerError> {
    let row = sqlx::query(SNAPSHOT).bind(account.as_str());
    Ok(row.fetch_optional(conn).await?)
}

fn read_snapshot(account: &AccountId, row: &SqliteRow) -> Result<Snapshot, LedgerError> {
    let plan: Option<Json<Plan>> = row.try_get("plan")?;
    let (limits, markup_percent, throttle) = plan.map_or_else(Default::default, |Json(plan)| {
        (plan.quotas, plan.markup_percent, plan.throttle)
    });
    let anchor_at: Option<i64> = row.try_get("anchor_at")?;
    Ok(Snapshot {
        account: account.clone(),
        version: Version(row.try_get("version")?),
        keys_version: row.try_get("keys_version")?,
        plan: row.try_get("plan_key")?,
        mode: word::<Mode, _>(row, "mode")?,
        status: word::<Status, _>(row, "status")?,
        anchor_at: anchor_at.map(UnixMs),
        limits,
        overage: Nanos(row.try_get("overage_nanos")?),
        markup_percent,
        throttle,
    })
}

async fn counters(
    conn: &mut SqliteConnection,
    account: &AccountId,
) -> Result<Vec<CounterBalance>, LedgerError> {
    let rows = sqlx::query(COUNTERS)
        .bind(account.as_str())
        .fetch_all(conn)
        .await?;
    rows.iter().map(read_counter).collect()
}

/// A counter's row, in its latest span.
pub(super) fn read_counter(row: &SqliteRow) -> Result<CounterBalance, LedgerError> {
    Ok(CounterBalance {
        key: CounterKey {
            scope: word(row, "scope")?,
            resource: word(row, "resource")?,
            window: word(row, "window")?,
        },
        start: UnixMs(row.try_get("window_start")?),
        used: Amount(row.try_get("used")?),
    })
}

async fn withdrawals(
    conn: &mut SqliteConnection,
    account: &AccountId,
) -> Result<Vec<Withdrawal>, LedgerError> {
    let rows = sqlx::query(WITHDRAWALS)
        .bind(account.as_str())
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Withdrawal {
                id: row.try_get("id")?,
                lot: LotId(row.try_get("lot_id")?),
                reason: word::<WithdrawalReason, _>(row, "reason")?,
                amount: Nanos(row.try_get("amount_nanos")?),
            })
        })
        .collect()
}
