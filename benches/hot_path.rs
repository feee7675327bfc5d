//! What one admitted call costs: in the engine alone, on the embedded store, on Redis, and all the way through a sidecar.

use std::future::pending;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rust_decimal::Decimal;
use sha2::{Digest, Sha256};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tollgate::clock::Clock;
use tollgate::config::Config;
use tollgate::ledger::sqlite::file::{Durability, File};
use tollgate::ledger::sqlite::journal::SqliteJournal;
use tollgate::ledger::sqlite::schema;
use tollgate::ledger::{KeyHash, MemoryLedger, NewGrant, Prices};
use tollgate::money::{Amount, Nanos};
use tollgate::price;
use tollgate::proxy::{self, Listeners, Operator};
use tollgate::quota::embedded::{EmbeddedSettings, EmbeddedStore};
use tollgate::quota::engine::{DEFAULT_OUTBOX_BOUND, Engine};
use tollgate::quota::redis::RedisSettings;
use tollgate::quota::{
    AccountId, AccountImage, Limit, Reserve, RunId, Settle, ShardId, Snapshot, Store,
};
use uuid::Uuid;

use crate::Effort;
use crate::claims::{self, PLENTY};
use crate::harness::redis::{Server, connected, header, opened};
use crate::load::{self, BODY, Caller};
use crate::report::{Goal, Report, median};

const SHARDS: u16 = 4;
/// Calls in flight where there are many.
const MANY: usize = 32;
const MOST_REDIS_US: f64 = 32.0;

pub fn run(report: &mut Report, effort: Effort) {
    let runtime = Runtime::new().expect("a runtime");
    let calls = effort.of(200, 3_000);
    let rounds = effort.of(2, 9);
    let server = Server::start();
    let account = claims::account(1);
    let embedded = runtime.block_on(embedded(&account));
    let redis = runtime.block_on(on_redis(&server, &account));

    let mut engine_us = Vec::new();
    let mut embedded_us = Vec::new();
    let mut redis_us = Vec::new();
    let mut many = (Vec::new(), Vec::new());
    let mut alone = Vec::new();
    let mut scripts = Vec::new();
    let made_up = || claims::calls(&account, calls);
    for _ in 0..rounds {
        engine_us.push(engine(&mut new_engine(&account), &made_up()));
        embedded_us.push(runtime.block_on(one_by_one(&embedded.0, &made_up())));
        let calls_made_up = made_up();
        server.command::<()>(&["CONFIG", "RESETSTAT"]);
        redis_us.push(runtime.block_on(one_by_one(&redis, &calls_made_up)));
        alone.push(script_us(&server));
        many.0
            .push(runtime.block_on(at_once(&embedded.0, &made_up())));
        let calls_made_up = made_up();
        server.command::<()>(&["CONFIG", "RESETSTAT"]);
        let before = main_thread_us(&server);
        many.1
            .push(runtime.block_on(at_once(&redis, &calls_made_up)));
        let thread_us = (main_thread_us(&server) - before) / calls as f64;
        scripts.push((script_us(&server), thread_us));
        runtime.block_on(async {
            claims::forget_all(&embedded.0).await;
            claims::forget_all(&redis).await;
        });
    }
    let both = "reserve + settle with 5 lines";
    report.figure(&format!("engine: {both}"), median(engine_us.clone()), "us");
    report.figure(
        &format!("embedded: {both}, one by one"),
        median(embedded_us.clone()),
        "us",
    );
    report.figure(
        &format!("Redis: {both}, one by one"),
        median(redis_us.clone()),
        "us",
    );
    let ratios = redis_us
        .iter()
        .zip(&embedded_us)
        .map(|(redis, embedded)| redis / embedded);
    report.figure("Redis : embedded, one by one", median(ratios), "x");
    report.figure(
        &format!("embedded: {both}, {MANY} at once"),
        median(many.0),
        "calls/s",
    );
    report.figure(
        &format!("Redis: {both}, {MANY} at once"),
        median(many.1),
        "calls/s",
    );
    let of_scripts = median(scripts.iter().map(|(scripts, _)| 2.0 * scripts));
    let goal = Goal::AtMost(MOST_REDIS_US);
    let what = format!("Redis's main thread: {both}, in the scripts, {MANY} at once");
    report.goal(&what, of_scripts, "us", goal);
    let of_all = median(scripts.iter().map(|(_, all)| *all));
    let what = format!("Redis's main thread: {both}, with the network, {MANY} at once");
    report.figure(&what, of_all, "us");
    let what = format!("Redis's main thread: {both}, in the scripts, one by one");
    report.figure(&what, 2.0 * median(alone), "us");

    let mut bare = new_engine(&account);
    let [first, second, third] = [made_up(), made_up(), made_up()];
    let mut allocated = |what: &str, work: &mut dyn FnMut()| {
        let region = Region::new(&INSTRUMENTED_SYSTEM);
        work();
        let each = region.change().allocations as f64 / calls as f64;
        report.figure(&format!("{what}: allocations, {both}"), each, "");
    };
    allocated("engine", &mut || {
        engine(&mut bare, &first);
    });
    allocated("embedded", &mut || {
        runtime.block_on(one_by_one(&embedded.0, &second));
    });
    allocated("Redis", &mut || {
        runtime.block_on(one_by_one(&redis, &third));
    });
    whole_calls(report, &server, calls);
}

