//! Folds the log into the file, beside those who write.
//!
//! Left to itself, SQLite does so within the commit that makes the log too long: it copies what the log has, and has the
//! disk confirm it twice, while every call waits for its group. Here another connection does nearly all of it meanwhile.
//! A turn is taken only for what was written since, so that the log is folded as a whole for a moment, and begins anew.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Row, SqliteConnection};
use tokio::time::sleep;

use super::file::{self, Access};
use crate::ledger::LedgerError;

/// How often the log is looked at, while it is written.
const LOOK_EACH: Duration = Duration::from_millis(200);
/// How long the log may be before it is folded, in pages of 4 KiB: what is written again and again goes to the file once.
const LONG_PAGES: i64 = 4_000;
/// How long it may be until SQLite folds it within a commit after all.
pub(super) const TOO_LONG_PAGES: &str = "32000";

const LENGTH: &str = "PRAGMA wal_checkpoint(NOOP)";
const FOLD: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// Goes on until it is aborted; every step of it may be cut off.
pub(super) async fn run(access: Arc<Access>) {
    let mut well = true;
    loop {
        access.written.notified().await;
        sleep(LOOK_EACH).await;
        let looked = look(&access).await;
        if let (true, Err(error)) = (well, &looked) {
            tracing::warn!(%error, "the log of the file cannot be folded into it; it grows until it can");
        }
        well = looked.is_ok();
    }
}

async fn look(access: &Access) -> Result<(), LedgerError> {
    if length(&mut *access.reader().await?, LENGTH).await? < LONG_PAGES {
        return Ok(());
    }
    length(&mut *access.reader().await?, FOLD).await?;
    let mut turn = access.turn().await;
    let mut conn = turn.connection().await?;
    file::written(length(&mut conn, FOLD)).await?;
    turn.keep(conn);
    Ok(())
}

/// How long the log is, in pages, after such a statement.
async fn length(conn: &mut SqliteConnection, statement: &'static str) -> Result<i64, LedgerError> {
    let row = sqlx::query(statement).fetch_one(conn).await?;
    Ok(row.try_get(1)?)
}
