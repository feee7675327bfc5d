//! The schema: brought up to date, and looked over before anything relies on it.
//!
//! The migrations are in the binary, so a program and the schema it needs cannot be shipped apart.

use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::wire;
use crate::ledger::migrations::{self, DEFAULT_SHARDS};
use crate::ledger::{Installation, LedgerError};

/// The migrations, in their order.
pub static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Records without a partition of their own are counted up to this number: that there are some is what matters.
const STRAYS_COUNTED: i64 = 1000;

/// How many months of partitions there are beyond the present one.
const MONTHS_AHEAD: i32 = 3;

const INSTALL: &str =
    "INSERT INTO installation (id, shards) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const INSTALLATION: &str = "SELECT id, shards FROM installation";
const MAKE_SHARDS: &str =
    "INSERT INTO shard (id) SELECT generate_series(0, $1 - 1) ON CONFLICT DO NOTHING";
const MAKE_PARTITIONS: &str = "SELECT usage_record_make_partitions($1)";
const STRAYS: &str = "SELECT count(*) FROM (SELECT FROM usage_record_default LIMIT $1) AS records";
const IS_MIGRATED: &str = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
const APPLIED: &str = "SELECT version, checksum FROM _sqlx_migrations WHERE success";

/// Creates or upgrades the schema. Repeatable, and safe when many start at once: one does it, the others wait.
///
/// `shards` counts only the first time; asking for another number later is an error (rule 17).
pub async fn migrate(url: &str, shards: Option<u16>) -> Result<Installation, LedgerError> {
    let mut conn = PgConnection::connect_with(&wire::patient_options(url)?).await?;
    MIGRATIONS
        .run(&mut conn)
        .await
        .map_err(|error| LedgerError::Nonsense(error.to_string()))?;

    let mut tx = conn.begin().await?;
    let wanted = i16::try_from(shards.unwrap_or(DEFAULT_SHARDS))
        .map_err(|_| LedgerError::Invalid("an installation has 1 to 16384 shards".into()))?;
    sqlx::query(INSTALL)
        .bind(Uuid::now_v7())
        .bind(wanted)
        .execute(&mut *tx)
        .await?;
    let installation = migrations::agree(installation(&mut tx).await?, shards)?;
    sqlx::query(MAKE_SHARDS)
        .bind(i32::from(installation.shards))
        .execute(&mut *tx)
        .await?;
    make_partitions(&mut tx).await?;
    tx.commit().await?;
    conn.close().await?;
    Ok(installation)
}

/// The schema that this program knows.
pub fn newest() -> i64 {
    migrations::newest(&MIGRATIONS)
}

/// Makes the partitions of the coming months where they are missing; says how many were.
pub async fn make_partitions(conn: &mut PgConnection) -> Result<i32, LedgerError> {
    let made = sqlx::query_scalar(MAKE_PARTITIONS).bind(MONTHS_AHEAD);
    Ok(made.fetch_one(conn).await?)
}

/// Makes partitions, and counts the records that are in none but the default one.
pub(super) async fn upkeep(conn: &mut PgConnection) -> Result<u64, LedgerError> {
    make_partitions(conn).await?;
    let strays = sqlx::query_scalar(STRAYS).bind(STRAYS_COUNTED);
    let strays: i64 = strays.fetch_one(conn).await?;
    Ok(strays.unsigned_abs())
}

/// What the installation is, once the schema is known to be this program's or a later one's.
pub(in crate::ledger) async fn look_over(
    conn: &mut PgConnection,
) -> Result<Installation, LedgerError> {
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

async fn installation(conn: &mut PgConnection) -> Result<Installation, LedgerError> {
    let row = sqlx::query(INSTALLATION).fetch_one(conn).await?;
    let shards: i16 = row.try_get("shards")?;
    Ok(Installation {
        id: row.try_get("id")?,
        shards: u16::try_from(shards)
            .map_err(|_| LedgerError::Nonsense(format!("{shards} shards")))?,
    })
}
