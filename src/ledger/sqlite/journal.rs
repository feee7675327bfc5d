//! The journal of the embedded store, in the ledger's own file (rule 28).
//!
//! Ledger and journal have one WAL, so what survives a fall of the machine is a beginning of both: no flush is there
//! without the endings that it flushed.

use std::sync::Arc;

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Row, Sqlite, SqliteConnection};

use super::file::{self, File};
use crate::ledger::LedgerError;
use crate::quota::ShardId;
use crate::quota::embedded::{Group, GroupSeq, Journal, JournalError, ShardSnapshot};

/// Nothing that a snapshot has passed already, or that does not follow the last group: whoever reads the journal again
/// would leave it out, or read it in another order.
const COMMIT: &str = "\
    INSERT INTO journal_group (seq, body) SELECT ?1, ?2 \
    WHERE NOT EXISTS (SELECT 1 FROM journal_group WHERE seq >= ?1) \
    AND NOT EXISTS (SELECT 1 FROM journal_snapshot WHERE after_seq >= ?1)";
const KEEP: &str = "\
    INSERT INTO journal_snapshot (shard, after_seq, body) VALUES (?1, ?2, ?3) \
    ON CONFLICT (shard) DO UPDATE SET after_seq = excluded.after_seq, body = excluded.body \
    WHERE excluded.after_seq >= journal_snapshot.after_seq";
const PRUNE: &str = "\
    DELETE FROM journal_group WHERE seq IN (SELECT seq FROM journal_group WHERE seq <= ?1 ORDER BY seq LIMIT ?2)";
/// Pages that are freed are written, too, as zeros; without it they would never reach the disk.
const FREED_IS_WRITTEN: &str = "PRAGMA secure_delete = ON";
const PROBE: &str = "INSERT INTO journal_group (seq, body) VALUES (?1, zeroblob(?2))";
const UNPROBE: &str = "DELETE FROM journal_group WHERE seq = ?1";
const SNAPSHOTS: &str = "SELECT shard, after_seq, body FROM journal_snapshot ORDER BY shard";
const GROUPS: &str = "SELECT seq, body FROM journal_group WHERE seq > ?1 ORDER BY seq LIMIT ?2";

/// Groups that are dropped in one transaction.
const PRUNED_AT_ONCE: u32 = 256;
/// What a probe writes: as much as a long group, so that a disk with room for next to nothing does not count as one that
/// takes groups.
const PROBE_BYTES: u32 = 512 * 1024;
/// No group ever has it.
const PROBE_SEQ: i64 = i64::MAX;

/// The journal in a file.
pub struct SqliteJournal {
    file: Arc<File>,
}

impl SqliteJournal {
    /// Of a file that has been migrated.
    pub fn new(file: Arc<File>) -> Self {
        Self { file }
    }

    /// A transaction of its own, of one statement.
    async fn write(&self, query: Query<'_, Sqlite, SqliteArguments>) -> Result<u64, LedgerError> {
        let mut turn = self.file.turn().await;
        let mut conn = turn.connection().await?;
        let written = async { Ok::<_, LedgerError>(query.execute(&mut conn).await?) };
        let done = file::written(written).await?;
        turn.keep(conn);
        Ok(done.rows_affected())
    }
}

impl Journal for SqliteJournal {
    async fn commit(&self, group: Group) -> Result<(), JournalError> {
        let GroupSeq(seq) = group.seq;
        let query = sqlx::query(COMMIT).bind(seq).bind(group.body);
        if self.write(query).await? == 0 {
            return Err(JournalError(format!(
                "it has a group or a snapshot as late as group {seq}: has another process written to this file?"
            )));
        }
        Ok(())
    }

    async fn probe(&self) -> Result<(), JournalError> {
        let mut turn = self.file.turn().await;
        // The connection is not given back: no other one is to free pages so.
        let mut conn = turn.connection().await?;
        Ok(file::written(probe(&mut conn)).await?)
    }

    async fn keep(&self, snapshot: ShardSnapshot) -> Result<(), JournalError> {
        let query = sqlx::query(KEEP)
            .bind(snapshot.shard.0)
            .bind(snapshot.after.0)
            .bind(snapshot.body);
        self.write(query).await?;
        Ok(())
    }

    async fn prune(&self, upto: GroupSeq) -> Result<(), JournalError> {
        loop {
            let query = sqlx::query(PRUNE).bind(upto.0).bind(PRUNED_AT_ONCE);
            if self.write(query).await? < u64::from(PRUNED_AT_ONCE) {
                return Ok(());
            }
        }
    }

    async fn snapshots(&self) -> Result<Vec<ShardSnapshot>, JournalError> {
        Ok(file::read(async { snapshots(&mut *self.file.reader().await?).await }).await?)
    }

    async fn groups(&self, after: GroupSeq, max: usize) -> Result<Vec<Group>, JournalError> {
        Ok(file::read(async { groups(&mut *self.file.reader().await?, after, max).await }).await?)
    }
}

/// In one transaction, so that nobody ever sees it.
async fn probe(conn: &mut SqliteConnection) -> Result<(), LedgerError> {
    sqlx::query(FREED_IS_WRITTEN).execute(&mut *conn).await?;
    let mut tx = file::begin(conn).await?;
    let probe = sqlx::query(PROBE).bind(PROBE_SEQ).bind(PROBE_BYTES);
    probe.execute(&mut *tx).await?;
    let unprobe = sqlx::query(UNPROBE).bind(PROBE_SEQ);
    unprobe.execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

async fn snapshots(conn: &mut SqliteConnection) -> Result<Vec<ShardSnapshot>, LedgerError> {
    let rows = sqlx::query(SNAPSHOTS).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            Ok(ShardSnapshot {
                shard: ShardId(row.try_get("shard")?),
                after: GroupSeq(row.try_get("after_seq")?),
                body: row.try_get("body")?,
            })
        })
        .collect()
}

async fn groups(
    conn: &mut SqliteConnection,
    after: GroupSeq,
    max: usize,
) -> Result<Vec<Group>, LedgerError> {
    let rows = sqlx::query(GROUPS)
        .bind(after.0)
        .bind(i64::try_from(max).unwrap_or(i64::MAX))
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Group {
                seq: GroupSeq(row.try_get("seq")?),
                body: row.try_get("body")?,
            })
        })
        .collect()
}

impl From<LedgerError> for JournalError {
    fn from(error: LedgerError) -> Self {
        Self(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::sqlite::file::Durability;
    use crate::ledger::sqlite::schema;

    #[tokio::test]
    async fn a_probe_reaches_the_disk_in_full_and_leaves_no_group() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tollgate.db");
        let file = Arc::new(File::create(&path, Durability::Process).await.unwrap());
        schema::migrate(&file, None).await.unwrap();
        let journal = SqliteJournal::new(file.clone());
        // While somebody reads, the log is neither folded into the file nor begun anew.
        let mut reader = file.reader().await.unwrap();
        let begin = sqlx::raw_sql("BEGIN; SELECT count(*) FROM journal_group");
        begin.execute(&mut *reader).await.unwrap();
        let log = path.with_extension("db-wal");
        let length = || std::fs::metadata(&log).unwrap().len();
        let before = length();
        journal.probe().await.unwrap();
        assert!(length() >= before + u64::from(PROBE_BYTES));
        assert!(journal.groups(GroupSeq(0), 1).await.unwrap().is_empty());
    }
}
