//! Tells the store what a command has changed in the ledger, before the command exits.
//!
//! The change itself is done, whatever comes of this: a store that is away now is told by any sidecar later (rule 20).

use std::time::Duration;

use tokio::time::timeout;

use super::failure::Failure;
use super::place::{Live, Place};
use crate::ledger::Ledger;
use crate::quota::{AccountId, ShardId};

/// How long a command waits for the store in all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the store knows.
pub(super) enum Told {
    /// It does.
    Store,
    /// It will, once it is back.
    Pending(String),
}

impl Told {
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Pending(_))
    }

    /// Adds to an answer what people must know of this.
    pub fn say(&self, done: &str) -> String {
        match self {
            Self::Store => done.to_owned(),
            Self::Pending(why) => format!("{done}; pending in the store: {why}"),
        }
    }
}

/// Tells the store of an account's changes.
pub(super) async fn account(place: &Place, account: &AccountId) -> Told {
    told(place, async |live: &Live| {
        let shard = account.shard(live.ledger.installation().shards);
        apply(live, shard).await
    })
    .await
}

/// Tells the store of the changes of these shards.
pub(super) async fn shards(place: &Place, shards: impl IntoIterator<Item = ShardId>) -> Told {
    told(place, async |live: &Live| {
        for shard in shards {
            apply(live, shard).await?;
        }
        Ok(())
    })
    .await
}

async fn told(place: &Place, work: impl AsyncFnOnce(&Live) -> Result<(), Failure>) -> Told {
    let round = async { work(place.live().await?).await };
    match timeout(PATIENCE, round).await {
        Ok(Ok(())) => Told::Store,
        Ok(Err(failure)) => Told::Pending(failure.to_string()),
        Err(_) => Told::Pending("the store did not answer in time".into()),
    }
}

async fn apply(live: &Live, shard: ShardId) -> Result<(), Failure> {
    live.check(shard).await?;
    live.applier.apply_shard(shard).await?;
    Ok(())
}
