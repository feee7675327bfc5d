//! The schema: brought up to date, and looked over before anything relies on it.
//!
//! An owner migrates its own file at every start, so where nothing is to be done nothing is written.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::file::{self, File};
use crate::ledger::migrations::{self, DEFAULT_SHARDS};
use crate::ledger::{Installation, LedgerError};

/// The migrations, in their order.
pub static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

const INSTALL: &str =
    "INSERT INTO installation (id, shards) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
const INSTALLATION: &str = "SELECT id, shards FROM installation";
const MAKE_SHARDS: &str = "\
    WITH RECURSIVE number (id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM number WHERE id + 1 < ?1) \
    INSERT INTO shard (id) SELECT id FROM number WHERE true ON CONFLICT DO NOTHING";
const IS_MIGRATED: &str = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations')";
const APPLIED: &str = "SELECT version, checksum FROM _sqlx_migrations WHERE success";

/// Creates or upgrades the schema, all of it or nothing. Repeatable, and safe when many start at once.
///
/// `shards` counts only the first time; asking for another number later is an error (rule 17).
pub async fn migrate(file: &File, shards: Option<u16>) -> Result<Installation, LedgerError> {
    let looked = file::read(async { look_over(&mut *file.reader().await?).await }).await;
    match looked {
        Ok(installation) => return migrations::agree(installation, shards),
        Err(LedgerError::Nonsense(_)) => {}
        Err(error) => return Err(error),
    }
    let mut turn = file.turn().await;
    let mut conn = turn.connection().await?;
    // Without a deadline: a migration takes as long as it takes.
    let installation = upgrade(&mut conn, shards).await?;
    turn.keep(conn);
    Ok(installation)
}

async fn upgrade(
    conn: &mut SqliteConnection,
    shards: Option<u16>,
) -> Result<Installation, LedgerError> {
    // One lock for all of it: sqlx takes none of its own in SQLite.
    let mut tx = file::begin(conn).await?;
    MIGRATIONS
        .run_direct(None, &mut *tx, false)
        .await
        .map_err(failed)?;
    sqlx::query(INSTALL)
        .bind(Uuid::now_v7())
        .bind(shards.unwrap_or(DEFAULT_SHARDS))
        .execute(&mut *tx)
        .await?;
    let installation = migrations::agree(installation(&mut tx).await?, shards)?;
    sqlx::query(MAKE_SHARDS)
        .bind(installation.shards)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(installation)
}

fn failed(error: MigrateError) -> LedgerError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
        other => LedgerError::Nonsense(other.to_string()),
    }
}

/// The schema that this program knows.
pub fn newest() -> i64 {
    migrations::newest(&MIGRATIONS)
}

/// What the installation is, once the schema is known to be this program's or a later one's.
pub async fn look_over(conn: &mut SqliteConnection) -> Result<Installation, LedgerError> {
    let migrated: bool = sqlx::query_scalar(IS_MIGRATED)
        .fetch_one(&mut *conn)
        .await?;
    if !migrated {
        return Err(migrations::none());
    }
    let applied: Vec<(i64, Vec<u8>)> = sqlx::query_as(APPLIED).fetch_all(&mut *conn).await?;
    migrations::look_over(&MIGRATIONS, &applied)?;
    installation(conn).await
}

async fn installation(conn: &mut SqliteConnection) -> Result<Installation, LedgerError> {
    let row = sqlx::query(INSTALLATION).fetch_one(conn).await?;
    Ok(Installation {
        id: row.try_get("id")?,
        shards: row.try_get("shards")?,
    })
}
