//! Where a test's ledger is, and what tests say to it in SQL: in PostgreSQL or in a SQLite file.
//!
//! A statement that both understand is written once; the few that differ are here.

use std::sync::Arc;

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, FromRow, PgConnection, PgPool, SqliteConnection};
use tempfile::TempDir;
use tollgate::clock::UnixMs;
use tollgate::ledger::admin::Admin;
use tollgate::ledger::posting::Posting;
use tollgate::ledger::sqlite::file::{Durability, File, begin};
use tollgate::ledger::{AnyLedger, PostgresLedger, SqliteLedger, postgres, sqlite};
use tollgate::money::Nanos;
use tollgate::quota::{AccountId, ChangeBody, Lot, LotId, Moved, ShardId};

use crate::harness::postgres::{SHARDS, database};

#[derive(Clone)]
pub enum Place {
    Postgres {
        url: String,
        pool: PgPool,
    },
    Sqlite {
        file: Arc<File>,
        /// Deleted when the last who uses it is gone.
        _folder: Arc<TempDir>,
    },
}

/// A grant, as tests make it.
pub struct TestGrant<'a> {
    pub nanos: i64,
    pub priority: i32,
    pub kind: &'a str,
    pub effective_at: UnixMs,
    pub expires_at: Option<UnixMs>,
}

const ACCOUNT: &str = "INSERT INTO account (id, shard) VALUES ($1, $2)";
const GRANT: &str = "\
    INSERT INTO credit_grant (account_id, amount_nanos, balance_nanos, priority, kind, source, effective_at, expires_at) \
    VALUES ($1, $2, $2, $3, $4, 'test', $5, $6) RETURNING id";
const POST: &str = "INSERT INTO posting (id, account_id, kind) VALUES ($1, $2, 'grant')";
const ENTER: &str = "\
    INSERT INTO ledger_entry (posting_id, account_id, book, lot_id, amount_nanos) \
    VALUES ($1, $2, 'lot', $3, $4), ($1, $2, 'granted', NULL, -$4)";
const CLOSE: &str = "UPDATE posting SET closed = 1 WHERE id = $1";

impl Place {
    pub async fn postgres() -> Self {
        let url = database().await;
        let pool = PgPool::connect(&url).await.unwrap();
        Self::Postgres { url, pool }
    }

    pub async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tollgate.db");
        let file = File::create(&path, Durability::Process).await.unwrap();
        sqlite::schema::migrate(&file, Some(SHARDS)).await.unwrap();
        Self::Sqlite {
            file: Arc::new(file),
            _folder: Arc::new(folder),
        }
    }

    /// The same kind of place, and nothing in it.
    pub async fn another(&self) -> Self {
        match self {
            Self::Postgres { .. } => Self::postgres().await,
            Self::Sqlite { .. } => Self::sqlite().await,
        }
    }

    pub async fn ledger(&self) -> AnyLedger {
        match self {
            Self::Postgres { url, .. } => {
                AnyLedger::Postgres(PostgresLedger::connect(url).await.unwrap())
            }
            Self::Sqlite { file, .. } => {
                AnyLedger::Sqlite(SqliteLedger::over(file.clone()).await.unwrap())
            }
        }
    }

    pub async fn admin(&self) -> Admin {
        let admin = match self {
            Self::Postgres { url, .. } => Admin::connect(url).await,
            Self::Sqlite { file, .. } => Admin::over(file.clone()).await,
        };
        admin.unwrap()
    }

    /// For what is PostgreSQL's alone.
    pub fn pool(&self) -> &PgPool {
        match self {
            Self::Postgres { pool, .. } => pool,
            Self::Sqlite { .. } => panic!("this test is of PostgreSQL"),
        }
    }

    /// Runs a statement, and says what is wrong with it.
    pub async fn run(&self, statement: &str) -> Result<(), String> {
        let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
        let done = match self {
            Self::Postgres { pool, .. } => statement.execute(pool).await.map(|_| ()),
            Self::Sqlite { file, .. } => {
                let mut turn = file.turn().await;
                let mut conn = turn.connection().await.unwrap();
                let done = statement.execute(&mut conn).await.map(|_| ());
                turn.keep(conn);
                done
            }
        };
        done.map_err(|error| error.to_string())
    }

    /// The rows of a statement that asks for an account.
    pub async fn rows<T>(&self, statement: &'static str, account: &AccountId) -> Vec<T>
    where
        T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        match self {
            Self::Postgres { pool, .. } => {
                let rows = sqlx::query_as(statement).bind(account.as_str());
                rows.fetch_all(pool).await.unwrap()
            }
            Self::Sqlite { file, .. } => {
                let rows = sqlx::query_as(statement).bind(account.as_str());
                let mut reader = file.reader().await.unwrap();
                rows.fetch_all(&mut *reader).await.unwrap()
            }
        }
    }

    /// The rows of a statement that asks for nothing in particular.
    pub async fn all_rows<T>(&self, statement: &'static str) -> Vec<T>
    where
        T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        match self {
            Self::Postgres { pool, .. } => {
                let rows = sqlx::query_as(statement);
                rows.fetch_all(pool).await.unwrap()
            }
            Self::Sqlite { file, .. } => {
                let rows = sqlx::query_as(statement);
                let mut reader = file.reader().await.unwrap();
                rows.fetch_all(&mut *reader).await.unwrap()
            }
        }
    }

    /// A moment, as a statement says it.
    pub fn moment(&self, at: UnixMs) -> String {
        match self {
            Self::Postgres { .. } => format!("to_timestamp({}::float8 / 1000)", at.0),
            Self::Sqlite { .. } => at.0.to_string(),
        }
    }

    /// Numbers a change of an account.
    pub async fn append(&self, account: &AccountId, shard: ShardId, body: ChangeBody) {
        match self {
            Self::Postgres { pool, .. } => {
                let mut tx = pool.begin().await.unwrap();
                let locked = postgres::change::LockedShard::lock(&mut tx, shard).await;
                let appended = locked
                    .unwrap()
                    .append(&mut tx, &[(account.clone(), body)])
                    .await;
                appended.unwrap();
                tx.commit().await.unwrap();
            }
            Self::Sqlite { file, .. } => {
                let mut turn = file.turn().await;
                let mut conn = turn.connection().await.unwrap();
                let mut tx = begin(&mut conn).await.unwrap();
                let locked = sqlite::change::LockedShard::lock(&mut tx, shard).await;
                let appended = locked
                    .unwrap()
                    .append(&mut tx, &[(account.clone(), body)])
                    .await;
                appended.unwrap();
                tx.commit().await.unwrap();
                turn.keep(conn);
            }
        }
    }

    pub async fn add_account(&self, account: &AccountId, shard: ShardId) {
        let shard = i16::try_from(shard.0).unwrap();
        match self {
            Self::Postgres { pool, .. } => {
                let insert = sqlx::query(ACCOUNT).bind(account.as_str()).bind(shard);
                insert.execute(pool).await.unwrap();
            }
            Self::Sqlite { file, .. } => {
                let mut turn = file.turn().await;
                let mut conn = turn.connection().await.unwrap();
                let insert = sqlx::query(ACCOUNT).bind(account.as_str()).bind(shard);
                insert.execute(&mut conn).await.unwrap();
                turn.keep(conn);
            }
        }
    }

    /// Grants credit as a command does: the grant, its posting and its change in one transaction.
    pub async fn grant(&self, account: &AccountId, shard: ShardId, grant: &TestGrant<'_>) -> LotId {
        match self {
            Self::Postgres { pool, .. } => {
                let mut tx = pool.begin().await.unwrap();
                let lot = grant_in_postgres(&mut tx, account, shard, grant).await;
                tx.commit().await.unwrap();
                lot
            }
            Self::Sqlite { file, .. } => {
                let mut turn = file.turn().await;
                let mut conn = turn.connection().await.unwrap();
                let mut tx = begin(&mut conn).await.unwrap();
                let lot = grant_in_sqlite(&mut tx, account, shard, grant).await;
                tx.commit().await.unwrap();
                turn.keep(conn);
                lot
            }
        }
    }
}

