//! Lets lots expire whose time is over: what is left of them becomes breakage (rule 27).
//!
//! The ledger knows which they are, and only the store may take from them: it says what is left once all that was used
//! is taken off. Each sidecar goes round the shards slowly; that several find the same lot does no harm.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::flusher::Flusher;
use super::loader::{LoadError, Loader};
use super::standing::Standing;
use super::{Ledger, LedgerError};
use crate::clock::Clock;
use crate::quota::{ExpireAnswer, ExpiredLot, ShardId, Store, StoreError};

/// How long one round over all shards takes. Nothing draws on an expired lot, so there is no haste.
const ROUND: Duration = Duration::from_secs(30);
/// Lots that are read at once; the rest of a shard comes with its next turn.
const BATCH: usize = 256;

/// Why a lot could not be let expire.
#[derive(Debug, thiserror::Error)]
pub enum ExpiryError {
    /// The ledger did not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A cold account could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Goes round the shards.
pub struct Expiry<S, L> {
    store: Arc<S>,
    ledger: Arc<L>,
    loader: Arc<Loader<S, L>>,
    flusher: Arc<Flusher<S, L>>,
    clock: Clock,
    standing: Standing,
}

impl<S: Store, L: Ledger> Expiry<S, L> {
    /// Between these.
    pub fn new(
        store: Arc<S>,
        ledger: Arc<L>,
        loader: Arc<Loader<S, L>>,
        flusher: Arc<Flusher<S, L>>,
        clock: Clock,
    ) -> Self {
        Self {
            store,
            ledger,
            loader,
            flusher,
            standing: Standing::new("expiry", clock.clone()),
            clock,
        }
    }

    /// Goes on until the task is aborted; every step of it may be cut off.
    pub async fn run(&self) {
        let shards = self.store.shards().max(1);
        let mut next = rand::random_range(0..shards);
        loop {
            let pause = ROUND / u32::from(shards);
            sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
            let shard = ShardId(next);
            next = (next + 1) % shards;
            if self.store.adopted(shard).is_none() {
                continue;
            }
            match self.shard(shard).await {
                Ok(_) => self.standing.succeeded(shard),
                Err(error) => self.standing.failed(shard, &error),
            }
        }
    }

    /// Lets the lots of one shard expire; says of how many there was something left.
    pub async fn shard(&self, shard: ShardId) -> Result<usize, ExpiryError> {
        let lots = self.ledger.expired(shard, self.clock.now(), BATCH).await?;
        let mut expired = 0;
        for lot in &lots {
            if let ExpireAnswer::Expired(_) = self.expire(lot).await? {
                self.flusher.mark(shard);
                expired += 1;
            }
        }
        Ok(expired)
    }

    /// A cold account is loaded first: what it has in the ledger is all that it has.
    async fn expire(&self, lot: &ExpiredLot) -> Result<ExpireAnswer, ExpiryError> {
        match self.store.expire(lot).await? {
            ExpireAnswer::Cold => {
                self.loader.load(&lot.account).await?;
                Ok(self.store.expire(lot).await?)
            }
            answer => Ok(answer),
        }
    }
}
