//! A slot on its way from one node of a Cluster to another (rule 15).

use std::time::Duration;

use tollgate::quota::redis::RedisSettings;
use tollgate::quota::{Store, StoreError};

use crate::harness::redis::{Cluster, check, settings, until};
use crate::store::stage::{SHARDS, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_moves_loses_nothing_and_is_checked_again() {
    let cluster = Cluster::start();
    let settings = RedisSettings {
        response_timeout: Duration::from_millis(500),
        ..settings(&cluster.url(), SHARDS)
    };
    let stage = Stage::redis_with(settings).await.with_lots(&[100]).await;
    let claim = stage.claim(10);
    stage.hold(&claim).await;
    let server_before = stage.store.view(stage.shard).await.unwrap().run_id;

    let moving = cluster.begin_to_move(&stage.tag());
    moving.move_one_key();
    let torn = stage.store.reserve(&stage.claim(10)).await;
    assert!(matches!(torn, Err(StoreError::Away(_))), "{torn:?}");
    moving.finish();

    until("the new node answers", async || {
        check(&stage.store, stage.shard).await;
        stage.store.reserve(&claim).await.is_ok()
    })
    .await;
    check(&stage.store, stage.shard).await;
    stage.end(&stage.settled(&claim, 4, &[])).await;
    assert_eq!(stage.lots().await, [(1, 96, 0)]);
    let server_after = stage.store.view(stage.shard).await.unwrap().run_id;
    assert_ne!(server_after, server_before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_meets_the_move_follows_it_once_and_then_waits_for_the_check() {
    let cluster = Cluster::start();
    let stage = Stage::redis_at(&cluster.url())
        .await
        .with_lots(&[100])
        .await;
    cluster.begin_to_move(&stage.tag()).finish();

    stage.hold(&stage.claim(10)).await;
    assert_eq!(stage.store.adopted(stage.shard), None);
    check(&stage.store, stage.shard).await;
    stage.hold(&stage.claim(10)).await;
    assert_eq!(stage.lots().await, [(1, 80, 20)]);
}
