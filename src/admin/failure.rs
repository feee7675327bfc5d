//! How a command fails, and the exit code that says so: the only place that knows exit codes.

use std::io;

use super::output::Output;
use crate::config::ConfigError;
use crate::ledger::{ApplyError, CheckError, FlushError, LedgerError, LoadError};
use crate::proxy::ServeError;
use crate::quota::embedded::RecoveryError;
use crate::quota::{ShardId, StoreError};

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It did, and what it checked is wrong.
    #[error("{0}")]
    Check(String),
    /// It was asked for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// The configuration is of no use.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The ledger refused, or is away.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store is away, or is not the one the ledger knows.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store is there, and not to be touched.
    #[error("shard {shard} of the store is not to be touched: {reason}")]
    Refused { shard: ShardId, reason: String },
    /// Something else it needs is away.
    #[error("{0}")]
    Away(String),
    /// The answer could not be written down.
    #[error("the answer could not be written: {0}")]
    Output(#[source] io::Error),
    /// The machine would not let it run.
    #[error("it cannot run here: {0}")]
    Process(#[source] io::Error),
}

impl Failure {
    /// A promise of the contract that is not kept yet.
    pub fn not_built(command: &str) -> Self {
        Self::Usage(format!("`tollgate {command}` is not built yet"))
    }

    /// Tells people why, and machines how.
    pub fn report(&self, output: &Output) -> u8 {
        output.note(&format!("tollgate: {self}"));
        if let Some(advice) = self.advice() {
            output.note(&format!("  {advice}"));
        }
        self.code()
    }

    /// Says why in the log.
    pub fn log(&self) -> u8 {
        tracing::error!(advice = self.advice(), "{self}");
        self.code()
    }

    /// What to do, where that is not said by whoever noticed.
    fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Ledger(LedgerError::Away(_)) => Some(
                "Is [ledger] url right? With postgres://: is there such a database and such a user, and does PostgreSQL \
                 answer there? With sqlite://: may this user read and write the file, and is there space on its disk?",
            ),
            Self::Store(StoreError::Away(_)) => Some(
                "Is [store] url right, and does Redis answer there? The embedded store needs its file, and space on its disk.",
            ),
            Self::Store(StoreError::Lost { .. }) => Some(
                "A new epoch began meanwhile: try again. What the store had lost is loaded from the ledger.",
            ),
            _ => None,
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Check(_) => 1,
            Self::Usage(_) | Self::Config(_) | Self::Ledger(LedgerError::Invalid(_)) => 2,
            Self::Ledger(LedgerError::Away(_) | LedgerError::Nonsense(_))
            | Self::Store(_)
            | Self::Refused { .. }
            | Self::Away(_)
            | Self::Output(_)
            | Self::Process(_) => 3,
        }
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Listen { .. } => Self::Usage(format!(
                "{error}: choose another address in [listen], or with `tollgate demo --listen`"
            )),
            ServeError::Runtime(error) | ServeError::Roots(error) | ServeError::Trace(error) => {
                Self::Process(error)
            }
            ServeError::Journal { .. } => Self::Usage(format!(
                "{error}: name a file of its own for each sidecar in [store] bounded_journal"
            )),
        }
    }
}

impl From<RecoveryError> for Failure {
    fn from(error: RecoveryError) -> Self {
        match error {
            RecoveryError::Format(_) => Self::Usage(error.to_string()),
            RecoveryError::Journal(_) | RecoveryError::Damaged(_) => Self::Away(error.to_string()),
        }
    }
}

impl From<CheckError> for Failure {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Ledger(error) => Self::Ledger(error),
            CheckError::Store(error) => Self::Store(error),
        }
    }
}

impl From<ApplyError> for Failure {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Ledger(error) => Self::Ledger(error),
            ApplyError::Store(error) => Self::Store(error),
            ApplyError::NoHeader(_) | ApplyError::Endless(_) => Self::Away(error.to_string()),
        }
    }
}

impl From<FlushError> for Failure {
    fn from(error: FlushError) -> Self {
        match error {
            FlushError::Ledger(error) => Self::Ledger(error),
            FlushError::Store(error) => Self::Store(error),
        }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::NoAccount => Self::Usage(error.to_string()),
            LoadError::Store(error) => Self::Store(error),
            LoadError::Ledger(_) | LoadError::Behind | LoadError::Undrained => {
                Self::Away(error.to_string())
            }
        }
    }
}
