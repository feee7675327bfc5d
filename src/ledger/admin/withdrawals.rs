//! Void and refund: credit that is taken out of a lot again.
//!
//! The ledger only asks for it (rule 27): the store takes what is left when it gets there, and the outbox tells how much
//! that was.

use uuid::Uuid;

use super::Admin;
use crate::ledger::LedgerError;
use crate::ledger::tx::{Tx, on};
use crate::money::{MAX_AMOUNT, Nanos};
use crate::quota::{AccountId, ChangeBody, LotId, Withdrawal, WithdrawalReason};

const BY_REF: &str = "\
    SELECT id, lot_id, reason, amount_nanos FROM withdrawal WHERE account_id = $1 AND source_ref = $2";
// What is pending counts as taken: no more of it may be asked for.
const LEFT_TO_ASK_FOR: &str = "\
    SELECT amount_nanos - CAST(coalesce( \
        (SELECT sum(coalesce(taken_nanos, amount_nanos)) FROM withdrawal WHERE lot_id = credit_grant.id), 0) AS bigint) \
    FROM credit_grant WHERE account_id = $1 AND id = $2";
// The shard is locked, so the change that asks the store is the next one.
const ASK: &str = "\
    INSERT INTO withdrawal (id, account_id, lot_id, reason, amount_nanos, shard, change_seq, source_ref) \
    SELECT $1, account.id, $3, $4, $5, shard.id, shard.last_change + 1, $6 \
    FROM account JOIN shard ON shard.id = account.shard WHERE account.id = $2";

/// Credit that is to be taken out of a lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWithdrawal {
    /// Of which grant.
    pub lot: LotId,
    /// Why.
    pub reason: WithdrawalReason,
    /// How much at the most; `None`: all that was granted.
    pub amount: Option<Nanos>,
    /// What the one who asks calls the reason: the same reason twice is one withdrawal.
    pub source_ref: Option<String>,
}

/// The result of asking for a withdrawal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The store will take it.
    New(Withdrawal),
    /// This reason had asked for this before; nothing was done.
    Already(Withdrawal),
}

impl Admin {
    /// Asks the store to take credit out of a lot: at the most what is left there.
    // holds: 4, never twice
    pub async fn withdraw(
        &self,
        account: &AccountId,
        asked: &NewWithdrawal,
    ) -> Result<Asked, LedgerError> {
        let is_bounded = |amount: Nanos| amount > Nanos::ZERO && amount.0 <= MAX_AMOUNT;
        if let Some(amount) = asked.amount.filter(|amount| !is_bounded(*amount)) {
            return Err(LedgerError::Invalid(format!(
                "a withdrawal is more than zero and at most {} credits, not {amount}",
                Nanos(MAX_AMOUNT)
            )));
        }
        self.change(account, async |tx: &mut Tx<'_>| {
            if let Some(before) = asked_before(tx, account, asked).await? {
                return Ok((Asked::Already(before), None));
            }
            let withdrawal = Withdrawal {
                id: Uuid::now_v7(),
                lot: asked.lot,
                reason: asked.reason,
                amount: amount(tx, account, asked).await?,
            };
            ask(tx, account, &withdrawal, asked.source_ref.as_deref()).await?;
            let body = ChangeBody {
                withdraw: Some(withdrawal.clone()),
                ..ChangeBody::default()
            };
            Ok((Asked::New(withdrawal), Some(body)))
        })
        .await
    }
}

/// What this reason asked for before. Anything else for the same reason is a mistake, never a second withdrawal.
async fn asked_before(
    tx: &mut Tx<'_>,
    account: &AccountId,
    asked: &NewWithdrawal,
) -> Result<Option<Withdrawal>, LedgerError> {
    let Some(source_ref) = &asked.source_ref else {
        return Ok(None);
    };
    let before: Option<(Uuid, i64, String, i64)> = on!(tx, conn => {
        let before = sqlx::query_as(BY_REF).bind(account.as_str()).bind(source_ref);
        before.fetch_optional(conn).await?
    });
    let Some((id, lot, reason, amount)) = before else {
        return Ok(None);
    };
    let before = Withdrawal {
        id,
        lot: LotId(lot),
        reason: reason
            .parse()
            .map_err(|()| LedgerError::Nonsense(format!("a withdrawal is a `{reason}`")))?,
        amount: Nanos(amount),
    };
    let is_same = before.lot == asked.lot
        && before.reason == asked.reason
        && asked.amount.is_none_or(|amount| amount == before.amount);
    if is_same {
        return Ok(Some(before));
    }
    Err(LedgerError::Invalid(format!(
        "`{source_ref}` has asked for a {reason} of {} credits of lot {} already",
        before.amount, before.lot
    )))
}

/// How much is asked for: never more than was granted and not taken out again.
async fn amount(
    tx: &mut Tx<'_>,
    account: &AccountId,
    asked: &NewWithdrawal,
) -> Result<Nanos, LedgerError> {
    let lot = asked.lot;
    let left: Option<i64> = on!(tx, conn => {
        let left = sqlx::query_scalar(LEFT_TO_ASK_FOR).bind(account.as_str()).bind(lot.0);
        left.fetch_optional(conn).await?
    });
    let left = left.map(Nanos).ok_or_else(|| {
        LedgerError::Invalid(format!(
            "`{account}` has no lot {lot}: `tollgate account show {account}` numbers its lots"
        ))
    })?;
    if left <= Nanos::ZERO {
        return Err(LedgerError::Invalid(format!(
            "all that lot {lot} was granted has been taken out of it, or asked for"
        )));
    }
    let amount = asked.amount.unwrap_or(left);
    if amount > left {
        return Err(LedgerError::Invalid(format!(
            "of what lot {lot} was granted, no more than {left} credits can be asked for, not {amount}"
        )));
    }
    Ok(amount)
}

async fn ask(
    tx: &mut Tx<'_>,
    account: &AccountId,
    withdrawal: &Withdrawal,
    source_ref: Option<&str>,
) -> Result<(), LedgerError> {
    on!(tx, conn => {
        let ask = sqlx::query(ASK)
            .bind(withdrawal.id)
            .bind(account.as_str())
            .bind(withdrawal.lot.0)
            .bind(withdrawal.reason.as_str())
            .bind(withdrawal.amount.0)
            .bind(source_ref);
        ask.execute(conn).await?;
    });
    Ok(())
}
