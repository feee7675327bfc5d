//! What quotas cost a caller: against the upstream itself, a plain nginx, an nginx that does the same in Lua, and this
//! proxy without quotas.
//!
//! All contestants are up at once and take turns in short rounds, so that each ratio is of one moment of one machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::Effort;
use crate::harness::redis::Server;
use crate::harness::relay::Relay;
use crate::harness::sidecar::Sidecar;
use crate::load::{self, Caller, Calls, Sample};
use crate::monitor::{Monitor, unpacked};
use crate::nginx::Nginx;
use crate::process::{cpu_s, own_resident_bytes};
use crate::report::{Goal, Report, median};
use crate::setting::{Customer, Setting};

const PATH: &str = "/v1/chat/completions";
const MANY: usize = 32;
/// The open loop calls as often as this part of what the slowest contestant managed in a closed one.
const PART_OF_THE_SLOWEST: f64 = 0.5;
const MIB: f64 = 1024.0 * 1024.0;

/// The contestants, by their place.
const DIRECT: usize = 0;
const PLAIN: usize = 1;
const OFF: usize = 2;
const EMBEDDED: usize = 3;
const REDIS: usize = 4;
const LEDGER: usize = 5;
const LUA: usize = 6;
const NAMES: [&str; 7] = [
    "direct",
    "nginx, proxy_pass",
    "Tollgate, quotas off",
    "Tollgate, embedded",
    "Tollgate, Redis",
    "Tollgate, Redis, flushing meanwhile",
    "nginx + Lua + Redis",
];

/// All that runs.
struct Ring {
    /// The wire lives in it.
    _runtime: Runtime,
    redis: Server,
    servers: Setting,
    wire: Relay,
    calls: [Calls; NAMES.len()],
    /// Of the process whose CPU a contestant is charged with; the upstream's and Redis's are not in it.
    pids: [u32; NAMES.len()],
    _embedded: (Setting, Sidecar),
    _sidecar: Sidecar,
    nginxes: [Nginx; 3],
}

pub fn run(report: &mut Report, effort: Effort) {
    idle(report);
    let ring = Ring::set_up();
    // So that every cache knows its key and its account before the ledger is out of reach.
    for calls in &ring.calls {
        Caller::connect(calls.address).call(&calls.requests[0]);
    }
    let time = effort.of(Duration::from_millis(300), Duration::from_secs(2));
    for place in 0..NAMES.len() {
        ring.round(place, &|calls| {
            load::closed(calls, MANY, Duration::from_millis(500))
        });
    }
    let slowest = closed_many(report, &ring, effort.of(1, 7), time);
    closed_one(report, &ring, effort.of(1, 7), time);
    for connections in [1, MANY] {
        let part = if connections == 1 {
            slowest / 8.0
        } else {
            slowest
        };
        open(
            report,
            &ring,
            connections,
            part * PART_OF_THE_SLOWEST,
            effort.of(1, 3),
            time,
        );
    }
    let complaints = ring.nginxes.iter().map(Nginx::said).collect::<String>();
    assert!(complaints.is_empty(), "{complaints}");
    ring.settled();
    ring.servers.installation.verify();
}

fn closed_many(report: &mut Report, ring: &Ring, rounds: usize, time: Duration) -> f64 {
    let rounds: Vec<Vec<(Sample, f64)>> = (0..rounds)
        .map(|_| ring.all(|calls| load::closed(calls, MANY, time)))
        .collect();
    let rate = |place: usize| median(rounds.iter().map(|round| round[place].0.per_second()));
    for (place, name) in NAMES.iter().enumerate() {
        report.figure(
            &format!("closed, {MANY} connections: {name}"),
            rate(place),
            "calls/s",
        );
    }
    for (place, name) in NAMES.iter().enumerate().skip(1) {
        let cpu = median(rounds.iter().map(|round| round[place].1));
        report.figure(
            &format!("closed, {MANY} connections: {name}, its own CPU"),
            cpu,
            "us a call",
        );
    }
    let ratio = |one: usize, other: usize| {
        median(
            rounds
                .iter()
                .map(|round| round[one].0.per_second() / round[other].0.per_second()),
        )
    };
    let mut goal = |one: usize, other: usize, least: f64| {
        let what = format!("{} : {}", NAMES[one], NAMES[other]);
        report.goal(&what, ratio(one, other), "x", Goal::AtLeast(least));
    };
    goal(OFF, PLAIN, 0.80);
    goal(EMBEDDED, PLAIN, 0.65);
    goal(REDIS, PLAIN, 0.38);
    goal(REDIS, LUA, 1.6);
    report.figure(
        "Tollgate, Redis, flushing meanwhile : nginx, proxy_pass",
        ratio(LEDGER, PLAIN),
        "x",
    );
    report.figure("nginx, proxy_pass : direct", ratio(PLAIN, DIRECT), "x");
    (1..NAMES.len()).map(rate).fold(f64::MAX, f64::min)
}

