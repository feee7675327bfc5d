//! The ledger of the demo and of tests: nothing of it outlives the process.
//!
//! It takes the same decisions as any other, since it writes the same [`Batch`].

use std::collections::HashMap;

use tokio::sync::Mutex;
use uuid::Uuid;

use super::batch::UsageRecord;
use super::{
    CheckError, Committed, Identity, Installation, KeyHash, Ledger, LedgerError, Looked, Prices,
    ShardRow, audit,
};
use crate::clock::UnixMs;
use crate::money::Nanos;
use crate::quota::{
    AccountId, AccountImage, AccountView, ChangeSeq, ExpiredLot, LotId, Outbox, ShardId, Snapshot,
    Store, StoreChange,
};

mod account;
mod truth;

#[cfg(test)]
pub(crate) use truth::Pending;
pub(crate) use truth::Truth;

/// The ledger in memory.
pub struct MemoryLedger {
    installation: Installation,
    /// One lock for all; it is held across the read of a store during a check, as rule 21 wants it.
    state: Mutex<State>,
    /// Whether somebody has the shards' rows locked.
    #[cfg(test)]
    pub(crate) is_busy: std::sync::atomic::AtomicBool,
}

/// A grant that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGrant {
    /// How much; positive.
    pub amount: Nanos,
    /// Lower numbers are drawn first.
    pub priority: i32,
    /// Whether it was given away.
    pub promotional: bool,
    /// From when on.
    pub effective_at: UnixMs,
    /// Until when; `None`: for ever.
    pub expires_at: Option<UnixMs>,
}

struct State {
    truth: Truth,
    keys: HashMap<KeyHash, (Uuid, AccountId)>,
    prices: Prices,
}

impl MemoryLedger {
    /// An installation without accounts.
    pub fn new(shards: u16, prices: Prices) -> Self {
        let installation = Installation {
            id: Uuid::now_v7(),
            shards,
        };
        Self {
            installation,
            state: Mutex::new(State {
                truth: Truth::new(installation),
                keys: HashMap::new(),
                prices,
            }),
            #[cfg(test)]
            is_busy: false.into(),
        }
    }

    /// Makes an account, with nothing on it.
    pub async fn create_account(&self, snapshot: Snapshot) {
        self.state.lock().await.truth.create_account(snapshot);
    }

    /// Makes a key, and says its id.
    pub async fn create_key(&self, account: &AccountId, hash: KeyHash) -> Uuid {
        let id = Uuid::now_v7();
        let mut state = self.state.lock().await;
        state.keys.insert(hash, (id, account.clone()));
        id
    }

    /// Grants credit, as a numbered change (rule 20).
    pub async fn grant(&self, account: &AccountId, grant: &NewGrant) -> Result<LotId, LedgerError> {
        self.state.lock().await.truth.grant(account, grant)
    }

    /// Changes what sidecars know of an account, as a numbered change with a new version (rules 13, 20).
    pub async fn update(
        &self,
        account: &AccountId,
        update: impl FnOnce(&mut Snapshot) + Send,
    ) -> Result<(), LedgerError> {
        self.state.lock().await.truth.update(account, update)
    }

    /// An account's usage records, in the order they were written.
    pub async fn records(&self, account: &AccountId) -> Vec<UsageRecord> {
        let state = self.state.lock().await;
        let records = state.truth.records.iter();
        records.filter(|r| r.account == *account).cloned().collect()
    }
}

impl Ledger for MemoryLedger {
    fn installation(&self) -> Installation {
        self.installation
    }

    async fn look<S: Store>(
        &self,
        shard: ShardId,
        store: &S,
        anew: bool,
    ) -> Result<Looked, CheckError> {
        let mut state = self.state.lock().await;
        let view = store.view(shard).await?;
        Ok(state.truth.look(shard, &view, anew))
    }

    async fn row(&self, shard: ShardId) -> Result<ShardRow, LedgerError> {
        Ok(self.state.lock().await.truth.row(shard).clone())
    }

    async fn expired(
        &self,
        shard: ShardId,
        now: UnixMs,
        max: usize,
    ) -> Result<Vec<ExpiredLot>, LedgerError> {
        Ok(self.state.lock().await.truth.expired(shard, now, max))
    }

    async fn books<S: Store>(
        &self,
        _shard: ShardId,
        _store: &S,
        _page: &audit::Page,
    ) -> Result<Vec<(audit::Books, Option<AccountView>)>, CheckError> {
        // Nobody audits a ledger that ends with its process.
        Ok(Vec::new())
    }

    async fn own_sums(
        &self,
        _shard: ShardId,
        _page: &audit::Page,
        _depth: audit::Depth,
    ) -> Result<audit::OwnSums, LedgerError> {
        Ok(audit::OwnSums::default())
    }

    async fn trace(&self, _drift: &audit::Drift) -> Result<Vec<audit::Clue>, LedgerError> {
        Ok(Vec::new())
    }

    async fn upkeep(&self) -> Result<u64, LedgerError> {
        Ok(0)
    }

    async fn quarantined(&self) -> Result<u64, LedgerError> {
        Ok(0)
    }

    async fn commit(&self, shard: ShardId, outbox: &Outbox) -> Result<Committed, LedgerError> {
        #[cfg(test)]
        if self.is_busy.load(std::sync::atomic::Ordering::Relaxed) {
            return Ok(Committed::Busy);
        }
        self.state.lock().await.truth.commit(shard, outbox)
    }

    async fn changes_after(
        &self,
        shard: ShardId,
        seq: ChangeSeq,
        max: usize,
    ) -> Result<Vec<StoreChange>, LedgerError> {
        let state = self.state.lock().await;
        Ok(state.truth.changes_after(shard, seq, max))
    }

    async fn image(&self, account: &AccountId) -> Result<Option<AccountImage>, LedgerError> {
        Ok(self.state.lock().await.truth.image(account))
    }

    async fn identify(&self, hash: &KeyHash) -> Result<Option<Identity>, LedgerError> {
        let state = self.state.lock().await;
        let key = state.keys.get(hash);
        Ok(key.and_then(|(key, account)| {
            let snapshot = state.truth.snapshot(account)?;
            Some(Identity {
                key: *key,
                account: account.clone(),
                keys_version: snapshot.keys_version,
            })
        }))
    }

    async fn prices_version(&self) -> Result<i64, LedgerError> {
        Ok(self.state.lock().await.prices.version)
    }

    async fn prices(&self) -> Result<Prices, LedgerError> {
        Ok(self.state.lock().await.prices.clone())
    }
}

#[cfg(test)]
mod tests;
