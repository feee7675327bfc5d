//! The check of a shard before its first use (rule 21, with a single epoch).
//!
//! The row is locked before the store is read: what the store says then cannot be older than what the row says.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::change::{LockedShard, column};
use crate::ledger::check::{Verdict, compare};
use crate::ledger::{CheckError, Checked, LedgerError};
use crate::quota::{Epoch, RunId, ShardId, Store};

const MOVE_IN: &str = "UPDATE shard SET epoch = $2, run_id = $3 WHERE id = $1";

pub(super) async fn check<S: Store>(
    conn: &mut PgConnection,
    install: Uuid,
    shard: ShardId,
    store: &S,
) -> Result<Checked, CheckError> {
    let mut tx = conn.begin().await.map_err(LedgerError::from)?;
    let locked = LockedShard::lock(&mut tx, shard).await?;
    let mut view = store.view(shard).await?;
    let mut verdict = compare(install, &locked.row, &view);
    if let Verdict::Open(header) = &verdict {
        store.open(shard, header).await?;
        view = store.view(shard).await?;
        verdict = compare(install, &locked.row, &view);
    }
    let checked = match verdict {
        Verdict::Agreed(epoch) => {
            let home = (epoch, view.run_id);
            if locked.row.home.as_ref() != Some(&home) {
                move_in(&mut tx, shard, home).await?;
            }
            Checked::Agreed(epoch)
        }
        Verdict::Lost(reason) => Checked::Lost(reason),
        Verdict::Open(_) => Checked::Lost("the header just written is not there".into()),
    };
    tx.commit().await.map_err(LedgerError::from)?;
    Ok(checked)
}

async fn move_in(
    tx: &mut PgConnection,
    shard: ShardId,
    (epoch, run_id): (Epoch, RunId),
) -> Result<(), LedgerError> {
    sqlx::query(MOVE_IN)
        .bind(column(shard))
        .bind(epoch.0)
        .bind(run_id.0)
        .execute(tx)
        .await?;
    Ok(())
}
