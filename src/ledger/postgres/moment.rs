//! Moments, as the columns of PostgreSQL have them.

use sqlx::Row;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use crate::clock::UnixMs;
use crate::ledger::LedgerError;

/// To be written.
pub(in crate::ledger) fn column(at: UnixMs) -> OffsetDateTime {
    at.to_utc()
}

/// As it is read; null is nothing.
pub(in crate::ledger) fn read(
    row: &PgRow,
    column: &'static str,
) -> Result<Option<OffsetDateTime>, LedgerError> {
    Ok(row.try_get(column)?)
}
