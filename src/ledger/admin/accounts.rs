//! Accounts: made, listed, edited.
//!
//! An edit is exact at the next reserve on every sidecar, because it bumps the version that each reserve carries.

use serde::Serialize;
use sqlx::Row;
use time::OffsetDateTime;

use super::{Admin, no_account, no_moment};
use crate::ledger::LedgerError;
use crate::ledger::sql::account_id;
use crate::ledger::tx::{Tx, on};
use crate::money::Nanos;
use crate::quota::{AccountId, ChangeBody, Mode, Status};

const CREATE: &str = "\
    INSERT INTO account (id, shard, plan_key) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING";
const EDIT: &str = "\
    UPDATE account SET mode = coalesce($2, mode), status = coalesce($3, status), \
           overage_nanos = coalesce($4, overage_nanos), plan_key = CASE WHEN $5 THEN $6 ELSE plan_key END \
    WHERE id = $1";
const HAS_PLAN: &str = "SELECT EXISTS (SELECT 1 FROM plan WHERE key = $1)";
const HAS_ACCOUNT: &str = "SELECT EXISTS (SELECT 1 FROM account WHERE id = $1)";
const PAGE: &str = "\
    SELECT id AS account_id, plan_key, mode, status, created_at FROM account WHERE id > $1 ORDER BY id LIMIT $2";

/// What an edit changes; `None` leaves it as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountEdit {
    /// How strictly it is held.
    pub mode: Option<Mode>,
    /// Whether it may call.
    pub status: Option<Status>,
    /// How far below zero its wallet may go.
    pub overage: Option<Nanos>,
    /// Its plan; `Some(None)` takes it off its plan.
    pub plan: Option<Option<String>>,
}

/// An account in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountRow {
    /// Which.
    pub account: AccountId,
    /// The key of its plan.
    pub plan: Option<String>,
    /// How strictly it is held.
    pub mode: String,
    /// Whether it may call.
    pub status: String,
    /// When it was made.
    #[serde(serialize_with = "time::serde::rfc3339::serialize")]
    pub created_at: OffsetDateTime,
}

impl Admin {
    /// Makes an account.
    pub async fn create_account(
        &self,
        account: &AccountId,
        plan: Option<&str>,
    ) -> Result<(), LedgerError> {
        let shard = account.shard(self.installation.shards);
        self.write(async |tx: &mut Tx<'_>| {
            // The store learns nothing of it, it is cold there; the lock keeps to the order of all changes.
            tx.lock(shard).await?;
            plan_exists(tx, plan).await?;
            let created = on!(tx, conn, ledger => {
                let create = sqlx::query(CREATE).bind(account.as_str());
                let create = create.bind(ledger::change::column(shard)).bind(plan);
                create.execute(conn).await?.rows_affected()
            });
            if created == 0 {
                let message = format!("there is an account `{account}` already");
                return Err(LedgerError::Invalid(message));
            }
            Ok(())
        })
        .await
    }

    /// Edits an account.
    pub async fn edit_account(
        &self,
        account: &AccountId,
        edit: &AccountEdit,
    ) -> Result<(), LedgerError> {
        self.change(account, async |tx: &mut Tx<'_>| {
            let plan = edit.plan.as_ref().and_then(Option::as_deref);
            plan_exists(tx, plan).await?;
            let edited = on!(tx, conn => {
                let edited = sqlx::query(EDIT)
                    .bind(account.as_str())
                    .bind(edit.mode.map(mode_word))
                    .bind(edit.status.map(status_word))
                    .bind(edit.overage.map(|overage| overage.0))
                    .bind(edit.plan.is_some())
                    .bind(plan);
                edited.execute(conn).await?.rows_affected()
            });
            if edited == 0 {
                return Err(no_account(account));
            }
            Ok(((), Some(ChangeBody::default())))
        })
        .await
    }

    /// The accounts after one, by id, at most `max`.
    pub async fn accounts_after(
        &self,
        after: Option<&AccountId>,
        max: usize,
    ) -> Result<Vec<AccountRow>, LedgerError> {
        self.read(async |tx: &mut Tx<'_>| {
            on!(tx, conn, ledger => {
                let rows = sqlx::query(PAGE)
                    .bind(after.map_or("", AccountId::as_str))
                    .bind(i64::try_from(max).unwrap_or(i64::MAX))
                    .fetch_all(conn)
                    .await?;
                let accounts = rows.iter().map(|row| {
                    Ok(AccountRow {
                        account: account_id(row)?,
                        plan: row.try_get("plan_key")?,
                        mode: row.try_get("mode")?,
                        status: row.try_get("status")?,
                        created_at: ledger::moment::read(row, "created_at")?.ok_or_else(no_moment)?,
                    })
                });
                accounts.collect()
            })
        })
        .await
    }

    /// Whether there is such an account.
    pub async fn has_account(&self, account: &AccountId) -> Result<bool, LedgerError> {
        self.read(async |tx: &mut Tx<'_>| {
            let has = on!(tx, conn => {
                let has = sqlx::query_scalar(HAS_ACCOUNT).bind(account.as_str());
                has.fetch_one(conn).await?
            });
            Ok(has)
        })
        .await
    }
}

async fn plan_exists(tx: &mut Tx<'_>, plan: Option<&str>) -> Result<(), LedgerError> {
    let Some(plan) = plan else { return Ok(()) };
    let has: bool = on!(tx, conn => {
        let has = sqlx::query_scalar(HAS_PLAN).bind(plan);
        has.fetch_one(conn).await?
    });
    if has {
        return Ok(());
    }
    Err(LedgerError::Invalid(format!(
        "there is no plan `{plan}`: put it into a catalogue and run `tollgate apply`"
    )))
}

const fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
        Mode::Off => "off",
    }
}

const fn status_word(status: Status) -> &'static str {
    match status {
        Status::Active => "active",
        Status::Suspended => "suspended",
    }
}
