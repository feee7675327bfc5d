//! Connections that cannot hang: every use of one has a deadline, and a connection that missed it is never used again.
//!
//! sqlx's pool leaks permits on connections that die silently (sqlx#4349). So whoever writes owns a bare connection,
//! and the pool for reads is thrown away once it stops answering.

use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use crate::ledger::LedgerError;

/// How long a connection may take to be made.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// How long one read may take, waiting for a connection included.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// How long one writing transaction may take.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// What the server itself stops, in case nobody is left to hear the answer. Below [`WRITE_DEADLINE`].
const STATEMENT_TIMEOUT_MS: &str = "4000";
/// How long a transaction may keep its locks while it says nothing.
const IDLE_IN_TRANSACTION_MS: &str = "10000";
const READ_CONNECTIONS: u32 = 8;
/// After so many reads in a row that ran out of time, the pool is built anew.
const TIMEOUTS_BEFORE_REBUILD: u32 = 3;

/// How to connect for long work such as a migration: without a limit on one statement.
pub(in crate::ledger) fn patient_options(url: &str) -> Result<PgConnectOptions, LedgerError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| LedgerError::Invalid("the ledger's url is not a postgres:// url".into()))?;
    // Statements carry nothing secret, but they are many: whoever wants them reads the server's own log.
    Ok(options
        .application_name("tollgate")
        .disable_statement_logging())
}

/// How to connect for everything else.
///
/// Each run of a statement is planned anew. The server would keep a plan for as long as a connection lives, and one that
/// was made while a month's partition was empty reads all of it: each flush would read every record of the month.
pub(in crate::ledger) fn options(url: &str) -> Result<PgConnectOptions, LedgerError> {
    Ok(patient_options(url)?.options([
        ("plan_cache_mode", "force_custom_plan"),
        ("statement_timeout", STATEMENT_TIMEOUT_MS),
        (
            "idle_in_transaction_session_timeout",
            IDLE_IN_TRANSACTION_MS,
        ),
    ]))
}

/// One bare connection with one user at a time, made when it is needed.
pub(in crate::ledger) struct Wire {
    options: PgConnectOptions,
    slot: Mutex<Option<PgConnection>>,
}

impl Wire {
    pub(in crate::ledger) fn new(options: PgConnectOptions) -> Self {
        Self {
            options,
            slot: Mutex::new(None),
        }
    }

    /// Waits for its turn; the wait is bounded, since each user before it is.
    pub(in crate::ledger) async fn turn(&self) -> Turn<'_> {
        Turn {
            options: &self.options,
            slot: self.slot.lock().await,
        }
    }
}

/// The right to use a [`Wire`].
pub(in crate::ledger) struct Turn<'a> {
    options: &'a PgConnectOptions,
    slot: MutexGuard<'a, Option<PgConnection>>,
}

impl Turn<'_> {
    /// Takes the connection out. It comes back with [`Turn::keep`] only: what failed half-way, or was given up, closes
    /// its connection, and with it whatever transaction was open.
    pub(in crate::ledger) async fn connection(&mut self) -> Result<PgConnection, LedgerError> {
        match self.slot.take() {
            Some(conn) => Ok(conn),
            None => within(CONNECT_DEADLINE, PgConnection::connect_with(self.options)).await,
        }
    }

    /// Gives the connection back for the next turn.
    pub(in crate::ledger) fn keep(mut self, conn: PgConnection) {
        *self.slot = Some(conn);
    }
}

/// Runs one writing transaction within its deadline.
pub(in crate::ledger) async fn written<T, E>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E>
where
    E: From<LedgerError>,
{
    timeout(WRITE_DEADLINE, work)
        .await
        .unwrap_or_else(|_| Err(too_slow().into()))
}

/// The pool for reads.
pub(in crate::ledger) struct Reads {
    options: PgConnectOptions,
    pool: ArcSwap<PgPool>,
    timeouts: AtomicU32,
}

impl Reads {
    pub(in crate::ledger) fn new(options: PgConnectOptions) -> Self {
        Self {
            pool: ArcSwap::from_pointee(build(&options)),
            options,
            timeouts: AtomicU32::new(0),
        }
    }

    /// Reads within the deadline.
    pub(in crate::ledger) async fn read<T, F>(
        &self,
        read: impl FnOnce(PgPool) -> F + Send,
    ) -> Result<T, LedgerError>
    where
        F: Future<Output = Result<T, LedgerError>> + Send,
    {
        let pool = PgPool::clone(&self.pool.load());
        let Ok(answer) = timeout(READ_DEADLINE, read(pool)).await else {
            if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= TIMEOUTS_BEFORE_REBUILD {
                self.timeouts.store(0, Ordering::Relaxed);
                self.pool.store(build(&self.options).into());
            }
            return Err(too_slow());
        };
        self.timeouts.store(0, Ordering::Relaxed);
        answer
    }
}

fn build(options: &PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(READ_CONNECTIONS)
        // Longer than the deadline, so that a silent server always counts as one.
        .acquire_timeout(READ_DEADLINE * 2)
        .connect_lazy_with(options.clone())
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
pub(in crate::ledger) fn too_slow() -> LedgerError {
    LedgerError::Away("no answer in time".into())
}
