//! Grants: credit, each one a lot.
//!
//! Every bound is checked here, before anything is written: what has become a numbered change must never fail in the
//! store (rule 20).

use sqlx::{PgConnection, Row};

use super::{Admin, no_account};
use crate::clock::{Clock, UnixMs};
use crate::ledger::LedgerError;
use crate::ledger::postgres::account;
use crate::ledger::postgres::write::post;
use crate::ledger::posting::Posting;
use crate::money::{MAX_AMOUNT, Nanos};
use crate::quota::{AccountId, ChangeBody, Lot, LotId, MAX_LOTS, Moved};

const BY_REF: &str = "\
    SELECT id, amount_nanos FROM credit_grant WHERE account_id = $1 AND source_ref = $2";
const GRANT: &str = "\
    INSERT INTO credit_grant (account_id, amount_nanos, balance_nanos, priority, kind, expires_at, source, source_ref) \
    SELECT id, $2, $2, $3, 'paid', $4, 'cli', $5 FROM account WHERE id = $1 RETURNING id";

/// Credit for an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// How much; more than zero, at most [`MAX_AMOUNT`].
    pub amount: Nanos,
    /// Lower numbers are drawn first.
    pub priority: i32,
    /// Until when it can be drawn on; `None`: for ever.
    pub expires_at: Option<UnixMs>,
    /// What the one who grants calls the reason: the same reason twice makes one grant.
    pub source_ref: Option<String>,
}

/// The result of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// There is a new lot.
    Made(LotId),
    /// This reason had made this lot before; nothing was moved.
    Already(LotId),
}

impl Admin {
    /// Grants credit.
    // holds: 4, never twice
    pub async fn grant(
        &self,
        account: &AccountId,
        grant: &NewGrant,
    ) -> Result<Granted, LedgerError> {
        if grant.amount <= Nanos::ZERO || grant.amount.0 > MAX_AMOUNT {
            return Err(LedgerError::Invalid(format!(
                "a grant is more than zero and at most {} credits, not {}",
                Nanos(MAX_AMOUNT),
                grant.amount
            )));
        }
        let now = Clock::System.now();
        if grant.expires_at.is_some_and(|end| end <= now) {
            return Err(LedgerError::Invalid(
                "a grant cannot expire in the past".into(),
            ));
        }
        self.change(account, async |tx| {
            if let Some(lot) = granted_before(tx, account, grant).await? {
                return Ok((Granted::Already(lot), None));
            }
            let lots = order(tx, account).await?.len();
            if lots >= MAX_LOTS {
                return Err(LedgerError::Invalid(format!(
                    "`{account}` has {lots} lots with something left, and no more than {MAX_LOTS} are kept apart"
                )));
            }
            let lot = insert(tx, account, grant).await?;
            post(tx, &[Posting::of_grant(account, lot, grant.amount)]).await?;
            let body = ChangeBody {
                lots: Some(order(tx, account).await?),
                moved: Moved {
                    lots: vec![(lot, grant.amount)],
                    ..Moved::default()
                },
                repay: true,
                ..ChangeBody::default()
            };
            Ok((Granted::Made(lot), Some(body)))
        })
        .await
    }
}

/// The lot that this reason made before. Another amount for the same reason is a mistake, never a second grant.
async fn granted_before(
    tx: &mut PgConnection,
    account: &AccountId,
    grant: &NewGrant,
) -> Result<Option<LotId>, LedgerError> {
    let Some(source_ref) = &grant.source_ref else {
        return Ok(None);
    };
    let row = sqlx::query(BY_REF)
        .bind(account.as_str())
        .bind(source_ref)
        .fetch_optional(tx)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let amount = Nanos(row.try_get("amount_nanos")?);
    if amount != grant.amount {
        return Err(LedgerError::Invalid(format!(
            "`{source_ref}` has granted `{account}` {amount} credits already, not {}",
            grant.amount
        )));
    }
    Ok(Some(LotId(row.try_get("id")?)))
}

async fn insert(
    tx: &mut PgConnection,
    account: &AccountId,
    grant: &NewGrant,
) -> Result<LotId, LedgerError> {
    let row = sqlx::query(GRANT)
        .bind(account.as_str())
        .bind(grant.amount.0)
        .bind(grant.priority)
        .bind(grant.expires_at.map(UnixMs::to_utc))
        .bind(grant.source_ref.as_deref())
        .fetch_optional(tx)
        .await?
        .ok_or_else(|| no_account(account))?;
    Ok(LotId(row.try_get("id")?))
}

/// The lots with something left, in the order they are drawn. One whose time is over stays among them until its expiry
/// has emptied it (rule 27): the store knows by its own clock that nothing draws on it.
async fn order(tx: &mut PgConnection, account: &AccountId) -> Result<Vec<Lot>, LedgerError> {
    let lots = account::lots(tx, account).await?;
    Ok(lots.into_iter().map(|(lot, _)| lot).collect())
}
