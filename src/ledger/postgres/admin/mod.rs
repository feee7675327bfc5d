//! The operator's changes: each in one transaction with what the store must learn of it.
//!
//! All of them go through [`Admin::change`], so that none can forget the lock, the version or the store (rules 13, 20).

use sqlx::{Connection, PgConnection};

use super::change::LockedShard;
use super::wire::{self, Wire};
use super::{account, schema};
use crate::ledger::{Installation, LedgerError};
use crate::quota::{AccountId, ChangeBody};

mod accounts;
mod adjustments;
mod catalogue;
mod grants;
mod keys;
mod prices;
mod quarantine;
mod withdrawals;

pub use accounts::{AccountEdit, AccountRow};
pub use adjustments::{Adjusted, NewAdjustment};
pub use catalogue::{Difference, Followed};
pub use grants::{Granted, NewGrant};
pub use keys::{KeyRow, NewKey};
pub use prices::PricesChanged;
pub use quarantine::{Quarantined, Retried};
pub use withdrawals::{Asked, NewWithdrawal};

const BUMP: &str = "UPDATE account SET version = version + 1 WHERE id = $1";

/// The ledger as the commands see it.
pub struct Admin {
    installation: Installation,
    wire: Wire,
}

impl Admin {
    /// Connects, and looks over the schema.
    pub async fn connect(url: &str) -> Result<Self, LedgerError> {
        let wire = Wire::new(wire::options(url)?);
        let mut turn = wire.turn().await;
        let mut conn = turn.connection().await?;
        let installation = wire::written(schema::look_over(&mut conn)).await?;
        turn.keep(conn);
        Ok(Self { installation, wire })
    }

    /// Runs one transaction at most, within the deadline of one. What fails closes its connection, and so rolls back.
    async fn run<T, E: From<LedgerError>>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut turn = self.wire.turn().await;
        let mut conn = turn.connection().await?;
        let answer = wire::written(work(&mut conn)).await?;
        turn.keep(conn);
        Ok(answer)
    }

    /// Changes one account: its shard locked, its version bumped, its snapshot put into a numbered change, all or
    /// nothing. An edit that finds nothing to do returns no change.
    async fn change<T>(
        &self,
        account: &AccountId,
        edit: impl AsyncFnOnce(&mut PgConnection) -> Result<(T, Option<ChangeBody>), LedgerError>,
    ) -> Result<T, LedgerError> {
        self.run(async |conn| {
            let mut tx = conn.begin().await?;
            let shard = account.shard(self.installation.shards);
            let mut row = LockedShard::lock(&mut tx, shard).await?;
            let (answer, body) = edit(&mut tx).await?;
            if let Some(body) = body {
                let snapshot = new_version(&mut tx, account).await?;
                let body = ChangeBody {
                    snapshot: Some(snapshot),
                    ..body
                };
                row.append(&mut tx, account, body).await?;
            }
            tx.commit().await?;
            Ok(answer)
        })
        .await
    }
}

/// Bumps the account's version and reads the snapshot that goes with it.
async fn new_version(
    tx: &mut PgConnection,
    account: &AccountId,
) -> Result<crate::quota::Snapshot, LedgerError> {
    sqlx::query(BUMP)
        .bind(account.as_str())
        .execute(&mut *tx)
        .await?;
    account::snapshot(tx, account)
        .await?
        .ok_or_else(|| no_account(account))
}

fn no_account(account: &AccountId) -> LedgerError {
    LedgerError::Invalid(format!("there is no account `{account}`"))
}
