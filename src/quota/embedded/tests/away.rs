//! What a journal does not take, or not in time: the store is away until it takes a write, and then is what it was.

use tokio::time::{Instant, sleep};

use super::*;

/// Between two looks at a state.
const A_MOMENT: Duration = Duration::from_millis(5);

impl World {
    async fn until_it_is_back(&self) {
        while self.store.account(&account(0)).await.is_err() {
            sleep(A_MOMENT).await;
        }
    }

    /// Until the journal was asked so often whether it takes a group.
    async fn until_probed(&self, times: u64) {
        while self.journal.probes.load(Ordering::Relaxed) < times {
            sleep(A_MOMENT).await;
        }
    }
}

#[tokio::test]
async fn rule_28_what_the_journal_does_not_take_is_answered_away_and_is_not_there() {
    let world = World::fresh().await;
    world.hold(0, 1).await.unwrap();
    let before = world.engines();
    world.journal.fails.store(true, Ordering::Relaxed);
    let (one, other) = tokio::join!(world.hold(0, 2), world.hold(1, 3));
    assert!(matches!(one, Err(StoreError::Away(_))), "{one:?}");
    assert!(matches!(other, Err(StoreError::Away(_))), "{other:?}");
    world.journal.unreadable.store(true, Ordering::Relaxed);
    world.journal.fails.store(false, Ordering::Relaxed);
    world.until_probed(3).await;
    // While the journal cannot be read nothing is answered at all, and reads neither.
    let read = world.store.account(&account(0)).await;
    assert!(matches!(read, Err(StoreError::Away(_))), "{read:?}");
    world.journal.unreadable.store(false, Ordering::Relaxed);
    world.until_it_is_back().await;
    assert_eq!(world.engines(), before);
    world.hold(0, 4).await.unwrap();
    assert_eq!(world.after_a_kill().await.engines(), world.engines());
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_can_only_be_read_is_away_until_it_takes_a_write() {
    let world = World::fresh().await;
    world.hold(0, 1).await.unwrap();
    let before = world.engines();
    world.journal.fails.store(true, Ordering::Relaxed);
    assert!(matches!(world.hold(0, 2).await, Err(StoreError::Away(_))));
    let began = Instant::now();
    world.until_probed(8).await;
    let longest = 8 * Duration::from_secs(2);
    assert!(Duration::from_secs(1) < began.elapsed() && began.elapsed() < longest);
    for shard in world.store.shards.ids() {
        assert_eq!(world.store.adopted(shard), None, "so nobody reserves");
        let view = world.store.view(shard).await;
        let said = view.expect_err("readiness asks this").to_string();
        assert!(said.contains("no space is left"), "{said}");
    }
    let written = world.journal.kept.lock().groups.len();
    assert!(matches!(world.hold(1, 3).await, Err(StoreError::Away(_))));
    assert_eq!(world.journal.kept.lock().groups.len(), written);
    world.journal.fails.store(false, Ordering::Relaxed);
    world.until_it_is_back().await;
    assert_eq!(world.engines(), before);
    world.hold(0, 4).await.unwrap();
    assert_eq!(world.after_a_kill().await.engines(), world.engines());
}

#[tokio::test]
async fn a_group_that_failed_and_is_there_all_the_same_is_taken_up() {
    let world = World::fresh().await;
    world.journal.fails_late.store(true, Ordering::Relaxed);
    let answer = world.hold(0, 1).await;
    assert!(matches!(answer, Err(StoreError::Away(_))), "{answer:?}");
    world.journal.fails_late.store(false, Ordering::Relaxed);
    world.until_it_is_back().await;
    let view = world.store.account(&account(0)).await.unwrap().unwrap();
    assert_eq!(view.holds.len(), 1);
    world.hold(0, 2).await.unwrap();
    assert_eq!(world.after_a_kill().await.engines(), world.engines());
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_stands_still_keeps_nobody_waiting_longer_than_configured() {
    let world = World::fresh().await;
    world
        .journal
        .may_commit
        .forget_permits(Semaphore::MAX_PERMITS);
    let began = Instant::now();
    for verb in [world.hold(0, 1).await, world.hold(0, 2).await] {
        assert!(matches!(verb, Err(StoreError::Away(_))), "{verb:?}");
    }
    let overdue = world.store.overdue(ShardId(0), ALL).await;
    assert!(matches!(overdue, Err(StoreError::Away(_))), "{overdue:?}");
    assert_eq!(began.elapsed(), 3 * RESPONSE_TIMEOUT);
    world.journal.may_commit.add_permits(ALL);
    let again = world.hold(0, 1).await;
    assert!(matches!(again, Ok(Reserved::Held { .. })), "{again:?}");
}
