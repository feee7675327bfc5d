//! A PostgreSQL that goes silent, without closing a connection, is away within a bound, and back when it is back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tollgate::clock::Clock;
use tollgate::ledger::{Keeper, Ledger, LedgerError, PostgresLedger};
use tollgate::quota::embedded::EmbeddedStore;
use tollgate::quota::{ShardId, Store};

use crate::harness::postgres::{SHARDS, database};

/// A wire to the server that can be made to carry nothing.
struct Tap {
    url: String,
    flows: watch::Sender<bool>,
}

async fn tap(url: &str) -> Tap {
    let (_, rest) = url.split_once('@').unwrap();
    let (target, _) = rest.split_once('/').unwrap();
    let target = target.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().to_string();
    let url = url.replace(&target, &here);
    let (flows, flowing) = watch::channel(true);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut flowing = flowing.clone();
            let target = target.clone();
            tokio::spawn(async move {
                let _ = flowing.wait_for(|flows| *flows).await;
                let mut server = TcpStream::connect(target).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut server) => return,
                    _ = async { flowing.wait_for(|flows| !*flows).await.is_ok() } => {}
                }
                // Once silent, this connection stays silent: it is neither closed nor carried on.
                std::future::pending::<()>().await;
            });
        }
    });
    Tap { url, flows }
}

#[tokio::test]
async fn a_silent_server_is_away_within_a_bound_and_then_back() {
    let tap = tap(&database().await).await;
    let ledger = Arc::new(PostgresLedger::connect(&tap.url).await.unwrap());
    let store = Arc::new(EmbeddedStore::in_memory(SHARDS, 10, Clock::System));
    let keeper = Keeper::new(store.clone(), ledger.clone(), Clock::System);
    assert!(keeper.round().await);

    tap.flows.send_replace(false);
    let asked = Instant::now();
    for _ in 0..3 {
        let answer = ledger.prices_version().await;
        assert!(matches!(answer, Err(LedgerError::Away(_))), "{answer:?}");
    }
    let outbox = store.outbox(ShardId(0), 1).await.unwrap();
    let flushed = ledger.commit(ShardId(0), &outbox).await;
    assert!(matches!(flushed, Err(LedgerError::Away(_))), "{flushed:?}");
    assert!(asked.elapsed() < Duration::from_secs(30));
    assert!(!keeper.round().await);
    assert!(keeper.health().ledger.is_some());

    tap.flows.send_replace(true);
    ledger.commit(ShardId(0), &outbox).await.unwrap();
    ledger.prices_version().await.unwrap();
    assert!(keeper.round().await);
    assert_eq!(keeper.health().ledger, None);
}
