//! The check of a shard before its first use (rule 21, with a single epoch).
//!
//! The row is locked before the store is read: what the store says then cannot be older than what the row says.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::change::{LockedShard, column};
use crate::ledger::check::{Home, look};
use crate::ledger::{CheckError, Checked, LedgerError};
use crate::quota::{ShardId, Store};

const MOVE_IN: &str = "UPDATE shard SET epoch = $2, run_id = $3 WHERE id = $1";

pub(super) async fn check<S: Store>(
    conn: &mut PgConnection,
    install: Uuid,
    shard: ShardId,
    store: &S,
) -> Result<Checked, CheckError> {
    let mut tx = conn.begin().await.map_err(LedgerError::from)?;
    let locked = LockedShard::lock(&mut tx, shard).await?;
    let checked = match look(install, shard, &locked.row, store).await? {
        Ok(home) => {
            let epoch = home.0;
            if locked.row.home.as_ref() != Some(&home) {
                move_in(&mut tx, shard, home).await?;
            }
            Checked::Agreed(epoch)
        }
        Err(reason) => Checked::Lost(reason),
    };
    tx.commit().await.map_err(LedgerError::from)?;
    Ok(checked)
}

async fn move_in(
    tx: &mut PgConnection,
    shard: ShardId,
    (epoch, run_id): Home,
) -> Result<(), LedgerError> {
    sqlx::query(MOVE_IN)
        .bind(column(shard))
        .bind(epoch.0)
        .bind(run_id.0)
        .execute(tx)
        .await?;
    Ok(())
}
