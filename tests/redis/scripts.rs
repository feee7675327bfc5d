//! Scripts on a server that forgets them, and on one that is out of memory.

use tollgate::quota::{
    MAX_DETAIL_BYTES, MAX_LINES, MAX_LOTS, Reserve, SettleAnswer, Store, StoreError,
};

use crate::harness::redis::Server;
use crate::store::stage::{Stage, line};

#[tokio::test(flavor = "multi_thread")]
async fn rule_15_a_server_that_forgot_the_scripts_is_told_them_again() {
    let server = Server::start();
    let stage = Stage::redis_at(&server.url()).await.with_lots(&[100]).await;
    let claim = stage.claim(10);
    stage.hold(&claim).await;

    server.command::<()>(&["SCRIPT", "FLUSH"]);
    stage.hold(&stage.claim(20)).await;
    stage.end(&stage.settled(&claim, 5, &[])).await;
    assert_eq!(stage.lots().await, [(1, 75, 20)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_a_server_out_of_memory_takes_endings_but_no_holds() {
    let server = Server::start();
    let stage = Stage::redis_at(&server.url()).await.with_lots(&[100]).await;
    let claim = stage.claim(10);
    stage.hold(&claim).await;

    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = stage.store.reserve(&stage.claim(1)).await;
    assert!(
        matches!(&refused, Err(StoreError::Away(why)) if why.contains("OOM")),
        "{refused:?}"
    );
    let settled = stage.settle(&stage.settled(&claim, 5, &[])).await;
    assert!(matches!(settled, SettleAnswer::Ended(_)));
    assert_eq!(stage.lots().await, [(1, 95, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_may_evict_is_seen() {
    let server = Server::start();
    let stage = Stage::redis_at(&server.url()).await;
    let noeviction = async || stage.store.view(stage.shard).await.unwrap().noeviction;
    assert!(noeviction().await);
    server.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert!(!noeviction().await);
}

/// A script's lists go over Lua's stack, which is bounded: the largest account there may be fits.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_account_fits_into_a_script() {
    let stage = Stage::redis().await.with_lots(&[1; MAX_LOTS]).await;
    let resources = (0..MAX_LINES).map(|n| format!("resource_{n}"));
    let claim = Reserve {
        lines: resources.map(|name| line(&name, 1, 1)).collect(),
        detail: "x".repeat(MAX_DETAIL_BYTES).into(),
        ..stage.claim(i64::try_from(MAX_LOTS).unwrap())
    };
    stage.hold(&claim).await;
    assert_eq!(stage.account().await.holds[0].slices.len(), MAX_LOTS);

    let entry = stage
        .end(&stage.settled(&claim, 300, &[1; MAX_LINES]))
        .await;
    assert_eq!(entry.moved.lots.len(), MAX_LOTS);
    assert_eq!(entry.moved.counters.len(), MAX_LINES);
    assert_eq!(stage.debt().await, (44, 0));
}
