//! Why a flush did not write something: for what it says, or for any other reason.
//!
//! Only the first puts entries into quarantine (rule 26), and on every ledger for the same reasons.

use sqlx::sqlite::SqliteError;

use super::LedgerError;
use super::sql::{SQLITE_DATA, sqlite_code};

/// Why something was not written.
#[derive(Debug)]
pub(super) enum Unwritten {
    /// For what it says, in words.
    Odd(String),
    /// For any other reason: the same may be written later.
    Ledger(LedgerError),
}

/// A movement of what is not there would be lost money: nothing is committed then.
pub(super) fn expect_all(what: &str, wanted: usize, found: usize) -> Result<(), Unwritten> {
    if wanted == found {
        return Ok(());
    }
    Err(Unwritten::Odd(format!(
        "entries move {wanted} {what}s, and the ledger has {found} of them"
    )))
}

impl From<sqlx::Error> for Unwritten {
    fn from(error: sqlx::Error) -> Self {
        let of_the_data = is_odd(&error);
        match LedgerError::from(error) {
            LedgerError::Nonsense(reason) if of_the_data => Self::Odd(reason),
            error => Self::Ledger(error),
        }
    }
}

impl From<LedgerError> for Unwritten {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

impl From<Unwritten> for LedgerError {
    fn from(unwritten: Unwritten) -> Self {
        match unwritten {
            Unwritten::Odd(reason) => Self::Nonsense(reason),
            Unwritten::Ledger(error) => error,
        }
    }
}

/// Whether an error speaks of what was to be written: a value that no column takes (22), a constraint that does not hold
/// (23). A schema that is not there, a right that is missing or a defect of the server says nothing of the data.
fn is_odd(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Encode(_) => true,
        sqlx::Error::Database(error) if error.try_downcast_ref::<SqliteError>().is_some() => {
            sqlite_code(&**error).is_some_and(|code| SQLITE_DATA.contains(&code))
        }
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            code.starts_with("22") || code.starts_with("23")
        }
        _ => false,
    }
}
