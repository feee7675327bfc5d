//! An account as the ledger knows it: its snapshot, its lots in order, its counters.
//!
//! Loads and changes must tell the store the same story, so both are read here.

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Acquire, PgConnection, Row};
use time::OffsetDateTime;

use super::quarantine;
use crate::catalog::Plan;
use crate::clock::UnixMs;
use crate::ledger::LedgerError;
use crate::ledger::quarantined::count_in;
use crate::ledger::sql::word;
use crate::money::{Amount, Nanos};
use crate::quota::{
    AccountId, AccountImage, ChangeSeq, CounterBalance, CounterKey, Lot, LotId, Mode, Moved,
    Snapshot, Status, Version, Withdrawal,
};

const SNAPSHOT: &str = "\
    SELECT account.version, account.keys_version, account.plan_key, account.mode, account.status, account.anchor_at, \
           account.overage_nanos, account.debt_nanos, plan.body AS plan, shard.last_change \
    FROM account JOIN shard ON shard.id = account.shard LEFT JOIN plan ON plan.key = account.plan_key \
    WHERE account.id = $1";
/// The lots of accounts that pass a test, those of one account side by side.
macro_rules! lots_where {
    ($test:literal) => {
        // priority → earliest expiry → promotional before paid → effective → created
        concat!(
            "SELECT id, account_id, balance_nanos, effective_at, expires_at FROM credit_grant \
            WHERE account_id = ANY($1) AND (",
            $test,
            ") ORDER BY account_id, priority, expires_at NULLS LAST, kind <> 'promotional', effective_at, created_at, id"
        )
    };
}
const LOTS: &str = lots_where!("balance_nanos <> 0");
const LOTS_AND_THESE: &str = lots_where!("balance_nanos <> 0 OR id = ANY($2)");
const PENDING: &str = "\
    SELECT id, lot_id, reason, amount_nanos FROM withdrawal \
    WHERE account_id = $1 AND taken_nanos IS NULL AND change_seq <= $2 ORDER BY change_seq";
const COUNTERS: &str = "\
    SELECT DISTINCT ON (scope, resource, \"window\") scope, resource, \"window\", window_start, used \
    FROM usage_counter WHERE account_id = $1 ORDER BY scope, resource, \"window\", window_start DESC";
const ONE_SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// What sidecars cache; `None` where there is no such account.
pub async fn snapshot(
    conn: &mut PgConnection,
    account: &AccountId,
) -> Result<Option<Snapshot>, LedgerError> {
    let row = row(conn, account).await?;
    row.map(|row| read_snapshot(account, &row)).transpose()
}

/// The lots with something left, in the order they are drawn.
pub async fn lots(
    conn: &mut PgConnection,
    account: &AccountId,
) -> Result<Vec<(Lot, Nanos)>, LedgerError> {
    let lots = lots_of(conn, std::slice::from_ref(account)).await?;
    Ok(lots.into_iter().map(|(_, lot, left)| (lot, left)).collect())
}

/// The same for several accounts, those of one account side by side.
pub(super) async fn lots_of(
    conn: &mut PgConnection,
    accounts: &[AccountId],
) -> Result<Vec<(AccountId, Lot, Nanos)>, LedgerError> {
    let names: Vec<&str> = accounts.iter().map(AccountId::as_str).collect();
    let rows = sqlx::query(LOTS).bind(names).fetch_all(conn).await?;
    rows.iter().map(read_lot).collect()
}

fn read_lot(row: &PgRow) -> Result<(AccountId, Lot, Nanos), LedgerError> {
    let effective_at: OffsetDateTime = row.try_get("effective_at")?;
    let expires_at: Option<OffsetDateTime> = row.try_get("expires_at")?;
    let lot = Lot {
        id: LotId(row.try_get("id")?),
        effective_at: effective_at.into(),
        expires_at: expires_at.map(UnixMs::from),
    };
    let left = Nanos(row.try_get("balance_nanos")?);
    Ok((super::change::account_id(row)?, lot, left))
}

