//! The ledger decides, and the store follows (rule 24).

use tollgate::ledger::Ledger;
use tollgate::quota::{ENDED_MARK_MS, OutSeq, ReservationId, SettleAnswer, Store};

use super::world::{DEADLINE_MS, World};

pub async fn a_settle_after_a_lapse_corrects_it_by_the_difference(world: World) {
    let account = world.account(&[100]).await;
    let id = world.hold(&account, 10).await;
    world.pass_ms(DEADLINE_MS);
    world.lapse(&account, id).await;
    world.flush(&account).await;
    world.settle(&account, id, 8).await;
    world.settle(&account, id, 8).await;
    world.assert_one(&account).await;
    assert_eq!(
        world.records(&account).await,
        [("lapsed".into(), 5, 1), ("correction".into(), 3, 7)],
        "the numbers of a correction are differences, so sums are right"
    );
    assert_eq!(world.balance(&account).await, 92);
}

pub async fn a_lapse_and_its_settle_may_arrive_in_one_batch(world: World) {
    let account = world.account(&[100]).await;
    let id = world.hold(&account, 10).await;
    world.pass_ms(DEADLINE_MS);
    world.lapse(&account, id).await;
    world.settle(&account, id, 0).await;
    assert_eq!(world.flush(&account).await, 2);
    world.assert_one(&account).await;
    assert_eq!(
        world.records(&account).await,
        [("lapsed".into(), 5, 1), ("correction".into(), -5, -1)]
    );
    assert_eq!(world.balance(&account).await, 100);
}

pub async fn a_settle_that_the_store_knew_nothing_of_is_charged_once(world: World) {
    let account = world.account(&[100]).await;
    let id = world.hold(&account, 10).await;
    world.pass_ms(DEADLINE_MS);
    world.lapse(&account, id).await;
    world.flush(&account).await;
    // The store has forgotten the lapse, and so charges the whole again.
    world.pass_ms(ENDED_MARK_MS + 1);
    world.settle(&account, id, 8).await;
    assert_eq!(world.balance(&account).await, 87);
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 92, "the rest came back");
    assert_eq!(
        world.records(&account).await[1],
        ("correction".into(), 3, 7)
    );
}

pub async fn a_duplicate_ending_is_undone_in_the_store(world: World) {
    let account = world.account(&[4, 100]).await;
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 8).await;
    world.flush(&account).await;
    world.pass_ms(ENDED_MARK_MS + 1);
    for charge in [8, 9, 0] {
        let answer = world.settle(&account, id, charge).await;
        assert!(matches!(answer, SettleAnswer::Ended(_)), "{answer:?}");
        world.pass_ms(ENDED_MARK_MS + 1);
    }
    world.assert_one(&account).await;
    assert_eq!(world.records(&account).await, [("settled".into(), 8, 8)]);
    assert_eq!(world.balance(&account).await, 96);
}

pub async fn credit_that_comes_back_to_an_empty_lot_can_be_drawn_again(world: World) {
    let account = world.account(&[5, 50]).await;
    let id = world.hold(&account, 10).await;
    world.pass_ms(DEADLINE_MS);
    world.lapse(&account, id).await;
    world.flush(&account).await;
    // The first lot has nothing left, so a grant's list leaves it out.
    world.grant(&account, 1).await;
    world.quiesce(&account).await;
    let view = world.store.account(&account).await.unwrap().unwrap();
    assert_eq!(view.order.len(), 2);

    world.settle(&account, id, 2).await;
    world.assert_one(&account).await;
    let view = world.store.account(&account).await.unwrap().unwrap();
    assert_eq!(view.order.len(), 3);
    let all = world.hold(&account, 54).await;
    world.settle(&account, all, 54).await;
    world.assert_one(&account).await;
}

pub async fn an_overrun_becomes_debt_that_the_next_grant_pays_first(world: World) {
    let account = world.account(&[10]).await;
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 25).await;
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, -15);
    world.grant(&account, 20).await;
    world.assert_one(&account).await;
    let image = world.ledger.image(&account).await.unwrap().unwrap();
    assert_eq!(image.debt.0, 0);
    assert_eq!(world.balance(&account).await, 5);
    let overrun = "SELECT overrun FROM usage_record WHERE account_id = $1";
    let overrun: Vec<(bool,)> = world.place.rows(overrun, &account).await;
    assert_eq!(overrun, [(true,)]);
}

#[tokio::test]
async fn a_correction_lies_in_the_partition_of_its_record() {
    let world = World::new().await;
    let account = world.account(&[100]).await;
    let id = world.hold(&account, 10).await;
    world.pass_ms(DEADLINE_MS);
    world.lapse(&account, id).await;
    world.settle(&account, id, 8).await;
    world.flush(&account).await;
    let partitions: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT tableoid::regclass::text FROM usage_record WHERE account_id = $1",
    )
    .bind(account.as_str())
    .fetch_all(world.place.pool())
    .await
    .unwrap();
    assert_eq!(partitions.len(), 1);
    assert_ne!(partitions[0], "usage_record_default");
    let corrects: Vec<ReservationId> = sqlx::query_scalar::<_, uuid::Uuid>(
        "SELECT corrects FROM usage_record WHERE account_id = $1 AND outcome = 'correction'",
    )
    .bind(account.as_str())
    .fetch_all(world.place.pool())
    .await
    .unwrap()
    .into_iter()
    .map(ReservationId)
    .collect();
    assert_eq!(corrects, [id]);
}

pub async fn the_row_remembers_how_far_it_has_come(world: World) {
    let account = world.account(&[100]).await;
    let id = world.hold(&account, 10).await;
    let SettleAnswer::Ended(OutSeq(seq)) = world.settle(&account, id, 1).await else {
        panic!("it was held");
    };
    world.flush(&account).await;
    let row = world.ledger.row(world.shard(&account)).await.unwrap();
    assert_eq!(row.flushed_seq, OutSeq(seq));
}
