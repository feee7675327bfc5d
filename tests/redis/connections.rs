//! Connections that break, servers that go and come back, and what counts until a shard was checked again.

use std::time::{Duration, Instant};

use tollgate::quota::redis::RedisSettings;
use tollgate::quota::{ShardId, Store, StoreError};

use crate::harness::redis::{Cluster, until};
use crate::harness::redis::{Server, check, connected, opened, settings};
use crate::store::stage::Stage;

const SHARD: ShardId = ShardId(0);

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_at_the_start_is_found_when_it_comes() {
    let mut server = Server::start();
    server.kill();
    let store = connected(settings(&server.url(), 1)).await;
    let away = store.view(SHARD).await;
    assert!(matches!(away, Err(StoreError::Away(_))), "{away:?}");

    server.restart();
    until("the store is found", async || {
        store.view(SHARD).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_made_again_and_its_shards_are_checked_again() {
    let server = Server::start();
    let stage = Stage::redis_at(&server.url()).await.with_lots(&[100]).await;
    stage.hold(&stage.claim(10)).await;

    server.command::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);
    until("the break is seen without a command", async || {
        stage.store.adopted(stage.shard).is_none()
    })
    .await;
    let refused = stage.store.reserve(&stage.claim(10)).await;
    assert!(
        matches!(refused, Err(StoreError::Lost { .. })),
        "{refused:?}"
    );
    until("it is connected again", async || {
        stage.store.view(stage.shard).await.is_ok()
    })
    .await;
    let refused = stage.store.reserve(&stage.claim(10)).await;
    assert!(
        matches!(refused, Err(StoreError::Lost { .. })),
        "{refused:?}"
    );

    check(&stage.store, stage.shard).await;
    stage.hold(&stage.claim(10)).await;
    assert_eq!(stage.lots().await, [(1, 80, 20)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lost_everything_is_not_taken_for_the_one_that_was() {
    let mut server = Server::start();
    let store = opened(settings(&server.url(), 1)).await;
    let before = store.view(SHARD).await.unwrap();

    server.kill();
    until("the loss is seen", async || {
        store.view(SHARD).await.is_err()
    })
    .await;
    server.restart();
    until("it is back", async || store.view(SHARD).await.is_ok()).await;
    let after = store.view(SHARD).await.unwrap();
    assert_eq!((after.header, store.adopted(SHARD)), (None, None));
    assert_ne!(after.run_id, before.run_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_in_time_is_away() {
    let server = Server::start();
    let timeout = Duration::from_millis(50);
    let hasty = RedisSettings {
        response_timeout: timeout,
        ..settings(&server.url(), 1)
    };
    let hasty = connected(hasty).await;
    until("it is connected", async || hasty.view(SHARD).await.is_ok()).await;

    server.command::<()>(&["CLIENT", "PAUSE", "60000", "ALL"]);
    let begun = Instant::now();
    let away = hasty.view(SHARD).await;
    assert!(
        matches!(&away, Err(StoreError::Away(why)) if why.contains("50ms")),
        "{away:?}"
    );
    assert!(begun.elapsed() >= timeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_that_goes_takes_its_shards_along_until_they_are_checked() {
    let mut cluster = Cluster::start();
    let stage = Stage::redis_at(&cluster.url()).await;
    let tag = stage.tag();
    let node = cluster.node_of(&tag);
    cluster.nodes[node].kill();
    until("the loss is seen", async || {
        stage.store.adopted(stage.shard).is_none()
    })
    .await;
    let away = stage.store.view(stage.shard).await;
    assert!(matches!(away, Err(StoreError::Away(_))), "{away:?}");

    cluster.nodes[node].restart();
    until("the node is back", async || {
        stage.store.view(stage.shard).await.is_ok()
    })
    .await;
    let header = stage.store.view(stage.shard).await.unwrap().header;
    assert_eq!((header, stage.store.adopted(stage.shard)), (None, None));
}

/// A server that followed another one, and takes over again, has the other's data under its old run id.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_from_being_a_replica_is_another_one() {
    let (server, other) = (Server::start(), Server::start());
    let stage = Stage::redis_at(&server.url()).await;
    let name = async || {
        stage
            .store
            .view(stage.shard)
            .await
            .ok()
            .map(|view| view.run_id)
    };
    let before = name().await.expect("it answers");
    assert_eq!(name().await, Some(before.clone()), "nothing has happened");
    let port = other.address().port().to_string();
    server.command::<()>(&["REPLICAOF", "127.0.0.1", &port]);
    until("it has the other's data", async || {
        let info: String = server.command(&["INFO", "replication"]);
        info.contains("master_link_status:up")
    })
    .await;
    server.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    until("it answers again", async || name().await.is_some()).await;
    assert_ne!(name().await, Some(before));
}
