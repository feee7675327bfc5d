//! The tasks at work by themselves: what is written on one side arrives on the other.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tollgate::quota::{Epoch, Store};

use super::world::World;

/// Waits for a state, within a bound that only a defect reaches.
async fn until(state: impl AsyncFn() -> bool) {
    let reached = async {
        while !state().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), reached)
        .await
        .expect("it comes to that");
}

pub async fn a_marked_ending_reaches_the_ledger_and_its_correction_the_store(world: World) {
    let world = Arc::new(world);
    let account = world.account(&[100]).await;
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 8).await;
    world.pass_ms(tollgate::quota::ENDED_MARK_MS + 1);
    // Charged twice in the store: once too often.
    world.settle(&account, id, 8).await;
    assert_eq!(world.balance(&account).await, 84);

    let applier = world.applier.clone();
    let applying = tokio::spawn(async move { applier.run().await });
    let flushing = world.clone();
    let flushing = tokio::spawn(async move { flushing.flusher.run().await });
    world.flusher.mark(world.shard(&account));
    until(async || world.balance(&account).await == 92).await;
    assert_eq!(world.records(&account).await.len(), 1);
    applying.abort();
    flushing.abort();
    world.assert_one(&account).await;
}

pub async fn a_shard_that_the_store_does_not_trust_any_more_is_checked_and_adopted(world: World) {
    let world = Arc::new(world);
    let account = world.account(&[100]).await;
    let shard = world.shard(&account);
    let keeper = world.keeper.clone();
    let keeping = tokio::spawn(async move { keeper.run().await });
    let no_epoch = Epoch(0);
    world.store.adopt(shard, no_epoch);
    world.keeper.wake();
    until(async || world.store.adopted(shard) == Some(Epoch(1))).await;
    keeping.abort();
    world.hold(&account, 1).await;
}
