//! The backends of the store, one type for all that is built once: which of them it is, the configuration says.

use super::embedded::EmbeddedStore;
use super::redis::RedisStore;
use super::{
    AccountId, AccountImage, AccountView, ApplyAnswer, Epoch, ExpireAnswer, ExpiredLot, Header,
    LapseAnswer, LoadAnswer, OutSeq, Outbox, Overdue, Progress, Progressed, Reserve, Reserved,
    Settle, SettleAnswer, ShardId, ShardView, Store, StoreChange, StoreError,
};
use crate::clock::UnixMs;

/// Every store there is.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one in a process, behind an Arc"
)]
pub enum AnyStore {
    /// In this process, with a journal or without one.
    Embedded(EmbeddedStore),
    /// Redis or Valkey, one server or a Cluster.
    Redis(RedisStore),
}

/// The same call on whichever it is.
macro_rules! on {
    ($store:expr, $inner:ident => $call:expr) => {
        match $store {
            AnyStore::Embedded($inner) => $call,
            AnyStore::Redis($inner) => $call,
        }
    };
}

impl Store for AnyStore {
    fn shards(&self) -> u16 {
        on!(self, store => store.shards())
    }

    async fn view(&self, shard: ShardId) -> Result<ShardView, StoreError> {
        on!(self, store => store.view(shard).await)
    }

    async fn open(&self, shard: ShardId, header: &Header) -> Result<(), StoreError> {
        on!(self, store => store.open(shard, header).await)
    }

    fn adopt(&self, shard: ShardId, epoch: Epoch) {
        on!(self, store => store.adopt(shard, epoch));
    }

    fn adopted(&self, shard: ShardId) -> Option<Epoch> {
        on!(self, store => store.adopted(shard))
    }

    async fn reserve(&self, reserve: &Reserve) -> Result<Reserved, StoreError> {
        on!(self, store => store.reserve(reserve).await)
    }

    async fn progress(&self, progress: &Progress) -> Result<Progressed, StoreError> {
        on!(self, store => store.progress(progress).await)
    }

    async fn settle(&self, settle: &Settle) -> Result<SettleAnswer, StoreError> {
        on!(self, store => store.settle(settle).await)
    }

    async fn lapse(&self, overdue: &Overdue) -> Result<LapseAnswer, StoreError> {
        on!(self, store => store.lapse(overdue).await)
    }

    async fn overdue(
        &self,
        shard: ShardId,
        max: usize,
    ) -> Result<(UnixMs, Vec<Overdue>), StoreError> {
        on!(self, store => store.overdue(shard, max).await)
    }

    async fn expire(&self, lot: &ExpiredLot) -> Result<ExpireAnswer, StoreError> {
        on!(self, store => store.expire(lot).await)
    }

    async fn load(&self, image: &AccountImage) -> Result<LoadAnswer, StoreError> {
        on!(self, store => store.load(image).await)
    }

    async fn apply(&self, change: &StoreChange) -> Result<ApplyAnswer, StoreError> {
        on!(self, store => store.apply(change).await)
    }

    async fn outbox(&self, shard: ShardId, max: usize) -> Result<Outbox, StoreError> {
        on!(self, store => store.outbox(shard, max).await)
    }

    async fn forget(&self, shard: ShardId, seqs: &[OutSeq]) -> Result<(), StoreError> {
        on!(self, store => store.forget(shard, seqs).await)
    }

    async fn account(&self, account: &AccountId) -> Result<Option<AccountView>, StoreError> {
        on!(self, store => store.account(account).await)
    }
}
