//! A look at a shard (rule 21).
//!
//! What the store says must not be older than what the row says. PostgreSQL locks the row meanwhile; here that would lock
//! the file, and the store may be waiting for its journal, which is in the file. So the row is read before and after,
//! and if it has moved, all is looked at again. None of its numbers ever comes back to what it was.

use sqlx::SqliteConnection;

use super::change::{LockedShard, row};
use super::file::{self, File};
use crate::ledger::{CheckError, Home, Installation, LOOKS, LedgerError, Looked, ShardRow};
use crate::quota::{ShardId, Store, StoreError};

const MOVE_IN: &str = "UPDATE shard SET epoch = ?2, run_id = ?3 WHERE id = ?1";

pub(super) async fn look<S: Store>(
    file: &File,
    installation: Installation,
    shard: ShardId,
    store: &S,
    anew: bool,
) -> Result<Looked, CheckError> {
    // What another look has agreed on must not be undone by what this one saw before it.
    let _looking = file.look().await;
    for _ in 0..LOOKS {
        let before = read(file, shard).await?;
        let view = store.view(shard).await?;
        let mut after = before.clone();
        let looked = after.look(installation.id, &view, anew);
        let stands = match after.home {
            Some(home) if before.home.as_ref() != Some(&home) => {
                move_in(file, shard, &before, &home).await?
            }
            _ => read(file, shard).await? == before,
        };
        if stands {
            return Ok(looked);
        }
    }
    Err(restless().into())
}

/// The ledger's shard changes again and again while the store is being read.
pub(super) fn restless() -> StoreError {
    StoreError::Away("the ledger does not stand still".into())
}

pub(super) async fn read(file: &File, shard: ShardId) -> Result<ShardRow, LedgerError> {
    file::read(async { row(&mut *file.reader().await?, shard).await }).await
}

/// Writes down where the shard is now, unless it has moved since `before`.
async fn move_in(
    file: &File,
    shard: ShardId,
    before: &ShardRow,
    home: &Home,
) -> Result<bool, LedgerError> {
    let mut turn = file.turn().await;
    let mut conn = turn.connection().await?;
    let moved = file::written(write(&mut conn, shard, before, home)).await?;
    turn.keep(conn);
    Ok(moved)
}

async fn write(
    conn: &mut SqliteConnection,
    shard: ShardId,
    before: &ShardRow,
    home: &Home,
) -> Result<bool, LedgerError> {
    let mut tx = file::begin(conn).await?;
    let stands = LockedShard::lock(&mut tx, shard).await?.row == *before;
    if stands {
        sqlx::query(MOVE_IN)
            .bind(shard.0)
            .bind(home.epoch.0)
            .bind(&home.run_id.0)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(stands)
}
