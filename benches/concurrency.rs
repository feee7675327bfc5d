//! Parallel reservations until nothing is left: whatever shards, accounts and processes there are, not one too many.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::runtime::Runtime;
use tollgate::clock::Clock;
use tollgate::quota::embedded::EmbeddedStore;
use tollgate::quota::engine::DEFAULT_OUTBOX_BOUND;
use tollgate::quota::redis::{RedisSettings, RedisStore};
use tollgate::quota::{AccountId, Reserved, ShardId, Store};
use uuid::Uuid;

use crate::Effort;
use crate::claims;
use crate::harness::redis::{Server, check, connected, header, opened};
use crate::report::Report;

/// How this binary is told to be one of several processes.
pub const WORKER: &str = "--worker";
/// Calls in flight in each process.
const AT_ONCE: usize = 16;
const CHARGE: i64 = 1_000;

/// Who races for what.
#[derive(Debug, Clone, Copy)]
struct Race {
    shards: u16,
    accounts: usize,
    processes: usize,
}

pub fn run(report: &mut Report, effort: Effort) {
    let total = effort.of(2_000, 40_000);
    let race = |shards, accounts, processes| Race {
        shards,
        accounts,
        processes,
    };
    let races = [
        race(1, 1, 1),
        race(1, 1, 4),
        race(64, 64, 1),
        race(64, 64, 4),
        race(64, 1_000, 2),
    ];
    let server = Server::start();
    for race in races {
        on_redis(report, &server, race, total);
    }
    for race in [race(1, 1, 1), race(64, 64, 1)] {
        embedded(report, race, total);
    }
}

fn on_redis(report: &mut Report, server: &Server, race: Race, total: usize) {
    let runtime = Runtime::new().expect("a runtime");
    let prefix = format!("race-{}", Uuid::now_v7().simple());
    let each = total / race.accounts;
    runtime.block_on(async {
        let store = opened(settings(&server.url(), &prefix, race.shards)).await;
        fill(&store, race.accounts, each).await;
    });
    let mut workers: Vec<Worker> = (0..race.processes)
        .map(|_| Worker::start(&server.url(), &prefix, race))
        .collect();
    workers.iter_mut().for_each(Worker::wait_until_ready);
    let began = Instant::now();
    workers.iter_mut().for_each(Worker::go);
    let held: Vec<Vec<usize>> = workers.iter_mut().map(Worker::held).collect();
    let elapsed = began.elapsed();
    let held = (0..race.accounts).map(|account| held.iter().map(|of| of[account]).sum());
    say(
        report,
        "Redis",
        race,
        &held.collect::<Vec<_>>(),
        each,
        elapsed,
    );
}

fn embedded(report: &mut Report, race: Race, total: usize) {
    let runtime = Runtime::new().expect("a runtime");
    let each = total / race.accounts;
    let store = EmbeddedStore::in_memory(race.shards, DEFAULT_OUTBOX_BOUND, Clock::System);
    runtime.block_on(async {
        for shard in (0..race.shards).map(ShardId) {
            store.open(shard, &header()).await.expect("it opens");
            store.adopt(shard, header().epoch);
        }
        fill(&store, race.accounts, each).await;
        let store = Arc::new(store);
        let began = Instant::now();
        let held = exhaust(&store, race.accounts).await;
        say(
            report,
            "embedded in memory",
            race,
            &held,
            each,
            began.elapsed(),
        );
    });
}

/// Says how fast it was, and fails where one too many was held, or one too few.
fn say(
    report: &mut Report,
    store: &str,
    race: Race,
    held: &[usize],
    each: usize,
    elapsed: Duration,
) {
    let Race {
        shards,
        accounts,
        processes,
    } = race;
    let what = format!("{store}: {accounts} accounts, {shards} shards, {processes} processes");
    let total: usize = held.iter().sum();
    report.figure(
        &what,
        total as f64 / elapsed.as_secs_f64(),
        "reservations/s",
    );
    let oversold: usize = held.iter().map(|held| held.saturating_sub(each)).sum();
    report.figure("  oversold", oversold as f64, "");
    assert_eq!(oversold, 0, "{what}: oversold");
    assert!(
        held.iter().all(|held| *held == each),
        "{what}: something was left, and refused all the same"
    );
}

