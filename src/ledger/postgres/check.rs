//! A look at a shard (rule 21).
//!
//! The row is locked before the store is read: what the store says then cannot be older than what the row says.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::change::{LockedShard, column};
use crate::ledger::{CheckError, Home, LedgerError, Looked};
use crate::quota::{ShardId, Store};

const MOVE_IN: &str = "UPDATE shard SET epoch = $2, run_id = $3 WHERE id = $1";

pub(super) async fn look<S: Store>(
    conn: &mut PgConnection,
    install: Uuid,
    shard: ShardId,
    store: &S,
    anew: bool,
) -> Result<Looked, CheckError> {
    let mut tx = conn.begin().await.map_err(LedgerError::from)?;
    let mut row = LockedShard::lock(&mut tx, shard).await?.row;
    let before = row.home.clone();
    let looked = row.look(install, &store.view(shard).await?, anew);
    if let Some(home) = row.home.filter(|home| before.as_ref() != Some(home)) {
        move_in(&mut tx, shard, home).await?;
    }
    tx.commit().await.map_err(LedgerError::from)?;
    Ok(looked)
}

async fn move_in(tx: &mut PgConnection, shard: ShardId, home: Home) -> Result<(), LedgerError> {
    sqlx::query(MOVE_IN)
        .bind(column(shard))
        .bind(home.epoch.0)
        .bind(home.run_id.0)
        .execute(tx)
        .await?;
    Ok(())
}
