//! A store whose content may be replaced under everybody who uses it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::clock::UnixMs;
use crate::quota::embedded::EmbeddedStore;
use crate::quota::{
    AccountId, AccountImage, AccountView, ApplyAnswer, Epoch, ExpireAnswer, ExpiredLot, Header,
    LapseAnswer, LoadAnswer, OutSeq, Outbox, Overdue, Progress, Progressed, Reserve, Reserved,
    Settle, SettleAnswer, ShardId, ShardView, Store, StoreChange, StoreError,
};

/// One sidecar's way to the store that all share.
pub(super) struct Fickle {
    now: Arc<ArcSwap<EmbeddedStore>>,
    /// By shard: the epoch that was adopted, and on which store.
    adopted: Mutex<BTreeMap<ShardId, (Epoch, Arc<EmbeddedStore>)>>,
    views: AtomicUsize,
}

impl Fickle {
    pub fn new(store: EmbeddedStore) -> Self {
        Self::over(Arc::new(ArcSwap::from_pointee(store)))
    }

    /// Another sidecar's way.
    pub fn another(&self) -> Self {
        Self::over(self.now.clone())
    }

    fn over(now: Arc<ArcSwap<EmbeddedStore>>) -> Self {
        Self {
            now,
            adopted: Mutex::default(),
            views: AtomicUsize::new(0),
        }
    }

    /// What is there now, on a server of its own.
    pub fn copy(&self) -> EmbeddedStore {
        self.now().copy()
    }

    /// From now on the store is this one; nobody has adopted a shard of it.
    pub fn turn_into(&self, store: EmbeddedStore) {
        self.now.store(Arc::new(store));
    }

    /// How often a shard was looked at.
    pub fn views(&self) -> usize {
        self.views.load(Ordering::Relaxed)
    }

    fn now(&self) -> Arc<EmbeddedStore> {
        self.now.load_full()
    }

    /// The store as this sidecar has checked it. Its verbs do not wait, so no other sidecar's comes between.
    fn checked(&self, shard: ShardId) -> Result<Arc<EmbeddedStore>, StoreError> {
        let now = self.now();
        let reason = "it has not been checked on this server".to_owned();
        let epoch = self.adopted(shard);
        let epoch = epoch.ok_or(StoreError::Lost { shard, reason })?;
        now.adopt(shard, epoch);
        Ok(now)
    }

    fn checked_for(&self, account: &AccountId) -> Result<Arc<EmbeddedStore>, StoreError> {
        self.checked(account.shard(self.shards()))
    }
}

impl Store for Fickle {
    fn shards(&self) -> u16 {
        self.now().shards()
    }

    async fn view(&self, shard: ShardId) -> Result<ShardView, StoreError> {
        self.views.fetch_add(1, Ordering::Relaxed);
        self.now().view(shard).await
    }

    async fn open(&self, shard: ShardId, header: &Header) -> Result<(), StoreError> {
        self.now().open(shard, header).await
    }

    fn adopt(&self, shard: ShardId, epoch: Epoch) {
        self.adopted.lock().insert(shard, (epoch, self.now()));
    }

    fn adopted(&self, shard: ShardId) -> Option<Epoch> {
        let adopted = self.adopted.lock();
        let here = adopted
            .get(&shard)
            .filter(|(_, store)| Arc::ptr_eq(store, &self.now()));
        here.map(|(epoch, _)| *epoch)
    }

    async fn reserve(&self, reserve: &Reserve) -> Result<Reserved, StoreError> {
        self.checked_for(&reserve.account)?.reserve(reserve).await
    }

    async fn progress(&self, progress: &Progress) -> Result<Progressed, StoreError> {
        self.checked_for(&progress.account)?
            .progress(progress)
            .await
    }

    async fn settle(&self, settle: &Settle) -> Result<SettleAnswer, StoreError> {
        self.checked_for(&settle.account)?.settle(settle).await
    }

    async fn lapse(&self, overdue: &Overdue) -> Result<LapseAnswer, StoreError> {
        self.checked_for(&overdue.account)?.lapse(overdue).await
    }

    async fn overdue(
        &self,
        shard: ShardId,
        max: usize,
    ) -> Result<(UnixMs, Vec<Overdue>), StoreError> {
        self.checked(shard)?.overdue(shard, max).await
    }

    async fn expire(&self, lot: &ExpiredLot) -> Result<ExpireAnswer, StoreError> {
        self.checked_for(&lot.account)?.expire(lot).await
    }

    async fn load(&self, image: &AccountImage) -> Result<LoadAnswer, StoreError> {
        self.checked_for(&image.snapshot.account)?.load(image).await
    }

    async fn apply(&self, change: &StoreChange) -> Result<ApplyAnswer, StoreError> {
        self.checked(change.shard)?.apply(change).await
    }

    async fn outbox(&self, shard: ShardId, max: usize) -> Result<Outbox, StoreError> {
        self.checked(shard)?.outbox(shard, max).await
    }

    async fn forget(&self, shard: ShardId, seqs: &[OutSeq]) -> Result<(), StoreError> {
        self.checked(shard)?.forget(shard, seqs).await
    }

    async fn account(&self, account: &AccountId) -> Result<Option<AccountView>, StoreError> {
        self.checked_for(account)?.account(account).await
    }
}