async fn grant_in_postgres(
    tx: &mut PgConnection,
    account: &AccountId,
    shard: ShardId,
    grant: &TestGrant<'_>,
) -> LotId {
    use postgres::change::LockedShard;

    let mut shard = LockedShard::lock(tx, shard).await.unwrap();
    let lot: i64 = sqlx::query_scalar(GRANT)
        .bind(account.as_str())
        .bind(grant.nanos)
        .bind(grant.priority)
        .bind(grant.kind)
        .bind(grant.effective_at.to_utc())
        .bind(grant.expires_at.map(UnixMs::to_utc))
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    let posting = Posting::of_grant(account, LotId(lot), Nanos(grant.nanos)).id;
    let post = sqlx::query(POST).bind(posting).bind(account.as_str());
    post.execute(&mut *tx).await.unwrap();
    let enter = sqlx::query(ENTER).bind(posting).bind(account.as_str());
    let enter = enter.bind(lot).bind(grant.nanos);
    enter.execute(&mut *tx).await.unwrap();
    let order = postgres::account::lots(tx, account).await.unwrap();
    let body = change(order, lot, grant.nanos);
    shard.append(tx, &[(account.clone(), body)]).await.unwrap();
    LotId(lot)
}

async fn grant_in_sqlite(
    tx: &mut SqliteConnection,
    account: &AccountId,
    shard: ShardId,
    grant: &TestGrant<'_>,
) -> LotId {
    use sqlite::change::LockedShard;

    let mut shard = LockedShard::lock(tx, shard).await.unwrap();
    let lot: i64 = sqlx::query_scalar(GRANT)
        .bind(account.as_str())
        .bind(grant.nanos)
        .bind(grant.priority)
        .bind(grant.kind)
        .bind(grant.effective_at.0)
        .bind(grant.expires_at.map(|at| at.0))
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    let posting = Posting::of_grant(account, LotId(lot), Nanos(grant.nanos)).id;
    let post = sqlx::query(POST).bind(posting).bind(account.as_str());
    post.execute(&mut *tx).await.unwrap();
    let enter = sqlx::query(ENTER).bind(posting).bind(account.as_str());
    let enter = enter.bind(lot).bind(grant.nanos);
    enter.execute(&mut *tx).await.unwrap();
    let close = sqlx::query(CLOSE).bind(posting);
    close.execute(&mut *tx).await.unwrap();
    let order = sqlite::account::lots(tx, account).await.unwrap();
    let body = change(order, lot, grant.nanos);
    shard.append(tx, &[(account.clone(), body)]).await.unwrap();
    LotId(lot)
}

fn change(order: Vec<(Lot, Nanos)>, lot: i64, nanos: i64) -> ChangeBody {
    ChangeBody {
        lots: Some(order.into_iter().map(|(lot, _)| lot).collect()),
        moved: Moved {
            lots: vec![(LotId(lot), Nanos(nanos))],
            ..Moved::default()
        },
        repay: true,
        ..ChangeBody::default()
    }
}