type Calls = [(Reserve, Settle)];

/// Microseconds a call of the state machine, without a lock, a journal or a wire.
fn engine(engine: &mut Engine, calls: &Calls) -> f64 {
    let now = Clock::System.now();
    let began = Instant::now();
    for (claim, settle) in calls {
        engine.reserve(now, claim);
        engine.settle(now, settle);
    }
    began.elapsed().as_secs_f64() * 1e6 / calls.len() as f64
}

fn new_engine(account: &AccountId) -> Engine {
    let mut engine = Engine::new(header(), DEFAULT_OUTBOX_BOUND);
    engine.load(Clock::System.now(), &image(account));
    engine
}

async fn one_by_one(store: &impl Store, calls: &Calls) -> f64 {
    let began = Instant::now();
    for call in calls {
        claims::call(store, call).await;
    }
    began.elapsed().as_secs_f64() * 1e6 / calls.len() as f64
}

async fn at_once(store: &impl Store, calls: &Calls) -> f64 {
    let began = Instant::now();
    join_all(
        calls
            .chunks(calls.len() / MANY)
            .map(|calls| one_by_one(store, calls)),
    )
    .await;
    calls.len() as f64 / began.elapsed().as_secs_f64()
}

fn image(account: &AccountId) -> AccountImage {
    claims::image(account, PLENTY)
}

async fn embedded(account: &AccountId) -> (EmbeddedStore, TempDir) {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("tollgate.db");
    let file = File::create(&path, Durability::Process)
        .await
        .expect("a file");
    schema::migrate(&file, None).await.expect("a schema");
    let journal = Arc::new(SqliteJournal::new(Arc::new(file)));
    let settings = EmbeddedSettings::new(
        RunId("a journal".into()),
        SHARDS,
        DEFAULT_OUTBOX_BOUND,
        Clock::System,
    );
    let store = EmbeddedStore::open(journal, settings)
        .await
        .expect("a new journal");
    for shard in (0..SHARDS).map(ShardId) {
        store.open(shard, &header()).await.expect("it opens");
        store.adopt(shard, header().epoch);
    }
    store.load(&image(account)).await.expect("it loads");
    (store, directory)
}

async fn on_redis(server: &Server, account: &AccountId) -> impl Store + use<> {
    let store = opened(RedisSettings {
        response_timeout: Duration::from_secs(5),
        ..RedisSettings::new(server.url(), "hot-path", SHARDS)
    })
    .await;
    store.load(&image(account)).await.expect("it loads");
    store
}

/// What a call of a script takes of the server, on average, since the statistics were reset.
fn script_us(server: &Server) -> f64 {
    let stats: String = server.command(&["INFO", "commandstats"]);
    let mut lines = stats.lines();
    let line = lines.find(|line| line.starts_with("cmdstat_evalsha:"));
    let mut fields = line.expect("scripts were called").split(',');
    let per_call = fields.find_map(|part| part.strip_prefix("usec_per_call="));
    per_call.expect("a figure").parse().expect("a number")
}

/// What the server's one thread has taken so far: scripts, parsing, and the network.
fn main_thread_us(server: &Server) -> f64 {
    let stats: String = server.command(&["INFO", "cpu"]);
    let of = |name: &str| -> f64 {
        let line = stats.lines().find_map(|line| line.strip_prefix(name));
        line.expect("Redis says so")
            .trim()
            .parse()
            .expect("a number")
    };
    (of("used_cpu_sys_main_thread:") + of("used_cpu_user_main_thread:")) * 1e6
}