fn closed_one(report: &mut Report, ring: &Ring, rounds: usize, time: Duration) {
    let mut evalsha = Vec::new();
    let rounds: Vec<Vec<(Sample, f64)>> = (0..rounds)
        .map(|_| {
            evalsha.push(bare_evalsha_us(ring.redis.address()));
            ring.all(|calls| load::closed(calls, 1, time))
        })
        .collect();
    for percent in [50.0, 99.0] {
        for (place, name) in NAMES.iter().enumerate() {
            let us = median(
                rounds
                    .iter()
                    .map(|round| round[place].0.percentile_us(percent)),
            );
            report.figure(
                &format!("closed, 1 connection: {name}, p{percent}"),
                us,
                "us",
            );
        }
    }
    report.figure(
        "one bare EVALSHA round trip, p50",
        median(evalsha.clone()),
        "us",
    );
    let added = |round: &Vec<(Sample, f64)>| {
        round[REDIS].0.percentile_us(50.0) - round[OFF].0.percentile_us(50.0)
    };
    report.figure(
        "added by quotas on Redis at 1 connection, p50",
        median(rounds.iter().map(added)),
        "us",
    );
    let ratio = median(
        rounds
            .iter()
            .zip(&evalsha)
            .map(|(round, evalsha)| added(round) / evalsha),
    );
    report.goal(
        "added by quotas on Redis : one bare EVALSHA",
        ratio,
        "x",
        Goal::AtMost(1.4),
    );
}

fn open(
    report: &mut Report,
    ring: &Ring,
    connections: usize,
    per_second: f64,
    rounds: usize,
    time: Duration,
) {
    let rounds: Vec<Vec<(Sample, f64)>> = (0..rounds)
        .map(|_| ring.all(|calls| load::open(calls, connections, per_second, time)))
        .collect();
    let said = format!("open, {connections} connections, {per_second:.0} calls/s");
    for percent in [50.0, 99.0, 99.9] {
        for (place, name) in NAMES.iter().enumerate() {
            let us = median(
                rounds
                    .iter()
                    .map(|round| round[place].0.percentile_us(percent)),
            );
            report.figure(&format!("{said}: {name}, p{percent}"), us, "us");
        }
    }
}

impl Ring {
    fn set_up() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let upstream = Nginx::upstream();
        let plain = Nginx::plain(&upstream.url);
        let embedded = Setting::embedded();
        let own = embedded.customer();
        let own_sidecar = embedded.sidecar(&upstream.url, None);
        let redis = Server::start();
        let servers = runtime.block_on(Setting::on_servers(&redis));
        let (wire, ledger_url) = runtime.block_on(Relay::to(&servers.installation.ledger_url));
        let [customer, of_nginx] = [servers.customer(), servers.customer()];
        let sidecar = servers.sidecar(&upstream.url, Some(&ledger_url));
        let lua = nginx_with_quota(&upstream, &redis, &sidecar, &of_nginx);
        let metered = format!("/openai{PATH}");
        let off = format!("/none{PATH}");
        let on_redis = Calls::chat(&sidecar.proxy, &metered, &customer.key);
        Self {
            calls: [
                Calls::chat(&upstream.url, PATH, &own.key),
                Calls::chat(&plain.url, PATH, &own.key),
                Calls::chat(&own_sidecar.proxy, &off, &own.key),
                Calls::chat(&own_sidecar.proxy, &metered, &own.key),
                on_redis.clone(),
                on_redis,
                Calls::chat(&lua.url, PATH, &of_nginx.key),
            ],
            pids: [
                upstream.pid(),
                plain.pid(),
                own_sidecar.pid(),
                own_sidecar.pid(),
                sidecar.pid(),
                sidecar.pid(),
                lua.pid(),
            ],
            _runtime: runtime,
            redis,
            servers,
            wire,
            _embedded: (embedded, own_sidecar),
            _sidecar: sidecar,
            nginxes: [upstream, plain, lua],
        }
    }

    /// One round of each, in turn; with each sample the CPU a call, in microseconds.
    fn all(&self, load: impl Fn(&Calls) -> Sample) -> Vec<(Sample, f64)> {
        (0..NAMES.len())
            .map(|place| self.round(place, &load))
            .collect()
    }

    /// Begins with nothing left to do from the round before. The ledger is out of reach while reserve and settle on
    /// Redis are measured, so that the flush, which nginx has not, is on nobody's account.
    fn round(&self, place: usize, load: &impl Fn(&Calls) -> Sample) -> (Sample, f64) {
        let is_quiet = place == REDIS || place == LUA;
        if is_quiet {
            self.wire.silence();
        }
        let before = cpu_s(self.pids[place]);
        let sample = load(&self.calls[place]);
        let cpu = (cpu_s(self.pids[place]) - before) * 1e6 / sample.calls as f64;
        self.wire.mend();
        if matches!(place, REDIS | LEDGER | LUA) {
            self.settled();
        }
        (sample, cpu)
    }

    /// Waits until every ending is in the ledger.
    fn settled(&self) {
        loop {
            self.servers.installation.run(&["flush"]);
            let pattern = format!("{{{}:*}}:o", self.servers.installation.prefix);
            let outboxes: Vec<String> = self.redis.command(&["KEYS", &pattern]);
            let waiting = outboxes
                .iter()
                .map(|key| self.redis.command::<u64>(&["XLEN", key]));
            if waiting.sum::<u64>() == 0 {
                return;
            }
        }
    }
}

