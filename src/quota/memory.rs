//! The store of the demo and of tests: engines in memory, one behind a lock for each shard.
//!
//! It lives and dies with the process, so its run id is made when it is.

use parking_lot::Mutex;
use uuid::Uuid;

use crate::clock::{Clock, UnixMs};

use super::engine::Engine;
use super::{
    AccountId, AccountImage, AccountView, ApplyAnswer, ExpireAnswer, ExpiredLot, Header,
    LapseAnswer, Life, LoadAnswer, OutSeq, Outbox, Overdue, Progress, Progressed, Reserve,
    Reserved, RunId, Settle, SettleAnswer, ShardId, ShardView, Store, StoreChange, StoreError,
};

/// Live balances and counters in memory.
#[derive(Debug)]
pub struct MemoryStore {
    /// Locks that block, because nothing awaits while holding one.
    shards: Vec<Mutex<Shard>>,
    run_id: RunId,
    outbox_bound: u64,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Shard {
    /// `None` until the ledger has opened it.
    engine: Option<Engine>,
    adopted: Option<Life>,
}

impl MemoryStore {
    /// A store that knows nothing yet.
    pub fn new(shards: u16, outbox_bound: u64, clock: Clock) -> Self {
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            run_id: RunId(Uuid::now_v7().simple().to_string()),
            outbox_bound,
            clock,
        }
    }

    /// What is here now, on a server of its own: a replica, or a copy that somebody brings back later.
    #[cfg(test)]
    pub(crate) fn copy(&self) -> Self {
        let copy = |shard: &Mutex<Shard>| {
            let engine = shard.lock().engine.clone();
            Mutex::new(Shard {
                engine,
                adopted: None,
            })
        };
        Self {
            shards: self.shards.iter().map(copy).collect(),
            ..Self::new(0, self.outbox_bound, self.clock.clone())
        }
    }

    fn shard(&self, shard: ShardId) -> &Mutex<Shard> {
        &self.shards[usize::from(shard.0)]
    }

    fn shard_of(&self, account: &AccountId) -> ShardId {
        account.shard(self.shards())
    }

    /// One atomic step of a shard in the epoch that was adopted; the clock is read within it.
    fn step<T>(
        &self,
        shard: ShardId,
        verb: impl FnOnce(&mut Engine, UnixMs) -> T,
    ) -> Result<T, StoreError> {
        let lost = |reason: &str| StoreError::Lost {
            shard,
            reason: reason.into(),
        };
        let mut state = self.shard(shard).lock();
        let adopted = state.adopted;
        let engine = state
            .engine
            .as_mut()
            .ok_or_else(|| lost("it has no header"))?;
        if adopted.map(|life| life.epoch) != Some(engine.header().epoch) {
            return Err(lost("its epoch has not been adopted"));
        }
        Ok(verb(engine, self.clock.now()))
    }
}

impl Store for MemoryStore {
    fn shards(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("it was made of a u16 of shards")
    }

    async fn view(&self, shard: ShardId) -> Result<ShardView, StoreError> {
        let state = self.shard(shard).lock();
        Ok(ShardView {
            header: state.engine.as_ref().map(|engine| engine.header().clone()),
            run_id: self.run_id.clone(),
            now: self.clock.now(),
            noeviction: true,
            outbox_len: state.engine.as_ref().map_or(0, Engine::outbox_len),
            oldest_epoch: state.engine.as_ref().and_then(Engine::oldest_epoch),
        })
    }

    async fn open(&self, shard: ShardId, header: &Header) -> Result<(), StoreError> {
        let mut state = self.shard(shard).lock();
        let fresh = || Engine::new(header.clone(), self.outbox_bound);
        state.engine.get_or_insert_with(fresh).open(header);
        Ok(())
    }

    fn adopt(&self, shard: ShardId, life: Life) {
        self.shard(shard).lock().adopted = Some(life);
    }

    fn adopted(&self, shard: ShardId) -> Option<Life> {
        self.shard(shard).lock().adopted
    }

    async fn reserve(&self, reserve: &Reserve) -> Result<Reserved, StoreError> {
        let shard = self.shard_of(&reserve.account);
        self.step(shard, |engine, now| engine.reserve(now, reserve))
    }

    async fn progress(&self, progress: &Progress) -> Result<Progressed, StoreError> {
        let shard = self.shard_of(&progress.account);
        self.step(shard, |engine, now| engine.progress(now, progress))
    }

    async fn settle(&self, settle: &Settle) -> Result<SettleAnswer, StoreError> {
        let shard = self.shard_of(&settle.account);
        self.step(shard, |engine, now| engine.settle(now, settle))
    }

    async fn lapse(&self, overdue: &Overdue) -> Result<LapseAnswer, StoreError> {
        let shard = self.shard_of(&overdue.account);
        self.step(shard, |engine, now| engine.lapse(now, overdue))
    }

    async fn overdue(
        &self,
        shard: ShardId,
        max: usize,
    ) -> Result<(UnixMs, Vec<Overdue>), StoreError> {
        self.step(shard, |engine, now| (now, engine.overdue(now, max)))
    }

    async fn expire(&self, expired: &ExpiredLot) -> Result<ExpireAnswer, StoreError> {
        let shard = self.shard_of(&expired.account);
        self.step(shard, |engine, now| engine.expire(now, expired))
    }

    async fn load(&self, image: &AccountImage) -> Result<LoadAnswer, StoreError> {
        let shard = self.shard_of(&image.snapshot.account);
        self.step(shard, |engine, now| engine.load(now, image))
    }

    async fn apply(&self, change: &StoreChange) -> Result<ApplyAnswer, StoreError> {
        self.step(change.shard, |engine, now| engine.apply(now, change))
    }

    async fn outbox(&self, shard: ShardId, max: usize) -> Result<Outbox, StoreError> {
        let entries = self.step(shard, |engine, _| engine.outbox(max))?;
        let adopted = self.adopted(shard);
        Ok(Outbox {
            run_id: self.run_id.clone(),
            tenure: adopted.map(|life| life.tenure).unwrap_or_default(),
            entries,
            unreadable: Vec::new(),
        })
    }

    async fn forget(&self, shard: ShardId, seqs: &[OutSeq]) -> Result<(), StoreError> {
        self.step(shard, |engine, _| engine.forget(seqs))
    }

    async fn account(&self, account: &AccountId) -> Result<Option<AccountView>, StoreError> {
        let shard = self.shard_of(account);
        self.step(shard, |engine, _| engine.account(account))
    }
}