/// Allocations of a whole call through a sidecar in this process, its HTTP included. The caller and the upstream are
/// threads that allocate nothing.
fn whole_calls(report: &mut Report, server: &Server, calls: usize) {
    let upstream = upstream();
    let store = EmbeddedStore::in_memory(SHARDS, DEFAULT_OUTBOX_BOUND, Clock::System);
    let counted = through_a_sidecar(store, &upstream, "/openai", calls);
    report.figure(
        "sidecar, embedded in memory: allocations an admitted call",
        counted,
        "",
    );
    let store = EmbeddedStore::in_memory(SHARDS, DEFAULT_OUTBOX_BOUND, Clock::System);
    let counted = through_a_sidecar(store, &upstream, "/none", calls);
    report.figure("sidecar, meter = none: allocations a call", counted, "");
    let runtime = Runtime::new().expect("a runtime");
    let store = runtime.block_on(connected(RedisSettings {
        response_timeout: Duration::from_secs(5),
        ..RedisSettings::new(server.url(), "whole", SHARDS)
    }));
    let counted = through_a_sidecar(store, &upstream, "/openai", calls);
    report.figure("sidecar, Redis: allocations an admitted call", counted, "");
}

fn through_a_sidecar<S: Store + 'static>(
    store: S,
    upstream: &str,
    route: &str,
    calls: usize,
) -> f64 {
    const SECRET: &str = "tg_benchmark";
    let config = Config::demo(&format!(
        r#"
        [listen]
        proxy = "127.0.0.1:0"
        control = "127.0.0.1:0"
        health = "127.0.0.1:0"
        [[route]]
        prefix = "/openai"
        upstream = "{upstream}"
        meter = "openai"
        [[route]]
        prefix = "/none"
        upstream = "{upstream}"
        meter = "none"
        "#
    ))
    .expect("a configuration");
    let (announce, announced) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let sidecar = thread::spawn(move || {
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let ledger = ledger(SECRET).await;
            let say = |addresses: &proxy::Addresses| {
                announce
                    .send(addresses.proxy.clone())
                    .expect("it is awaited");
            };
            let stop = async {
                let _ = stopped.await;
            };
            let listeners = Listeners::open(&config).await.expect("free ports");
            let backends = (Arc::new(store), Arc::new(ledger));
            let operator = Operator::default();
            let clock = Clock::System;
            let served = proxy::serve(config, listeners, backends, clock, operator, say, stop);
            tokio::select! {
                served = served => served.expect("it serves"),
                () = pending() => {}
            }
        });
    });
    let base = announced.recv().expect("it starts");
    let body = BODY.replace("house-chat", "gpt-4o-mini");
    let path = format!("{route}/v1/chat/completions");
    let request = load::request(&base, &path, SECRET, &body);
    let mut caller = Caller::connect(load::address(&base));
    for _ in 0..calls / 4 {
        caller.call(&request);
    }
    let region = Region::new(&INSTRUMENTED_SYSTEM);
    for _ in 0..calls {
        caller.call(&request);
    }
    let counted = region.change().allocations as f64 / calls as f64;
    drop(caller);
    let _ = stop.send(());
    sidecar.join().expect("it ends");
    counted
}

async fn ledger(secret: &str) -> MemoryLedger {
    let prices = Prices {
        version: 1,
        entries: price::seed(),
        markup_percent: Decimal::ZERO,
    };
    let ledger = MemoryLedger::new(SHARDS, prices);
    let account = claims::account(1);
    let limit = |key: &str| Limit {
        key: key.parse().expect("a counter's name"),
        limit: Amount(PLENTY),
    };
    let snapshot = Snapshot {
        limits: ["account/requests/day", "account/tokens/month"]
            .map(limit)
            .to_vec(),
        ..claims::image(&account, 0).snapshot
    };
    ledger.create_account(snapshot).await;
    let hash = KeyHash(Sha256::digest(secret.as_bytes()).into());
    let _: Uuid = ledger.create_key(&account, hash).await;
    let grant = NewGrant {
        amount: Nanos(PLENTY),
        priority: 0,
        promotional: false,
        effective_at: Clock::System.now(),
        expires_at: None,
    };
    ledger.grant(&account, &grant).await.expect("a grant");
    ledger
}

/// Answers every call with a small completion, and allocates nothing once a connection is there.
fn upstream() -> String {
    const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"The Volga."},"finish_reason":"stop"}],"usage":{"prompt_tokens":38,"completion_tokens":4,"total_tokens":42}}"#;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{ANSWER}",
        ANSWER.len()
    );
    let answer: Arc<str> = answer.into();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut stream = stream;
                let _ = stream.set_nodelay(true);
                let mut buffer = vec![0; 16 * 1024];
                let mut filled = 0;
                while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
                    filled += read;
                    // Every call's body ends so, and nothing before it does.
                    if buffer[..filled].ends_with(b"}]}") {
                        filled = 0;
                        if stream.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    format!("http://{address}")
}
