//! One SQLite file: one connection that writes, a few that read, and nobody waits without a bound.
//!
//! SQLite takes one writer at a time and turns others away as busy. So all that writes in this process, the ledger, its
//! administration and the store's journal, takes its turn here, first come, first served. Whoever has a turn never
//! waits for the store, which may be waiting for a turn of its journal.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Sqlite, SqliteConnection, SqlitePool, Transaction};
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::folding;
use crate::ledger::LedgerError;

/// How long the file may take to be opened.
const OPEN_DEADLINE: Duration = Duration::from_secs(4);
/// How long one read may take, waiting for a connection included.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// How long one writing transaction may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// How long SQLite waits for a lock of another process, such as a backup. Below every deadline, so that whoever waited
/// hears why.
const BUSY_TIMEOUT: Duration = Duration::from_millis(1500);
/// Each is a thread.
const READ_CONNECTIONS: u32 = 4;
/// How much of the file each of them keeps, in KiB: little, since the system keeps it for all of them.
const READ_CACHE_KIB: u32 = 256;
const BEGIN: &str = "BEGIN IMMEDIATE";

/// What survives once it is committed (rule 28).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, however it comes.
    Process,
    /// The end of the machine, too: each commit waits for the disk.
    Power,
}

/// An open file.
pub struct File {
    pub(super) access: Arc<Access>,
    /// What folds the WAL; it ends with the file.
    pub(super) folding: Mutex<JoinSet<()>>,
    /// Held by whoever compares the store with what is written here: one at a time, as under a row's lock in PostgreSQL.
    looks: Mutex<()>,
}

/// The ways into a file.
pub(super) struct Access {
    options: SqliteConnectOptions,
    writer: Mutex<Option<SqliteConnection>>,
    /// Connections of their own: in WAL mode they neither wait for a writer nor hold one up.
    reads: SqlitePool,
    /// Somebody had a turn.
    pub written: Notify,
}

impl File {
    /// Opens a file that is there.
    pub async fn open(path: &Path, durability: Durability) -> Result<Self, LedgerError> {
        let options = SqliteConnectOptions::new().filename(path);
        let options = writing(options, durability);
        // The writer comes first: it puts a new file into WAL mode.
        let writer = connect(&options).await?;
        let reads = options
            .clone()
            .pragma("query_only", "ON")
            // SQLite takes a number below zero as KiB.
            .pragma("cache_size", format!("-{READ_CACHE_KIB}"));
        let pool = SqlitePoolOptions::new()
            .max_connections(READ_CONNECTIONS)
            .acquire_timeout(READ_DEADLINE)
            .test_before_acquire(false)
            .connect_lazy_with(reads);
        let access = Arc::new(Access {
            options,
            writer: Mutex::new(Some(writer)),
            reads: pool,
            written: Notify::new(),
        });
        let mut folding = JoinSet::new();
        folding.spawn(folding::run(access.clone()));
        Ok(Self {
            access,
            folding: Mutex::new(folding),
            looks: Mutex::default(),
        })
    }

    /// Opens a file, and makes it first where there is none. Only its owner may read it.
    pub async fn create(path: &Path, durability: Durability) -> Result<Self, LedgerError> {
        let mut new = std::fs::OpenOptions::new();
        new.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut new, 0o600);
        new.open(path)
            .map_err(|error| LedgerError::Away(format!("{}: {error}", path.display())))?;
        Self::open(path, durability).await
    }

    /// Waits for its turn to write; the wait is bounded, since each one before it is.
    pub async fn turn(&self) -> Turn<'_> {
        self.access.turn().await
    }

    /// Waits for its turn to compare the store with what is written here. Whoever has it may wait for the store, and take
    /// a turn to write; nobody asks for it who has one.
    pub(super) async fn look(&self) -> MutexGuard<'_, ()> {
        self.looks.lock().await
    }

    /// A connection to read from. Use it within [`read`].
    pub async fn reader(&self) -> Result<PoolConnection<Sqlite>, LedgerError> {
        self.access.reader().await
    }

    /// Closes every connection, when all that use it are done; the last one folds the WAL into the file.
    pub async fn close(&self) -> Result<(), LedgerError> {
        self.folding.lock().await.shutdown().await;
        self.access.reads.close().await;
        match self.access.writer.lock().await.take() {
            Some(writer) => within(WRITE_DEADLINE, writer.close()).await,
            None => Ok(()),
        }
    }
}

impl Access {
    /// See [`File::turn`].
    pub async fn turn(&self) -> Turn<'_> {
        Turn {
            access: self,
            slot: self.writer.lock().await,
        }
    }

    /// See [`File::reader`].
    pub async fn reader(&self) -> Result<PoolConnection<Sqlite>, LedgerError> {
        Ok(self.reads.acquire().await?)
    }
}

/// The right to write.
pub struct Turn<'a> {
    access: &'a Access,
    slot: MutexGuard<'a, Option<SqliteConnection>>,
}

impl Turn<'_> {
    /// Takes the connection out. It comes back with [`Turn::keep`] only: what failed half-way, or was given up, closes
    /// its connection, and with it whatever transaction was open.
    pub async fn connection(&mut self) -> Result<SqliteConnection, LedgerError> {
        match self.slot.take() {
            Some(conn) => Ok(conn),
            None => connect(&self.access.options).await,
        }
    }

    /// Gives the connection back for the next turn.
    pub fn keep(mut self, conn: SqliteConnection) {
        *self.slot = Some(conn);
        self.access.written.notify_one();
    }
}

/// Begins a transaction that may write at once: one that only finds out later may be turned away for good.
pub async fn begin(conn: &mut SqliteConnection) -> Result<Transaction<'_, Sqlite>, LedgerError> {
    Ok(conn.begin_with(BEGIN).await?)
}

/// Reads within the deadline, waiting for a connection included.
pub async fn read<T>(work: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
    timeout(READ_DEADLINE, work)
        .await
        .unwrap_or_else(|_| Err(too_slow()))
}

/// Runs one writing transaction within its deadline.
pub async fn written<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<T, E>
where
    E: From<LedgerError>,
{
    timeout(WRITE_DEADLINE, work)
        .await
        .unwrap_or_else(|_| Err(too_slow().into()))
}

fn writing(options: SqliteConnectOptions, durability: Durability) -> SqliteConnectOptions {
    let synchronous = match durability {
        // The WAL is in the system's hands with each commit, and on the disk with each checkpoint.
        Durability::Process => SqliteSynchronous::Normal,
        Durability::Power => SqliteSynchronous::Full,
    };
    options
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // What a statement keeps beside the file, such as the pages it may have to put back, never needs a file of its own.
        .pragma("temp_store", "MEMORY")
        .pragma("wal_autocheckpoint", folding::TOO_LONG_PAGES)
        .thread_name(|number| format!("sqlite-{number}"))
        // Statements carry nothing secret, but they are many.
        .disable_statement_logging()
}

async fn connect(options: &SqliteConnectOptions) -> Result<SqliteConnection, LedgerError> {
    within(OPEN_DEADLINE, options.connect()).await
}

async fn within<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, LedgerError> {
    match timeout(deadline, work).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(too_slow()),
    }
}

/// What a missed deadline means.
pub(super) fn too_slow() -> LedgerError {
    LedgerError::Away("no answer in time".into())
}
