//! How fast endings reach Postgres, against how fast a sidecar makes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tollgate::clock::Clock;
use tollgate::ledger::{Applier, Flusher, Keeper, Ledger, PostgresLedger};
use tollgate::quota::redis::RedisSettings;
use tollgate::quota::{ShardId, Store};

use crate::Effort;
use crate::harness::mock;
use crate::harness::redis::{Server, connected};
use crate::harness::relay::Relay;
use crate::load::{self, Calls};
use crate::nginx::Nginx;
use crate::report::{Goal, Report, median};
use crate::setting::Setting;

const CONNECTIONS: usize = 32;
const LEAST: f64 = 2.0;

pub fn run(report: &mut Report, effort: Effort) {
    let runtime = Runtime::new().expect("a runtime");
    let server = Server::start();
    let setting = runtime.block_on(Setting::on_servers(&server));
    // The fast upstream where there is one: a slow one would flatter the flush.
    let nginx = Nginx::is_installed().then(Nginx::upstream);
    let upstream = nginx.as_ref().map_or(mock::url(), |nginx| &nginx.url);
    let customers: Vec<String> = (0..effort.of(4, CONNECTIONS))
        .map(|_| setting.customer().key)
        .collect();
    let (wire, ledger_url) = runtime.block_on(Relay::to(&setting.installation.ledger_url));
    let mut rates = Vec::new();
    for _ in 0..effort.of(1, 5) {
        let sidecar = setting.sidecar(upstream, Some(&ledger_url));
        let calls = Calls::chats(&sidecar.proxy, "/openai/v1/chat/completions", &customers);
        load::closed(&calls, CONNECTIONS, Duration::from_millis(500));
        runtime.block_on(drain(&setting, &server));
        wire.silence();
        let sample = load::closed(
            &calls,
            CONNECTIONS,
            effort.of(Duration::from_secs(1), Duration::from_secs(4)),
        );
        drop(sidecar);
        wire.mend();
        let (entries, took) = runtime.block_on(drain(&setting, &server));
        rates.push((sample.per_second(), entries as f64 / took.as_secs_f64()));
    }
    report.figure(
        "admission: calls through a sidecar on Redis, 32 connections",
        median(rates.iter().map(|it| it.0)),
        "calls/s",
    );
    report.figure(
        "flush: records into Postgres",
        median(rates.iter().map(|it| it.1)),
        "records/s",
    );
    let ratio = median(rates.iter().map(|(admitted, flushed)| flushed / admitted));
    report.goal("flush : admission", ratio, "x", Goal::AtLeast(LEAST));
}

/// Flushes all that is there, shard by shard, as a sidecar does; how many entries there were, and how long it took.
async fn drain(setting: &Setting, server: &Server) -> (usize, Duration) {
    let clock = Clock::System;
    let ledger = PostgresLedger::connect(&setting.installation.ledger_url).await;
    let ledger = Arc::new(ledger.expect("Postgres is there"));
    let store = connected(RedisSettings {
        response_timeout: Duration::from_secs(10),
        ..RedisSettings::new(
            server.url(),
            &setting.installation.prefix,
            ledger.installation().shards,
        )
    });
    let store = Arc::new(store.await);
    let keeper = Arc::new(Keeper::new(store.clone(), ledger.clone(), clock.clone()));
    assert!(keeper.round().await, "{:?}", keeper.health());
    let applier = Arc::new(Applier::new(store.clone(), ledger.clone(), clock.clone()));
    let flusher = Flusher::new(store.clone(), ledger, keeper, applier, clock);
    let mut entries = 0;
    for shard in (0..store.shards()).map(ShardId) {
        let view = store.view(shard).await.expect("the store is there");
        entries += usize::try_from(view.outbox_len).expect("few");
        if view.outbox_len > 0 {
            flusher.mark(shard);
        }
    }
    let began = Instant::now();
    while !flusher.flush_dirty().await {}
    (entries, began.elapsed())
}
