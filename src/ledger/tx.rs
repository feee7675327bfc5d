//! A connection to PostgreSQL or to SQLite, for what is written once for both: the operator's changes and the audit.
//!
//! Most of their SQL is the same text; where it differs, both texts stand side by side in a [`Dialects`], or under one name in
//! the modules of the two ledgers.

use sqlx::{PgConnection, SqliteConnection};

use crate::ledger::posting::Posting;
use crate::ledger::{LedgerError, admin};
use crate::quota::{AccountId, ChangeBody, Entry, Lot, ShardId, Snapshot};

const BUMP: &str = "UPDATE account SET version = version + 1 WHERE id = $1";

/// A connection, mostly within a transaction.
pub(super) enum Tx<'a> {
    Postgres(&'a mut PgConnection),
    Sqlite(&'a mut SqliteConnection),
}

/// The same statement as each of them wants it.
pub(super) struct Dialects {
    pub postgres: &'static str,
    pub sqlite: &'static str,
}

/// Compiles the same lines for both: `$conn` is the connection, and `$ledger` the module of its ledger.
macro_rules! on {
    ($tx:expr, $conn:ident => $body:expr) => {
        match $tx {
            $crate::ledger::tx::Tx::Postgres(conn) => {
                let $conn = &mut **conn;
                $body
            }
            $crate::ledger::tx::Tx::Sqlite(conn) => {
                let $conn = &mut **conn;
                $body
            }
        }
    };
    ($tx:expr, $conn:ident, $ledger:ident => $body:expr) => {
        match $tx {
            $crate::ledger::tx::Tx::Postgres(conn) => {
                use $crate::ledger::postgres as $ledger;
                let $conn = &mut **conn;
                $body
            }
            $crate::ledger::tx::Tx::Sqlite(conn) => {
                use $crate::ledger::sqlite as $ledger;
                let $conn = &mut **conn;
                $body
            }
        }
    };
}
pub(super) use on;

impl<'a> From<&'a mut PgConnection> for Tx<'a> {
    fn from(conn: &'a mut PgConnection) -> Self {
        Self::Postgres(conn)
    }
}

impl<'a> From<&'a mut SqliteConnection> for Tx<'a> {
    fn from(conn: &'a mut SqliteConnection) -> Self {
        Self::Sqlite(conn)
    }
}

impl Tx<'_> {
    pub fn sql(&self, text: &Dialects) -> &'static str {
        match self {
            Self::Postgres(_) => text.postgres,
            Self::Sqlite(_) => text.sqlite,
        }
    }

    /// Locks a shard until the transaction ends. Lock several in ascending order only.
    pub async fn lock(&mut self, shard: ShardId) -> Result<(), LedgerError> {
        on!(self, conn, ledger => {
            ledger::change::LockedShard::lock(conn, shard).await?;
            Ok(())
        })
    }

    /// Numbers changes of a shard in their order.
    pub async fn append(
        &mut self,
        shard: ShardId,
        changes: &[(AccountId, ChangeBody)],
    ) -> Result<(), LedgerError> {
        on!(self, conn, ledger => {
            let mut locked = ledger::change::LockedShard::lock(conn, shard).await?;
            Ok(locked.append(conn, changes).await?)
        })
    }

    /// Bumps an account's version and reads the snapshot that goes with it.
    pub async fn new_version(&mut self, account: &AccountId) -> Result<Snapshot, LedgerError> {
        let snapshot = on!(self, conn, ledger => {
            let bump = sqlx::query(BUMP).bind(account.as_str());
            bump.execute(&mut *conn).await?;
            ledger::account::snapshot(conn, account).await?
        });
        snapshot.ok_or_else(|| admin::no_account(account))
    }

    /// The lots with something left, in the order they are drawn. One whose time is over stays among them until its
    /// expiry has emptied it (rule 27): the store knows by its own clock that nothing draws on it.
    pub async fn lots(&mut self, account: &AccountId) -> Result<Vec<Lot>, LedgerError> {
        let lots = on!(self, conn, ledger => ledger::account::lots(conn, account).await?);
        Ok(lots.into_iter().map(|(lot, _)| lot).collect())
    }

    pub async fn post(&mut self, posting: Posting) -> Result<(), LedgerError> {
        Ok(on!(self, conn, ledger => ledger::write::post(conn, &[posting]).await)?)
    }

    /// Takes an entry of the quarantine in, or says what is odd about it and does nothing.
    pub async fn take_in(
        &mut self,
        shard: ShardId,
        entry: &Entry,
    ) -> Result<Result<(), String>, LedgerError> {
        on!(self, conn, ledger => {
            let mut locked = ledger::change::LockedShard::lock(conn, shard).await?;
            ledger::quarantine::try_to_write(conn, &mut locked, &[entry], None).await
        })
    }
}
