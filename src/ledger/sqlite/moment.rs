//! Moments, as the columns of SQLite have them: milliseconds since 1970.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;

use crate::clock::UnixMs;
use crate::ledger::LedgerError;

/// To be written.
pub(in crate::ledger) fn column(at: UnixMs) -> i64 {
    at.0
}

/// As it is read; null is nothing.
pub(in crate::ledger) fn read(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<OffsetDateTime>, LedgerError> {
    let at: Option<i64> = row.try_get(column)?;
    Ok(at.map(|at| UnixMs(at).to_utc()))
}