async fn fill(store: &impl Store, accounts: usize, each: usize) {
    let left = i64::try_from(each).expect("few") * CHARGE;
    for number in 0..accounts {
        let image = claims::image(&claims::account(number), left);
        store.load(&image).await.expect("it loads");
    }
}

/// Reserves on all accounts until none has room; how often each was held.
async fn exhaust<S: Store + 'static>(store: &Arc<S>, accounts: usize) -> Vec<usize> {
    let tasks = (0..AT_ONCE).map(|place| {
        let store = store.clone();
        tokio::spawn(async move { exhaust_from(&*store, accounts, place).await })
    });
    let held = join_all(tasks).await;
    let held: Vec<Vec<usize>> = held.into_iter().map(|it| it.expect("it ends")).collect();
    (0..accounts)
        .map(|account| held.iter().map(|of| of[account]).sum())
        .collect()
}

async fn exhaust_from(store: &impl Store, accounts: usize, place: usize) -> Vec<usize> {
    let mut held = vec![0; accounts];
    let mut left: Vec<(usize, AccountId)> = (0..accounts)
        .map(|number| (number, claims::account(number)))
        .collect();
    let mut at = place;
    while !left.is_empty() {
        at = (at + 1) % left.len();
        let (number, account) = &left[at];
        match store.reserve(&claims::bare_claim(account, CHARGE)).await {
            Ok(Reserved::Held { .. }) => held[*number] += 1,
            Ok(Reserved::Short(_)) => {
                left.swap_remove(at);
            }
            other => panic!("{other:?}"),
        }
    }
    held
}

fn settings(url: &str, prefix: &str, shards: u16) -> RedisSettings {
    RedisSettings {
        response_timeout: Duration::from_secs(10),
        ..RedisSettings::new(url, prefix, shards)
    }
}

/// One of the processes, as the first sees it.
struct Worker {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Worker {
    fn start(url: &str, prefix: &str, race: Race) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this binary"))
            .args([WORKER, url, prefix])
            .args([race.shards.to_string(), race.accounts.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary runs");
        let said = BufReader::new(process.stdout.take().expect("a pipe"));
        Self { process, said }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it says something");
        line.trim().to_owned()
    }

    fn wait_until_ready(&mut self) {
        assert_eq!(self.line(), "ready");
    }

    fn go(&mut self) {
        let stdin = self.process.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"go\n").expect("it listens");
    }

    fn held(&mut self) -> Vec<usize> {
        let line = self.line();
        let held = line.split(' ').map(|held| held.parse().expect("a number"));
        let held = held.collect();
        self.process.wait().expect("it ends");
        held
    }
}

/// The life of such a process.
pub fn work(arguments: &[String]) {
    let [url, prefix, shards, accounts] = arguments else {
        panic!("{arguments:?}");
    };
    let (shards, accounts) = (
        shards.parse().expect("a number"),
        accounts.parse().expect("a number"),
    );
    let runtime = Runtime::new().expect("a runtime");
    let store: RedisStore = runtime.block_on(async {
        let store = connected(settings(url, prefix, shards)).await;
        for shard in (0..shards).map(ShardId) {
            check(&store, shard).await;
        }
        store
    });
    println!("ready");
    std::io::stdin()
        .read_line(&mut String::new())
        .expect("it is told to go");
    let held = runtime.block_on(exhaust(&Arc::new(store), accounts));
    let held: Vec<String> = held.iter().map(ToString::to_string).collect();
    println!("{}", held.join(" "));
}
