//! Grants: credit, each one a lot.
//!
//! Every bound is checked here, before anything is written: what has become a numbered change must never fail in the
//! store (rule 20).

use super::{Admin, no_account};
use crate::clock::{Clock, UnixMs};
use crate::ledger::LedgerError;
use crate::ledger::posting::Posting;
use crate::ledger::tx::{Tx, on};
use crate::money::{MAX_AMOUNT, Nanos};
use crate::quota::{AccountId, ChangeBody, LotId, MAX_LOTS, Moved};

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
                "a grant is more than zero and at most {} credits, not {}: `tollgate withdraw` and `tollgate adjust` take \
                 credit away",
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
        self.change(account, async |tx: &mut Tx<'_>| {
            if let Some(lot) = granted_before(tx, account, grant).await? {
                return Ok((Granted::Already(lot), None));
            }
            let lots = tx.lots(account).await?.len();
            if lots >= MAX_LOTS {
                return Err(LedgerError::Invalid(format!(
                    "`{account}` has {lots} lots with something left, and no more than {MAX_LOTS} are kept apart"
                )));
            }
            let lot = insert(tx, account, grant).await?;
            tx.post(Posting::of_grant(account, lot, grant.amount))
                .await?;
            let body = ChangeBody {
                lots: Some(tx.lots(account).await?),
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
    tx: &mut Tx<'_>,
    account: &AccountId,
    grant: &NewGrant,
) -> Result<Option<LotId>, LedgerError> {
    let Some(source_ref) = &grant.source_ref else {
        return Ok(None);
    };
    let before: Option<(i64, i64)> = on!(tx, conn => {
        let before = sqlx::query_as(BY_REF).bind(account.as_str()).bind(source_ref);
        before.fetch_optional(conn).await?
    });
    let Some((lot, amount)) = before else {
        return Ok(None);
    };
    let amount = Nanos(amount);
    if amount != grant.amount {
        return Err(LedgerError::Invalid(format!(
            "`{source_ref}` has granted `{account}` {amount} credits already, not {}",
            grant.amount
        )));
    }
    Ok(Some(LotId(lot)))
}

async fn insert(
    tx: &mut Tx<'_>,
    account: &AccountId,
    grant: &NewGrant,
) -> Result<LotId, LedgerError> {
    let lot = on!(tx, conn, ledger => {
        let lot = sqlx::query_scalar(GRANT)
            .bind(account.as_str())
            .bind(grant.amount.0)
            .bind(grant.priority)
            .bind(grant.expires_at.map(ledger::moment::column))
            .bind(grant.source_ref.as_deref());
        lot.fetch_optional(conn).await?
    });
    lot.map(LotId).ok_or_else(|| no_account(account))
}