/// All of an account, in one snapshot (rule 22).
pub(super) async fn image(
    conn: &mut PgConnection,
    account: &AccountId,
) -> Result<Option<AccountImage>, LedgerError> {
    let mut tx = conn.begin().await?;
    sqlx::query(ONE_SNAPSHOT).execute(&mut *tx).await?;
    let Some(row) = row(&mut tx, account).await? else {
        return Ok(None);
    };
    let as_of = ChangeSeq(row.try_get("last_change")?);
    let mut image = AccountImage {
        snapshot: read_snapshot(account, &row)?,
        lots: lots(&mut tx, account).await?,
        debt: Nanos(row.try_get("debt_nanos")?),
        counters: counters(&mut tx, account).await?,
        withdrawals: pending(&mut tx, account, as_of).await?,
        as_of,
    };
    let mut quarantined = quarantine::moved(&mut tx, &[account.as_str()]).await?;
    if let Some(moved) = quarantined.remove(account) {
        image.lots = lots_and_these(&mut tx, account, &moved).await?;
        count_in(&mut image, &moved);
    }
    tx.rollback().await?;
    Ok(Some(image))
}

/// The lots with something left, and those that movements name.
async fn lots_and_these(
    conn: &mut PgConnection,
    account: &AccountId,
    moved: &[Moved],
) -> Result<Vec<(Lot, Nanos)>, LedgerError> {
    let named = moved.iter().flat_map(|moved| &moved.lots);
    let named: Vec<i64> = named.map(|(lot, _)| lot.0).collect();
    let rows = sqlx::query(LOTS_AND_THESE)
        .bind([account.as_str()])
        .bind(named)
        .fetch_all(conn)
        .await?;
    let lots = rows.iter().map(|row| {
        let (_, lot, left) = read_lot(row)?;
        Ok((lot, left))
    });
    lots.collect()
}

/// What the ledger wants taken out of its lots and has no entry of yet.
async fn pending(
    conn: &mut PgConnection,
    account: &AccountId,
    as_of: ChangeSeq,
) -> Result<Vec<Withdrawal>, LedgerError> {
    let rows = sqlx::query(PENDING)
        .bind(account.as_str())
        .bind(as_of.0)
        .fetch_all(conn)
        .await?;
    let withdrawals = rows.iter().map(|row| {
        Ok(Withdrawal {
            id: row.try_get("id")?,
            lot: LotId(row.try_get("lot_id")?),
            reason: word(row, "reason")?,
            amount: Nanos(row.try_get("amount_nanos")?),
        })
    });
    withdrawals.collect()
}

async fn row(conn: &mut PgConnection, account: &AccountId) -> Result<Option<PgRow>, LedgerError> {
    let row = sqlx::query(SNAPSHOT).bind(account.as_str());
    Ok(row.fetch_optional(conn).await?)
}

fn read_snapshot(account: &AccountId, row: &PgRow) -> Result<Snapshot, LedgerError> {
    let plan: Option<Json<Plan>> = row.try_get("plan")?;
    let (limits, markup_percent, throttle) = plan.map_or_else(Default::default, |Json(plan)| {
        (plan.quotas, plan.markup_percent, plan.throttle)
    });
    let anchor_at: Option<OffsetDateTime> = row.try_get("anchor_at")?;
    Ok(Snapshot {
        account: account.clone(),
        version: Version(row.try_get("version")?),
        keys_version: row.try_get("keys_version")?,
        plan: row.try_get("plan_key")?,
        mode: word::<Mode, _>(row, "mode")?,
        status: word::<Status, _>(row, "status")?,
        anchor_at: anchor_at.map(UnixMs::from),
        limits,
        overage: Nanos(row.try_get("overage_nanos")?),
        markup_percent,
        throttle,
    })
}

async fn counters(
    conn: &mut PgConnection,
    account: &AccountId,
) -> Result<Vec<CounterBalance>, LedgerError> {
    let rows = sqlx::query(COUNTERS)
        .bind(account.as_str())
        .fetch_all(conn)
        .await?;
    rows.iter().map(read_counter).collect()
}

/// A counter's row, in its latest span.
pub(super) fn read_counter(row: &PgRow) -> Result<CounterBalance, LedgerError> {
    let start: OffsetDateTime = row.try_get("window_start")?;
    Ok(CounterBalance {
        key: CounterKey {
            scope: word(row, "scope")?,
            resource: word(row, "resource")?,
            window: word(row, "window")?,
        },
        start: start.into(),
        used: Amount(row.try_get("used")?),
    })
}
