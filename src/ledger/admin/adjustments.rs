//! Adjustments: what an operator puts right by hand.
//!
//! No grant has brought such credit, and no call has used it, so it moves what is owed: a debt below zero is credit.

use uuid::Uuid;

use super::{Admin, no_account};
use crate::ledger::LedgerError;
use crate::ledger::posting::Posting;
use crate::ledger::tx::{Tx, on};
use crate::money::{MAX_AMOUNT, MAX_DEBT, Nanos};
use crate::quota::{AccountId, ChangeBody, Moved};

const BY_REF: &str =
    "SELECT id, credit_nanos FROM adjustment WHERE account_id = $1 AND source_ref = $2";
const DEBT: &str = "SELECT debt_nanos FROM account WHERE id = $1";
const ADJUST: &str = "\
    INSERT INTO adjustment (id, account_id, credit_nanos, reason, source_ref) VALUES ($1, $2, $3, $4, $5)";
const MOVE_DEBT: &str = "UPDATE account SET debt_nanos = debt_nanos - $2 WHERE id = $1";

/// The longest reason, in characters.
const MAX_REASON_CHARS: usize = 1000;

/// Credit that is put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAdjustment {
    /// How much; less than zero takes credit. At most [`MAX_AMOUNT`] either way.
    pub credit: Nanos,
    /// Why, for whoever audits the books later.
    pub reason: String,
    /// What the one who adjusts calls the reason: the same twice is one adjustment.
    pub source_ref: Option<String>,
}

/// The result of an adjustment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adjusted {
    /// It is made.
    Made(Uuid),
    /// This reference had made it before; nothing was moved.
    Already(Uuid),
}

impl Admin {
    /// Gives or takes credit beside all grants.
    // holds: 4, never twice
    pub async fn adjust(
        &self,
        account: &AccountId,
        adjustment: &NewAdjustment,
    ) -> Result<Adjusted, LedgerError> {
        let credit = adjustment.credit;
        if credit == Nanos::ZERO || credit.0.unsigned_abs() > MAX_AMOUNT.unsigned_abs() {
            return Err(LedgerError::Invalid(format!(
                "an adjustment is at most {} credits either way, and not zero",
                Nanos(MAX_AMOUNT)
            )));
        }
        let reason = adjustment.reason.trim();
        if reason.is_empty() || reason.chars().count() > MAX_REASON_CHARS {
            return Err(LedgerError::Invalid(format!(
                "an adjustment has a reason of 1 to {MAX_REASON_CHARS} characters"
            )));
        }
        self.change(account, async |tx: &mut Tx<'_>| {
            if let Some(id) = adjusted_before(tx, account, adjustment).await? {
                return Ok((Adjusted::Already(id), None));
            }
            is_within_bounds(tx, account, credit).await?;
            let id = insert(tx, account, adjustment, reason).await?;
            tx.post(Posting::of_adjustment(account, id, credit)).await?;
            let body = ChangeBody {
                moved: Moved {
                    debt: -credit,
                    ..Moved::default()
                },
                // What is owed now is paid by the lots there are, as after any other debt.
                repay: true,
                ..ChangeBody::default()
            };
            Ok((Adjusted::Made(id), Some(body)))
        })
        .await
    }
}

/// The adjustment that this reference made before. Another amount for the same one is a mistake, never a second one.
async fn adjusted_before(
    tx: &mut Tx<'_>,
    account: &AccountId,
    adjustment: &NewAdjustment,
) -> Result<Option<Uuid>, LedgerError> {
    let Some(source_ref) = &adjustment.source_ref else {
        return Ok(None);
    };
    let before: Option<(Uuid, i64)> = on!(tx, conn => {
        let before = sqlx::query_as(BY_REF).bind(account.as_str()).bind(source_ref);
        before.fetch_optional(conn).await?
    });
    let Some((id, credit)) = before else {
        return Ok(None);
    };
    let credit = Nanos(credit);
    if credit != adjustment.credit {
        return Err(LedgerError::Invalid(format!(
            "`{source_ref}` has adjusted `{account}` by {credit} credits already, not {}",
            adjustment.credit
        )));
    }
    Ok(Some(id))
}

async fn is_within_bounds(
    tx: &mut Tx<'_>,
    account: &AccountId,
    credit: Nanos,
) -> Result<(), LedgerError> {
    let debt: Option<i64> = on!(tx, conn => {
        let debt = sqlx::query_scalar(DEBT).bind(account.as_str());
        debt.fetch_optional(conn).await?
    });
    let debt = debt.ok_or_else(|| no_account(account))?;
    let after = debt.saturating_sub(credit.0);
    if after.unsigned_abs() > MAX_DEBT.unsigned_abs() {
        return Err(LedgerError::Invalid(format!(
            "`{account}` would owe {} credits; no account may owe, or be owed, more than {}",
            Nanos(after),
            Nanos(MAX_DEBT)
        )));
    }
    Ok(())
}

async fn insert(
    tx: &mut Tx<'_>,
    account: &AccountId,
    adjustment: &NewAdjustment,
    reason: &str,
) -> Result<Uuid, LedgerError> {
    let id = Uuid::now_v7();
    on!(tx, conn => {
        sqlx::query(ADJUST)
            .bind(id)
            .bind(account.as_str())
            .bind(adjustment.credit.0)
            .bind(reason)
            .bind(adjustment.source_ref.as_deref())
            .execute(&mut *conn)
            .await?;
        let owed = sqlx::query(MOVE_DEBT).bind(account.as_str()).bind(adjustment.credit.0);
        owed.execute(conn).await?;
    });
    Ok(id)
}
