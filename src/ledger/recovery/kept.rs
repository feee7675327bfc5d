//! Kept endings: let go of when the ledger has them, whoever has carried them there, and never more than there is room for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::sidecar::MOST_KEPT;
use super::{World, until};
use crate::ledger::flusher::Flushed;

#[tokio::test(start_paused = true)]
async fn what_another_sidecar_has_flushed_is_kept_no_longer() {
    let world = World::new().await;
    let account = &world.accounts[0];
    let shard = world.shard(account);
    let (ours, theirs) = (world.sidecar().await, world.sidecar().await);
    drop(ours.call(account, 100, 30).await);
    until("it is acknowledged", async || ours.kept.count() == 1).await;
    theirs.flusher.flush(shard).await.unwrap();
    assert_eq!(ours.kept.count(), 1);
    assert!(ours.flusher.flush_dirty().await);
    assert_eq!(ours.kept.count(), 0, "the row says so");
}

/// Else calls would be refused in the end, because no more endings can be kept, and nobody would hear why.
#[tokio::test(start_paused = true)]
async fn a_shard_whose_row_stays_locked_is_away() {
    let world = World::new().await;
    let account = &world.accounts[0];
    let mut sidecar = world.sidecar().await;
    sidecar.start();
    world.ledger.is_busy.store(true, Ordering::Relaxed);
    drop(sidecar.call(account, 2, 1).await);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(sidecar.flusher.away(), None, "others may be at it");
    sleep(Duration::from_secs(40)).await;
    let away = sidecar.flusher.away().expect("nobody is at it");
    assert!(away.reason.contains("locked"), "{away:?}");
    world.ledger.is_busy.store(false, Ordering::Relaxed);
    world.until_one(&sidecar).await;
    assert_eq!(sidecar.flusher.away(), None);
}

/// Whoever rests longer and longer meanwhile keeps endings that somebody else has long carried.
#[tokio::test(start_paused = true)]
async fn a_flusher_is_soon_back_at_a_shard_where_another_one_was_for_long() {
    let world = World::new().await;
    let mut sidecar = world.sidecar().await;
    sidecar.start();
    world.ledger.is_busy.store(true, Ordering::Relaxed);
    drop(sidecar.call(&world.accounts[0], 2, 1).await);
    sleep(Duration::from_secs(20)).await;
    world.ledger.is_busy.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(sidecar.kept.count(), 0);
}

/// Where many are at one shard, one of them may find it locked again and again.
#[tokio::test(start_paused = true)]
async fn what_another_has_flushed_is_kept_no_longer_even_while_that_one_is_at_it() {
    let world = World::new().await;
    let (ours, other) = (world.sidecar().await, world.sidecar().await);
    let account = &world.accounts[0];
    let shard = world.shard(account);
    drop(ours.call(account, 2, 1).await);
    until("it is acknowledged", async || ours.kept.count() == 1).await;
    other.flusher.flush(shard).await.unwrap();
    drop(other.call(account, 2, 1).await);
    until("it is acknowledged", async || other.kept.count() == 1).await;
    world.ledger.is_busy.store(true, Ordering::Relaxed);
    assert_eq!(ours.flusher.flush(shard).await.unwrap(), Flushed::Busy);
    assert_eq!(ours.kept.count(), 0, "the row says so");
}

/// What ends while no more can be kept has to wait in memory, so no more calls should come to that.
#[tokio::test(start_paused = true)]
async fn no_call_begins_while_as_many_endings_are_kept_as_may_be() {
    let world = World::new().await;
    let account = &world.accounts[0];
    let sidecar = world.sidecar().await;
    for _ in 0..MOST_KEPT {
        drop(sidecar.call(account, 2, 1).await);
    }
    let most = usize::try_from(MOST_KEPT).unwrap();
    until("all are kept", async || sidecar.kept.count() == most).await;
    assert!(sidecar.settler.room().is_none());
    assert!(sidecar.flusher.flush_dirty().await);
    assert!(sidecar.settler.room().is_some());
    world.until_one(&sidecar).await;
}
