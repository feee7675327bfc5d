//! An entry that nobody can read leaves the outbox once it is in quarantine, as any other does once it is in the ledger.

use std::sync::Arc;

use parking_lot::Mutex;
use tollgate::clock::{Clock, UnixMs};
use tollgate::ledger::{AnyLedger, Applier, Flushed, Flusher, Keeper, Ledger};
use tollgate::quota::embedded::EmbeddedStore;
use tollgate::quota::{
    AccountId, AccountImage, AccountView, ApplyAnswer, Epoch, ExpireAnswer, ExpiredLot, Header,
    LapseAnswer, LoadAnswer, OutSeq, Outbox, Overdue, Progress, Progressed, Reserve, Reserved,
    Settle, SettleAnswer, ShardId, ShardView, Store, StoreChange, StoreError, Unreadable,
};

use super::world::World;

/// A store with an entry in each shard's outbox that nobody can read, until it is forgotten.
struct Garbled {
    store: Arc<EmbeddedStore>,
    garbage: Mutex<Vec<Unreadable>>,
}

macro_rules! passed_on {
    ($($verb:ident($($name:ident: $of:ty),*) -> $answer:ty;)*) => {
        $(async fn $verb(&self, $($name: $of),*) -> Result<$answer, StoreError> {
            self.store.$verb($($name),*).await
        })*
    };
}

impl Store for Garbled {
    fn shards(&self) -> u16 {
        self.store.shards()
    }

    fn adopt(&self, shard: ShardId, epoch: Epoch) {
        self.store.adopt(shard, epoch);
    }

    fn adopted(&self, shard: ShardId) -> Option<Epoch> {
        self.store.adopted(shard)
    }

    async fn outbox(&self, shard: ShardId, max: usize) -> Result<Outbox, StoreError> {
        let outbox = self.store.outbox(shard, max).await?;
        let unreadable = self.garbage.lock().clone();
        Ok(Outbox {
            unreadable,
            ..outbox
        })
    }

    async fn forget(&self, shard: ShardId, seqs: &[OutSeq]) -> Result<(), StoreError> {
        self.garbage.lock().retain(|odd| !seqs.contains(&odd.seq));
        self.store.forget(shard, seqs).await
    }

    passed_on! {
        view(shard: ShardId) -> ShardView;
        open(shard: ShardId, header: &Header) -> ();
        reserve(reserve: &Reserve) -> Reserved;
        progress(progress: &Progress) -> Progressed;
        settle(settle: &Settle) -> SettleAnswer;
        lapse(overdue: &Overdue) -> LapseAnswer;
        overdue(shard: ShardId, max: usize) -> (UnixMs, Vec<Overdue>);
        expire(lot: &ExpiredLot) -> ExpireAnswer;
        load(image: &AccountImage) -> LoadAnswer;
        apply(change: &StoreChange) -> ApplyAnswer;
        account(account: &AccountId) -> Option<AccountView>;
    }
}

pub async fn what_nobody_can_read_is_forgotten_once_it_is_put_aside(world: World) {
    let account = world.account(&[100]).await;
    let shard = world.shard(&account);
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 7).await;
    let written = world.store.outbox(shard, 1).await.unwrap().entries[0].seq;
    let garbage = Unreadable {
        seq: OutSeq(written.0 + 1),
        account: Some(account.clone()),
        raw: vec![0xc1],
        reason: "it is garbage".into(),
    };
    let store = Arc::new(Garbled {
        store: world.store.clone(),
        garbage: Mutex::new(vec![garbage.clone()]),
    });
    let flusher = flusher(&store, &world.ledger);
    assert_eq!(flusher.flush(shard).await.unwrap(), Flushed::Drained(2));
    assert_eq!(*store.garbage.lock(), []);
    let row = world.ledger.row(shard).await.unwrap();
    assert_eq!(row.flushed_seq, garbage.seq);
    // Once more by itself, as a flusher finds it that died before it could forget.
    store.garbage.lock().push(garbage.clone());
    assert_eq!(flusher.flush(shard).await.unwrap(), Flushed::Drained(1));
    let listed = world.admin().await.quarantined(shard, OutSeq(0)).await;
    assert_eq!(listed.unwrap().len(), 1);
    // Another one under the same number, from a server that parted from this one and came back.
    store.garbage.lock().push(Unreadable {
        raw: vec![0xc2],
        ..garbage
    });
    assert_eq!(flusher.flush(shard).await.unwrap(), Flushed::Drained(1));
    let listed = world.admin().await.quarantined(shard, OutSeq(0)).await;
    assert_eq!(listed.unwrap().len(), 2);
    assert_eq!(world.records(&account).await, [("settled".into(), 7, 7)]);
}

fn flusher(store: &Arc<Garbled>, ledger: &Arc<AnyLedger>) -> Flusher<Garbled, AnyLedger> {
    let keeper = Keeper::new(store.clone(), ledger.clone(), Clock::System);
    let applier = Applier::new(store.clone(), ledger.clone(), Clock::System);
    Flusher::new(
        store.clone(),
        ledger.clone(),
        keeper.into(),
        applier.into(),
        Clock::System,
    )
}
