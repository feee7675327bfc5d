//! Keys: made, listed, revoked.
//!
//! A revoked key is refused at the next call on every sidecar: its account's `keys_version` goes up, so whoever has
//! cached the key looks it up again (rule 13).

use serde::Serialize;
use sqlx::Row;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Admin, no_account, no_moment};
use crate::ledger::sql::account_id;
use crate::ledger::tx::{Dialects, Tx, on};
use crate::ledger::{KeyHash, LedgerError};
use crate::quota::{AccountId, ChangeBody};

const CREATE: &str = "\
    INSERT INTO api_key (id, account_id, name, hash, last_four) \
    SELECT $1, id, $3, $4, $5 FROM account WHERE id = $2";
const OF_ACCOUNT: &str = "\
    SELECT id, name, last_four, created_at, revoked_at FROM api_key WHERE account_id = $1 ORDER BY created_at, id \
    LIMIT $2";
const OWNER: &str = "SELECT account_id FROM api_key WHERE id = $1";
const REVOKE: Dialects = Dialects {
    postgres: "UPDATE api_key SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL",
    sqlite: "\
        UPDATE api_key SET revoked_at = CAST(round(unixepoch('subsec') * 1000) AS INTEGER) \
        WHERE id = $1 AND revoked_at IS NULL",
};
const BUMP_KEYS: &str = "UPDATE account SET keys_version = keys_version + 1 WHERE id = $1";

/// The most keys a list shows.
pub const MAX_KEYS_LISTED: i64 = 10_000;

/// All that the ledger is ever told of a new key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Its id, which usage records name.
    pub id: Uuid,
    /// Of its secret.
    pub hash: KeyHash,
    /// The end of its secret, to tell it by.
    pub last_four: String,
    /// What people call it.
    pub name: String,
}

/// A key in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyRow {
    /// Which.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// The end of its secret.
    pub last_four: String,
    /// When it was made.
    #[serde(serialize_with = "time::serde::rfc3339::serialize")]
    pub created_at: OffsetDateTime,
    /// From when on it is refused.
    #[serde(serialize_with = "time::serde::rfc3339::option::serialize")]
    pub revoked_at: Option<OffsetDateTime>,
}

impl Admin {
    /// Takes a key in. The store learns nothing of it: sidecars ask the ledger for keys they do not know.
    pub async fn create_key(&self, account: &AccountId, key: &NewKey) -> Result<(), LedgerError> {
        self.write(async |tx: &mut Tx<'_>| {
            let created = on!(tx, conn => {
                let create = sqlx::query(CREATE)
                    .bind(key.id)
                    .bind(account.as_str())
                    .bind(&key.name)
                    .bind(&key.hash.0[..])
                    .bind(&key.last_four);
                create.execute(conn).await?.rows_affected()
            });
            if created == 0 {
                return Err(no_account(account));
            }
            Ok(())
        })
        .await
    }

    /// The keys of an account, the oldest first.
    pub async fn keys(&self, account: &AccountId) -> Result<Vec<KeyRow>, LedgerError> {
        if !self.has_account(account).await? {
            return Err(no_account(account));
        }
        self.read(async |tx: &mut Tx<'_>| {
            on!(tx, conn, ledger => {
                let rows = sqlx::query(OF_ACCOUNT)
                    .bind(account.as_str())
                    .bind(MAX_KEYS_LISTED)
                    .fetch_all(conn)
                    .await?;
                let keys = rows.iter().map(|row| {
                    Ok(KeyRow {
                        id: row.try_get("id")?,
                        name: row.try_get("name")?,
                        last_four: row.try_get("last_four")?,
                        created_at: ledger::moment::read(row, "created_at")?.ok_or_else(no_moment)?,
                        revoked_at: ledger::moment::read(row, "revoked_at")?,
                    })
                });
                keys.collect()
            })
        })
        .await
    }

    /// Revokes a key and says whose it was; a key that was revoked before changes nothing.
    pub async fn revoke_key(&self, key: Uuid) -> Result<AccountId, LedgerError> {
        let owner = self.read(async |tx: &mut Tx<'_>| owner(tx, key).await);
        let owner = owner.await?;
        self.change(&owner, async |tx: &mut Tx<'_>| {
            let revoke = tx.sql(&REVOKE);
            let revoked = on!(tx, conn => {
                sqlx::query(revoke).bind(key).execute(conn).await?.rows_affected()
            });
            if revoked == 0 {
                return Ok(((), None));
            }
            on!(tx, conn => {
                sqlx::query(BUMP_KEYS).bind(owner.as_str()).execute(conn).await?;
            });
            Ok(((), Some(ChangeBody::default())))
        })
        .await?;
        Ok(owner)
    }
}

async fn owner(tx: &mut Tx<'_>, key: Uuid) -> Result<AccountId, LedgerError> {
    let owner = on!(tx, conn => {
        let row = sqlx::query(OWNER).bind(key).fetch_optional(conn).await?;
        row.as_ref().map(account_id).transpose()?
    });
    owner.ok_or_else(|| LedgerError::Invalid(format!("there is no key {key}")))
}