/// An nginx that knows of one account what a sidecar's caches know of it, read from what the sidecar itself sends.
fn nginx_with_quota(
    upstream: &Nginx,
    redis: &Server,
    sidecar: &Sidecar,
    customer: &Customer,
) -> Nginx {
    let calls = Calls::chat(&sidecar.proxy, &format!("/openai{PATH}"), &customer.key);
    // The first call loads the account; the second is the one to look at.
    Caller::connect(calls.address).call(&calls.requests[0]);
    let mut monitor = Monitor::start(redis.address());
    Caller::connect(calls.address).call(&calls.requests[0]);
    let reserve = monitor.next(5, 4);
    let settle = monitor.next(5, 5);
    let header = String::from_utf8_lossy(&reserve.keys[0]).into_owned();
    let tag = header.trim_end_matches(":h");
    let claim = unpacked(&reserve.arguments[1]);
    let epoch = String::from_utf8_lossy(&reserve.arguments[0]);
    let detail: Value = serde_json::from_slice(&reserve.arguments[2]).expect("a record");
    let lines: String = claim[7..].chunks(6).map(lua_line).collect();
    let Customer {
        account,
        key,
        key_id,
    } = customer;
    let settings = format!(
        "return {{\n\
            redis_port = {port}, reserve = '{}', settle = '{}', tag = '{tag}', epoch = '{}', account = '{account}',\n\
            key = 'Bearer {key}', key_id = '{key_id}', version = {}, price_id = {}, input_nanos = 1000, output_nanos = 2000,\n\
            deadline_ms = {}, max_age_ms = {}, bound = {}, tags = require('cjson').decode('{{}}'),\n\
            lines = {{ {lines} }},\n}}\n",
        reserve.sha,
        settle.sha,
        epoch,
        claim[0],
        detail["price_id"],
        claim[4],
        claim[5],
        claim[6],
        port = redis.address().port(),
    );
    let nginx = Nginx::with_quota(&upstream.url, &settings);
    Caller::connect(load::address(&nginx.url))
        .call(&Calls::chat(&nginx.url, PATH, key).requests[0]);
    nginx
}

fn lua_line(line: &[Value]) -> String {
    let key = line[0].as_str().expect("a counter's name");
    let resource = key.split('/').next().expect("a counter is of a resource");
    format!(
        "{{ key = '{key}', resource = '{resource}', from = {}, to = {}, limit = {} }},\n",
        line[1], line[2], line[5]
    )
}

/// The median of the round trip of a script that does nothing, over a connection that waits for nothing else.
fn bare_evalsha_us(address: SocketAddr) -> f64 {
    const CALLS: usize = 2_000;
    let mut stream = TcpStream::connect(address).expect("the server runs");
    stream.set_nodelay(true).expect("a connected socket");
    let mut buffer = [0; 256];
    let mut ask = |command: &[u8]| {
        stream.write_all(command).expect("it listens");
        let read = stream.read(&mut buffer).expect("it answers");
        buffer[..read].to_vec()
    };
    let loaded = ask(b"SCRIPT LOAD \"return 1\"\r\n");
    let sha = String::from_utf8_lossy(&loaded[5..45]).into_owned();
    let command = format!("*3\r\n$7\r\nEVALSHA\r\n$40\r\n{sha}\r\n$1\r\n0\r\n");
    let taken = (0..CALLS).map(|_| {
        let asked = Instant::now();
        assert_eq!(ask(command.as_bytes()), b":1\r\n");
        asked.elapsed().as_secs_f64() * 1e6
    });
    median(taken.collect::<Vec<_>>())
}

/// The memory of a sidecar that has nothing to do; the shell beside it, which ends it with us, is not part of it.
fn idle(report: &mut Report) {
    let setting = Setting::embedded();
    let upstream = "http://127.0.0.1:1";
    let sidecar = setting.sidecar_without_tokenizer(upstream);
    std::thread::sleep(Duration::from_secs(1));
    let without = own_resident_bytes(sidecar.pid()) / MIB;
    report.goal(
        "idle, without a tokenizer: resident",
        without,
        "MiB",
        Goal::AtMost(16.0),
    );
    drop(sidecar);
    let sidecar = setting.sidecar(upstream, None);
    std::thread::sleep(Duration::from_secs(5));
    report.figure(
        "idle, with a tokenizer: resident",
        own_resident_bytes(sidecar.pid()) / MIB,
        "MiB",
    );
}
