//! What both SQL ledgers read alike: the words in their columns, and what their errors mean.
//!
//! An error means the same wherever it comes from: whether an entry goes to quarantine must not depend on the backend.

use std::collections::HashMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::error::DatabaseError;
use sqlx::sqlite::SqliteError;
use sqlx::types::Json;
use sqlx::{ColumnIndex, Decode, Row, Type};
use uuid::Uuid;

use super::LedgerError;
use super::batch::Known;
use super::decide::{Recorded, Taken};
use super::record::Numbers;
use crate::money::Nanos;
use crate::quota::{AccountId, ReservationId};

/// A column that holds one of an enum's words, as its serde names them.
pub(super) fn word<'r, T, R>(row: &'r R, column: &'static str) -> Result<T, LedgerError>
where
    T: DeserializeOwned,
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    let text: String = row.try_get(column)?;
    serde_json::from_value(serde_json::Value::String(text))
        .map_err(|error| LedgerError::Nonsense(format!("{column}: {error}")))
}

/// As a column of JSON takes it.
pub(super) fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("what is recorded has string keys only")
}

/// The row's `account_id`.
pub(super) fn account_id<'r, R>(row: &'r R) -> Result<AccountId, LedgerError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    String: Decode<'r, R::Database> + Type<R::Database>,
{
    let text: String = row.try_get("account_id")?;
    to_account_id(&text)
}

/// An account's id, as a column has it.
pub(super) fn to_account_id(text: &str) -> Result<AccountId, LedgerError> {
    text.parse()
        .map_err(|_| LedgerError::Nonsense(format!("`{text}` is no account id")))
}

/// The ids in rows of records.
pub(super) fn ids<'r, R>(rows: &'r [R]) -> Result<Vec<Uuid>, LedgerError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
{
    let ids = rows.iter().map(|row| Ok(row.try_get("id")?));
    ids.collect()
}

/// What rows of records say of their reservations, corrections among them.
pub(super) fn recorded<'r, R>(rows: &'r [R]) -> Result<HashMap<ReservationId, Known>, LedgerError>
where
    R: Row,
    &'static str: ColumnIndex<R>,
    i64: Decode<'r, R::Database> + Type<R::Database>,
    String: Decode<'r, R::Database> + Type<R::Database>,
    Uuid: Decode<'r, R::Database> + Type<R::Database>,
    Json<Taken>: Decode<'r, R::Database> + Type<R::Database>,
{
    let mut known = HashMap::new();
    let mut corrections = Vec::new();
    for row in rows {
        let Json(taken): Json<Taken> = row.try_get("allocation")?;
        if let Some(corrects) = row.try_get::<Option<Uuid>, _>("corrects")? {
            corrections.push((ReservationId(corrects), taken));
            continue;
        }
        let outcome: String = row.try_get("outcome")?;
        let outcome = outcome
            .parse()
            .map_err(|()| LedgerError::Nonsense(format!("a record is `{outcome}`")))?;
        let recorded = Recorded {
            outcome,
            corrected: false,
            taken,
        };
        let numbers = Numbers {
            input_tokens: row.try_get("input_tokens")?,
            output_tokens: row.try_get("output_tokens")?,
            cache_read_tokens: row.try_get("cache_read_tokens")?,
            cache_write_tokens: row.try_get("cache_write_tokens")?,
            cost: Nanos(row.try_get("cost_nanos")?),
        };
        known.insert(
            ReservationId(row.try_get("id")?),
            Known { recorded, numbers },
        );
    }
    for (id, taken) in corrections {
        let corrected: &mut Known = known.get_mut(&id).ok_or_else(|| {
            LedgerError::Nonsense(format!("a correction corrects {id}, which is not there"))
        })?;
        corrected.recorded.corrected = true;
        corrected.recorded.taken = std::mem::take(&mut corrected.recorded.taken).and(&taken);
    }
    Ok(known)
}

/// The classes of SQLSTATE that speak of the server's state, not of what was asked of it: connection, authorization,
/// missing database, read-only standby, rollback, resources, locks, shutdown and cancel, system.
const CLASSES_OF_AWAY: [&str; 9] = ["08", "25", "28", "3D", "40", "53", "55", "57", "58"];

/// What SQLite says of the data itself: too big, a constraint, a wrong type.
pub(super) const SQLITE_DATA: [i32; 3] = [18, 19, 20];
/// What it says of a request: that it makes no sense, or of a file that is no database. Whatever else it says is the
/// file's state: busy, locked, read-only, full, damaged, out of memory.
const SQLITE_REQUEST: [i32; 2] = [1, 26];

/// The plain code: an extended one has it in its last byte.
pub(super) fn sqlite_code(error: &dyn DatabaseError) -> Option<i32> {
    let code = error.code()?.parse::<i32>().ok()?;
    Some(code & 0xff)
}

impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                // The message names tables and constraints; what was being written is in its detail, left out.
                let text = format!("{} ({code})", error.message());
                // Of a row without a partition PostgreSQL says that a check fails, and names no constraint: the schema is
                // behind, and the row is in order (rule 26).
                let has_no_partition = code == "23514" && error.constraint().is_none();
                let away = if error.try_downcast_ref::<SqliteError>().is_some() {
                    let plain = sqlite_code(&*error).unwrap_or_default();
                    !SQLITE_DATA.contains(&plain) && !SQLITE_REQUEST.contains(&plain)
                } else {
                    CLASSES_OF_AWAY.iter().any(|class| code.starts_with(class)) || has_no_partition
                };
                if away {
                    Self::Away(text)
                } else {
                    Self::Nonsense(text)
                }
            }
            sqlx::Error::RowNotFound
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::Encode(_) => Self::Nonsense(error.to_string()),
            other => Self::Away(other.to_string()),
        }
    }
}
