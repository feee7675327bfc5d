//! What many accounts cost: the time of an admission, and the memory of an account that is idle and of a hold.

use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tollgate::clock::Clock;
use tollgate::quota::embedded::EmbeddedStore;
use tollgate::quota::engine::DEFAULT_OUTBOX_BOUND;
use tollgate::quota::redis::RedisSettings;
use tollgate::quota::{ShardId, Store};

use crate::Effort;
use crate::claims::{self, PLENTY};
use crate::harness::redis::{Server, header, opened};
use crate::report::{Goal, Report, median};

const SHARDS: u16 = 64;
/// How much longer an admission may take with the most accounts than with one before that is more than noise.
const FLAT: f64 = 1.25;

pub fn run(report: &mut Report, effort: Effort) {
    let sizes: &[usize] = effort.of(&[1, 1_000], &[1, 100, 10_000, 100_000]);
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut servers = Vec::new();
        let mut stores = Vec::new();
        let mut engines = Vec::new();
        for accounts in sizes {
            let server = Server::start();
            let store = opened(RedisSettings {
                response_timeout: Duration::from_secs(5),
                ..RedisSettings::new(server.url(), "scale", SHARDS)
            })
            .await;
            let empty = used_bytes(&server);
            load(&store, *accounts).await;
            if *accounts >= 1_000 {
                let bytes = (used_bytes(&server) - empty) / *accounts as f64;
                report.figure(
                    &format!("Redis, {accounts} accounts: an idle account"),
                    bytes,
                    "bytes",
                );
            }
            let engine = EmbeddedStore::in_memory(SHARDS, DEFAULT_OUTBOX_BOUND, Clock::System);
            for shard in (0..SHARDS).map(ShardId) {
                engine.open(shard, &header()).await.expect("it opens");
                engine.adopt(shard, header().epoch);
            }
            load(&engine, *accounts).await;
            servers.push(server);
            stores.push(store);
            engines.push(engine);
        }
        let (calls, rounds) = effort.of((200, 2), (2_000, 9));
        let mut redis_us = vec![Vec::new(); sizes.len()];
        let mut embedded_us = vec![Vec::new(); sizes.len()];
        for _ in 0..rounds {
            for (place, accounts) in sizes.iter().enumerate() {
                redis_us[place].push(admission_us(&stores[place], *accounts, calls).await);
                embedded_us[place].push(admission_us(&engines[place], *accounts, calls).await);
            }
        }
        for (name, taken) in [("Redis", &redis_us), ("embedded in memory", &embedded_us)] {
            for (accounts, taken) in sizes.iter().zip(taken) {
                let what = format!("{name}, {accounts} accounts: an admission");
                report.figure(&what, median(taken.clone()), "us");
            }
            let (first, last) = (&taken[0], &taken[sizes.len() - 1]);
            let ratio = median(last.iter().zip(first).map(|(last, first)| last / first));
            let what = format!("{name}: the most accounts : one");
            if name == "Redis" {
                report.goal(&what, ratio, "x", Goal::AtMost(FLAT));
            } else {
                // An engine's answer takes a microsecond: what it misses in the processor's cache is much of that.
                report.figure(&what, ratio, "x");
            }
        }
        let last = sizes.len() - 1;
        let before = used_bytes(&servers[last]);
        let holds = effort.of(1_000, 20_000);
        for number in 0..holds {
            let account = claims::account(number % sizes[last]);
            claims::hold(&stores[last], &claims::claim(&account)).await;
        }
        let bytes = (used_bytes(&servers[last]) - before) / holds as f64;
        report.figure("Redis: an open hold with 5 lines", bytes, "bytes");
    });
}

/// Accounts as they are when they have called: with their counters.
async fn load(store: &impl Store, accounts: usize) {
    for number in 0..accounts {
        let account = claims::account(number);
        let image = claims::image(&account, PLENTY);
        store.load(&image).await.expect("it loads");
    }
}

/// The time of a reserve, at the median; its settle is not on the caller's path.
async fn admission_us(store: &impl Store, accounts: usize, calls: usize) -> f64 {
    let mut taken = Vec::with_capacity(calls);
    for place in 0..calls {
        // Spread over all of them, and never the same twice in a row where there are two.
        let account = claims::account(place * 7_919 % accounts);
        let claim = claims::claim(&account);
        let asked = Instant::now();
        claims::hold(store, &claim).await;
        taken.push(asked.elapsed().as_secs_f64() * 1e6);
        store
            .settle(&claims::settle(&claim))
            .await
            .expect("it ends");
    }
    claims::forget_all(store).await;
    median(taken)
}

fn used_bytes(server: &Server) -> f64 {
    let info: String = server.command(&["INFO", "memory"]);
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    line.expect("Redis says so")
        .trim()
        .parse()
        .expect("a number")
}
