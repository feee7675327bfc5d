//! The operator's changes: each in one transaction with what the store must learn of it.
//!
//! All of them go through [`Admin::change`], so that none can forget the lock, the version or the store (rules 13, 20).

use std::sync::Arc;

use sqlx::Connection;

use super::postgres::{self, wire, wire::Wire};
use super::sqlite::file::{self, File};
use super::tx::Tx;
use super::{Installation, LedgerError, sqlite};
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

/// The ledger as the commands see it.
pub struct Admin {
    installation: Installation,
    desk: Desk,
}

/// Where they work.
enum Desk {
    Postgres(Box<Wire>),
    Sqlite(Arc<File>),
}

/// What becomes of a transaction that went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Commit,
    Rollback,
}

impl Admin {
    /// Connects to PostgreSQL, and looks over the schema.
    pub async fn connect(url: &str) -> Result<Self, LedgerError> {
        let wire = Wire::new(wire::options(url)?);
        let mut turn = wire.turn().await;
        let mut conn = turn.connection().await?;
        let installation = wire::written(postgres::schema::look_over(&mut conn)).await?;
        turn.keep(conn);
        Ok(Self {
            installation,
            desk: Desk::Postgres(Box::new(wire)),
        })
    }

    /// Works on an open SQLite file, and looks over its schema.
    pub async fn over(file: Arc<File>) -> Result<Self, LedgerError> {
        let looked = async { sqlite::schema::look_over(&mut *file.reader().await?).await };
        Ok(Self {
            installation: file::read(looked).await?,
            desk: Desk::Sqlite(file),
        })
    }

    /// Reads, within the deadline of a read.
    async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&mut Tx<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        match &self.desk {
            Desk::Postgres(wire) => {
                let mut turn = wire.turn().await;
                let mut conn = turn.connection().await?;
                let answer = wire::written(work(&mut Tx::from(&mut conn))).await?;
                turn.keep(conn);
                Ok(answer)
            }
            Desk::Sqlite(file) => {
                let read = async { work(&mut Tx::from(&mut *file.reader().await?)).await };
                file::read(read).await
            }
        }
    }

    /// Runs one transaction, within its deadline.
    async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut Tx<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        self.transaction(End::Commit, work).await
    }

    /// The same, and nothing of it stays.
    async fn rehearse<T>(
        &self,
        work: impl AsyncFnOnce(&mut Tx<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        self.transaction(End::Rollback, work).await
    }

    /// What fails closes its connection, and so rolls back.
    async fn transaction<T>(
        &self,
        end: End,
        work: impl AsyncFnOnce(&mut Tx<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        match &self.desk {
            Desk::Postgres(wire) => {
                let mut turn = wire.turn().await;
                let mut conn = turn.connection().await?;
                let answer = wire::written(async {
                    let mut tx = conn.begin().await?;
                    let answer = work(&mut Tx::from(&mut *tx)).await?;
                    match end {
                        End::Commit => tx.commit().await?,
                        End::Rollback => tx.rollback().await?,
                    }
                    Ok::<_, LedgerError>(answer)
                });
                let answer = answer.await?;
                turn.keep(conn);
                Ok(answer)
            }
            Desk::Sqlite(file) => {
                let mut turn = file.turn().await;
                let mut conn = turn.connection().await?;
                let answer = file::written(async {
                    let mut tx = file::begin(&mut conn).await?;
                    let answer = work(&mut Tx::from(&mut *tx)).await?;
                    match end {
                        End::Commit => tx.commit().await?,
                        End::Rollback => tx.rollback().await?,
                    }
                    Ok::<_, LedgerError>(answer)
                });
                let answer = answer.await?;
                turn.keep(conn);
                Ok(answer)
            }
        }
    }

    /// Changes one account: its shard locked, its version bumped, its snapshot put into a numbered change, all or
    /// nothing. An edit that finds nothing to do returns no change.
    async fn change<T>(
        &self,
        account: &AccountId,
        edit: impl AsyncFnOnce(&mut Tx<'_>) -> Result<(T, Option<ChangeBody>), LedgerError>,
    ) -> Result<T, LedgerError> {
        let shard = account.shard(self.installation.shards);
        self.write(async |tx: &mut Tx<'_>| {
            tx.lock(shard).await?;
            let (answer, body) = edit(tx).await?;
            if let Some(body) = body {
                let body = ChangeBody {
                    snapshot: Some(tx.new_version(account).await?),
                    ..body
                };
                tx.append(shard, &[(account.clone(), body)]).await?;
            }
            Ok(answer)
        })
        .await
    }
}

pub(crate) fn no_account(account: &AccountId) -> LedgerError {
    LedgerError::Invalid(format!(
        "there is no account `{account}`: `tollgate account list` names all, `tollgate account create {account}` makes it"
    ))
}

fn no_moment() -> LedgerError {
    LedgerError::Nonsense("a row has no moment at which it was made".into())
}
