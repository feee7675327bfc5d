//! Folds the WAL into the file, beside those who write.
//!
//! Left to itself, SQLite does so within the commit that makes the WAL too long: it copies what the WAL has, and has the
//! disk confirm it twice, while every call waits for its group. Here another connection does nearly all of it meanwhile.
//! A turn is taken only for what was written since, so that the WAL is folded as a whole for a moment, and begins anew.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Row, SqliteConnection};
use tokio::time::{sleep, timeout};

use super::file::{self, Access, too_slow};
use crate::ledger::LedgerError;

/// How often the WAL is looked at, while it is written.
const LOOK_EACH: Duration = Duration::from_millis(200);
/// How long the WAL may be before it is folded, in pages of 4 KiB: what is written again and again goes to the file once.
const LONG_PAGES: i64 = 4_000;
/// How long it may be until SQLite folds it within a commit after all.
pub(super) const TOO_LONG_PAGES: &str = "32000";
/// How long it may take to fold it beside those who write, who do not wait for it.
const FOLD_DEADLINE: Duration = Duration::from_secs(30);

const LENGTH: &str = "PRAGMA wal_checkpoint(NOOP)";
const FOLD: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// The WAL, in pages.
#[derive(Debug, Clone, Copy)]
struct Wal {
    length: i64,
    /// How much of it is in the file.
    folded: i64,
}

/// Goes on until it is aborted; every step of it may be cut off.
pub(super) async fn run(access: Arc<Access>) {
    let mut well = true;
    loop {
        access.written.notified().await;
        sleep(LOOK_EACH).await;
        let looked = look(&access).await;
        if let (true, Err(error)) = (well, &looked) {
            tracing::warn!(%error, "the WAL cannot be folded into the file; it grows until it can");
        }
        well = looked.is_ok();
    }
}

/// Folds the WAL where it is long; says whether a turn was taken for it.
async fn look(access: &Access) -> Result<bool, LedgerError> {
    let wal = file::read(async { Wal::after(LENGTH, &mut *access.reader().await?).await }).await?;
    // What is folded as a whole begins anew with the next commit, and does not get shorter until then.
    if wal.length < LONG_PAGES || wal.folded == wal.length {
        return Ok(false);
    }
    let folding = async { Wal::after(FOLD, &mut *access.reader().await?).await };
    let wal = timeout(FOLD_DEADLINE, folding).await;
    let wal = wal.unwrap_or_else(|_| Err(too_slow()))?;
    // Somebody who reads for long, such as a backup, keeps the rest from being folded, and nobody should wait for that.
    if wal.length - wal.folded >= LONG_PAGES {
        return Ok(false);
    }
    let mut turn = access.turn().await;
    let mut conn = turn.connection().await?;
    file::written(Wal::after(FOLD, &mut conn)).await?;
    turn.keep(conn);
    Ok(true)
}

impl Wal {
    /// As such a statement leaves it.
    async fn after(
        statement: &'static str,
        conn: &mut SqliteConnection,
    ) -> Result<Self, LedgerError> {
        let row = sqlx::query(statement).fetch_one(conn).await?;
        Ok(Self {
            length: row.try_get(1)?,
            folded: row.try_get(2)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::{Durability, File};
    use super::*;

    /// A file whose WAL is long, and nobody who folds it by itself.
    async fn with_a_long_wal(folder: &tempfile::TempDir) -> File {
        let path = folder.path().join("tollgate.db");
        let file = File::create(&path, Durability::Process).await.unwrap();
        file.folding.lock().await.shutdown().await;
        let mut turn = file.turn().await;
        let mut conn = turn.connection().await.unwrap();
        let statements =
            "CREATE TABLE fill (page); INSERT INTO fill VALUES (zeroblob(4096 * 4500))";
        sqlx::raw_sql(statements).execute(&mut conn).await.unwrap();
        turn.keep(conn);
        file
    }

    async fn wal(file: &File) -> Wal {
        let mut reader = file.reader().await.unwrap();
        Wal::after(LENGTH, &mut reader).await.unwrap()
    }

    #[tokio::test]
    async fn a_long_wal_is_folded_as_a_whole_and_then_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = with_a_long_wal(&folder).await;
        let before = wal(&file).await;
        assert!(
            before.length >= LONG_PAGES && before.folded == 0,
            "{before:?}"
        );
        assert!(look(&file.access).await.unwrap());
        let after = wal(&file).await;
        assert_eq!(after.folded, after.length);
        assert!(
            !look(&file.access).await.unwrap(),
            "nobody has written since"
        );
        file.close().await.unwrap();
    }

    #[tokio::test]
    async fn no_turn_is_taken_while_somebody_reads_for_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tollgate.db");
        let file = File::create(&path, Durability::Process).await.unwrap();
        let mut reader = file.reader().await.unwrap();
        let begin = "BEGIN; SELECT count(*) FROM sqlite_schema";
        sqlx::raw_sql(begin).execute(&mut *reader).await.unwrap();
        drop(file);
        let file = with_a_long_wal(&folder).await;
        assert!(!look(&file.access).await.unwrap());
        sqlx::raw_sql("COMMIT").execute(&mut *reader).await.unwrap();
        assert!(look(&file.access).await.unwrap());
    }
}
