//! Half an hour at half of the peak: whether memory stays flat, and whether the books add up at the end.
//!
//! Two sidecars at once: one on Redis and Postgres, at half of what it was just seen to manage, and one on the embedded
//! store, at a modest rate beside it. What fails: a call, memory that grows, a record too many or too few, a drift.

use std::fs;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Runtime;
use tollgate::money::Nanos;

use crate::Effort;
use crate::harness::postgres;
use crate::harness::redis::Server;
use crate::harness::sidecar::Sidecar;
use crate::histogram::Counts;
use crate::load::{self, Calls};
use crate::nginx::Nginx;
use crate::process::{cpu_s, own_resident_bytes};
use crate::report::{Goal, Report};
use crate::setting::{CREDITS, Customer, Setting};
use crate::stream;
use crate::traffic::{PATH, Plan, Traffic};

const MINUTES: u32 = 30;
/// Figures are taken at least so often, and at most so far apart.
const LOOKS: u32 = 20;
const LONGEST_INTERVAL: Duration = Duration::from_secs(30);
/// As many as an installation has unless told otherwise.
const SHARDS: u16 = 64;
const ACCOUNTS: usize = 32;
/// Soon spent.
const POOR_CREDITS: &str = "0.002";
const PEAK_CONNECTIONS: usize = 32;
const PART_OF_THE_PEAK: f64 = 0.5;
const CONNECTIONS: usize = 16;
const STREAMS: usize = 8;
const EVENTS: usize = 50;
/// Beside the other one, on the same machine.
const EMBEDDED_PER_SECOND: f64 = 200.0;
const EMBEDDED_CONNECTIONS: usize = 4;
const EMBEDDED_STREAMS: usize = 2;
/// Resident memory grows where the mean of the last quarter is more than this above that of the second, or of the third
/// where marks are in it: whichever is more.
const GROWTH_PART: f64 = 0.05;
const GROWTH_MIB: f64 = 8.0;
/// How long the store keeps the mark of a call that has ended; until then its memory must grow.
const MARKS_STAY: Duration = Duration::from_mins(15);
/// How long the ledger may take to have all.
const DRAINING: Duration = Duration::from_mins(1);
const MIB: f64 = 1024.0 * 1024.0;
/// Records, corrections aside, and charges of each account.
const SUMS: &str = "\
    SELECT account_id, count(*) - count(corrects), CAST(sum(charged_nanos) AS bigint) \
    FROM usage_record GROUP BY account_id";

/// An installation, its sidecar, and what was seen of it.
struct Side {
    name: &'static str,
    setting: Setting,
    sidecar: Sidecar,
    /// Where its store is not embedded.
    redis: Option<Server>,
    rich: Vec<Customer>,
    poor: Customer,
    /// Calls that the upstream has answered.
    answered: u64,
    taken: Counts,
    looks: Vec<Look>,
}

/// What one look found, in MiB.
struct Look {
    at: Duration,
    resident: f64,
    /// Of Redis; nothing where there is none.
    store: f64,
}

pub fn run(report: &mut Report, effort: Effort) {
    let runtime = Runtime::new().expect("a runtime");
    let database = postgres::Server::durable();
    let upstream = Nginx::upstream();
    let streams = runtime.block_on(stream::upstream(EVENTS));
    let servers = Side::on_servers(&runtime, &database, &upstream.url, &streams);
    let embedded = Side::embedded(&upstream.url, &streams);
    let mut sides = [servers, embedded];
    let per_second = sides[0].peak(report, effort, &runtime) * PART_OF_THE_PEAK;
    let time = match effort.minutes {
        None if effort.quick => Duration::from_secs(10),
        minutes => Duration::from_secs(u64::from(minutes.unwrap_or(MINUTES)) * 60),
    };
    let rates = [
        (per_second, CONNECTIONS, STREAMS),
        (EMBEDDED_PER_SECOND, EMBEDDED_CONNECTIONS, EMBEDDED_STREAMS),
    ];
    let began = Instant::now();
    let cpu_before = sides.each_ref().map(|side| cpu_s(side.sidecar.pid()));
    let traffic: Vec<Traffic> = sides
        .iter()
        .zip(rates)
        .map(|(side, rate)| side.begin(rate, time, &runtime, began))
        .collect();
    let interval = (time / LOOKS).min(LONGEST_INTERVAL);
    let moments = (1..).map(|place| interval * place);
    for at in moments.take_while(|at| *at <= time) {
        thread::sleep(at.saturating_sub(began.elapsed()));
        for (side, traffic) in sides.iter_mut().zip(&traffic) {
            traffic.goes_on(at + interval > time);
            side.look(report, traffic, at, interval, &runtime);
        }
    }
    let mut failures = Vec::new();
    for ((side, traffic), cpu) in sides.iter_mut().zip(traffic).zip(cpu_before) {
        let cpu = cpu_s(side.sidecar.pid()) - cpu;
        side.end(report, traffic, cpu, &runtime);
        side.memory(report, time, effort.quick, &mut failures);
        side.books(report, &runtime);
    }
    assert!(failures.is_empty(), "{}", failures.join("; "));
}

impl Side {
    fn on_servers(
        runtime: &Runtime,
        database: &postgres::Server,
        upstream: &str,
        streams: &str,
    ) -> Self {
        let redis = Server::start();
        let database = runtime.block_on(database.empty_database("soak"));
        let setting = Setting::on(&redis, &database);
        Self::of("Redis", setting, Some(redis), upstream, streams)
    }

    fn embedded(upstream: &str, streams: &str) -> Self {
        Self::of("embedded", Setting::embedded(), None, upstream, streams)
    }

    fn of(
        name: &'static str,
        setting: Setting,
        redis: Option<Server>,
        upstream: &str,
        streams: &str,
    ) -> Self {
        Self {
            name,
            rich: (0..ACCOUNTS).map(|_| setting.customer()).collect(),
            poor: setting.customer_with(POOR_CREDITS),
            sidecar: setting.sidecar_with_streams(upstream, streams),
            setting,
            redis,
            answered: 0,
            taken: Counts::default(),
            looks: Vec::new(),
        }
    }

    /// What it manages in a closed loop, in calls a second.
    fn peak(&mut self, report: &mut Report, effort: Effort, runtime: &Runtime) -> f64 {
        let keys: Vec<String> = self.rich.iter().map(|rich| rich.key.clone()).collect();
        let calls = Calls::chats(&self.sidecar.proxy, PATH, &keys);
        let warm = load::closed(&calls, PEAK_CONNECTIONS, Duration::from_secs(1));
        let time = effort.of(Duration::from_secs(1), Duration::from_secs(10));
        let sample = load::closed(&calls, PEAK_CONNECTIONS, time);
        self.answered += (warm.calls + sample.calls) as u64;
        let what = format!(
            "{}: peak, closed, {PEAK_CONNECTIONS} connections",
            self.name
        );
        report.figure(&what, sample.per_second(), "calls/s");
        // The soak begins with nothing left to do.
        self.drained(runtime);
        sample.per_second()
    }

    fn begin(
        &self,
        (per_second, connections, streams): (f64, usize, usize),
        time: Duration,
        runtime: &Runtime,
        began: Instant,
    ) -> Traffic {
        let plan = Plan {
            name: self.name,
            proxy: &self.sidecar.proxy,
            rich: self.rich.iter().map(|rich| rich.key.as_str()).collect(),
            poor: &self.poor.key,
            per_second,
            connections,
            streams,
            time,
        };
        Traffic::begin(&plan, runtime, began)
    }

    fn look(
        &mut self,
        report: &mut Report,
        traffic: &Traffic,
        at: Duration,
        interval: Duration,
        runtime: &Runtime,
    ) {
        let taken = traffic.seen.taken.take();
        self.taken.add(&taken);
        let look = Look {
            at,
            resident: own_resident_bytes(self.sidecar.pid()) / MIB,
            store: self.redis.as_ref().map_or(0.0, used_mib),
        };
        let (calls, per_second) = (
            self.taken.count(),
            taken.count() as f64 / interval.as_secs_f64(),
        );
        let (p50, p99) = (taken.percentile_ms(50.0), taken.percentile_ms(99.0));
        let outbox = self.outbox(runtime);
        let (file, wal) = self.files_mib();
        let (resident, store) = (look.resident, look.store);
        let stored = match &self.redis {
            Some(_) => format!("Redis {store:.1} MiB"),
            None => format!("file {file:.1} MiB, WAL {wal:.1} MiB"),
        };
        let said = format!(
            "{:>6.1} s  {:<8}  {calls:>9} calls {per_second:>6.0}/s  p50 {p50:>6.2} ms  p99 {p99:>7.2} ms  \
             resident {resident:>6.1} MiB  outbox {outbox:>5}  {stored}",
            at.as_secs_f64(),
            self.name,
        );
        let figures = json!({
            "of": self.name, "at_s": at.as_secs_f64(), "calls": calls, "calls_per_s": per_second, "p50_ms": p50,
            "p99_ms": p99, "resident_mib": resident, "outbox": outbox, "redis_mib": store, "file_mib": file, "wal_mib": wal,
        });
        report.line(&said, figures);
        self.looks.push(look);
    }

    /// What waits for the ledger.
    fn outbox(&self, runtime: &Runtime) -> u64 {
        let Some(redis) = &self.redis else {
            return runtime.block_on(self.sidecar.metric("tollgate_outbox_entries"));
        };
        // By their names: looking for them would hold up a server with millions of keys.
        let mut lengths = redis::pipe();
        for shard in 0..SHARDS {
            let key = format!("{{{}:{shard}}}:o", self.setting.installation.prefix);
            lengths.cmd("XLEN").arg(key);
        }
        let lengths: Vec<u64> = lengths
            .query(&mut redis.connection())
            .expect("Redis answers");
        lengths.iter().sum()
    }

    /// The embedded store's file and the log beside it.
    fn files_mib(&self) -> (f64, f64) {
        let url = &self.setting.installation.ledger_url;
        let file = url.strip_prefix("sqlite://");
        let size = |end| file.and_then(|file| fs::metadata(format!("{file}{end}")).ok());
        let mib = |end| size(end).map_or(0.0, |file| file.len() as f64 / MIB);
        (mib(""), mib("-wal"))
    }

    fn end(&mut self, report: &mut Report, traffic: Traffic, cpu_s: f64, runtime: &Runtime) {
        let seen = traffic.seen.clone();
        self.answered += traffic.end(runtime);
        // What came after the last look.
        self.taken.add(&seen.taken.take());
        let mut figure = |what: &str, value: f64, unit: &str| {
            report.figure(&format!("{}: {what}", self.name), value, unit);
        };
        let refused = seen.refused.load(Ordering::Relaxed) as f64;
        let streamed = seen.streamed.load(Ordering::Relaxed) as f64;
        let calls = self.taken.count() as f64;
        figure("calls", calls, "");
        figure("of these refused, for want of credit", refused, "");
        figure("streams", streamed, "");
        for percent in [50.0, 99.0, 99.9] {
            let ms = self.taken.percentile_ms(percent);
            figure(&format!("calls, p{percent}"), ms, "ms");
        }
        figure(
            "its own CPU, streams included",
            cpu_s * 1e6 / calls,
            "us a call",
        );
    }

    /// Whether its memory grew.
    fn memory(
        &self,
        report: &mut Report,
        time: Duration,
        is_quick: bool,
        failures: &mut Vec<String>,
    ) {
        let quarter = |place: u32, what: fn(&Look) -> f64| {
            let is_in =
                |look: &&Look| look.at > time / 4 * (place - 1) && look.at <= time / 4 * place;
            mean(self.looks.iter().filter(is_in).map(what))
        };
        // The embedded store is in the sidecar, with its marks.
        let marks_grow = self.redis.is_none() && time / 2 >= MARKS_STAY;
        let (earlier, earlier_name) = if marks_grow {
            (3, "third")
        } else {
            (2, "second")
        };
        let resident = [earlier, 4].map(|place| quarter(place, |look| look.resident));
        let slope = slope(self.looks.iter().filter(|look| look.at > time / 3));
        let name = self.name;
        let what = format!("{name}: resident, slope over the last two thirds");
        report.figure(&what, slope, "MiB/hour");
        let what = format!("{name}: resident, {earlier_name} quarter");
        report.figure(&what, resident[0], "MiB");
        let most = (resident[0] + (resident[0] * GROWTH_PART).max(GROWTH_MIB)).round();
        let what = format!("{name}: resident, last quarter");
        report.goal(&what, resident[1], "MiB", Goal::AtMost(most));
        // A smoke run is over before anything has warmed up.
        if resident[1] > most && !is_quick {
            failures.push(format!("the memory of the sidecar ({name}) grows"));
        }
        if self.redis.is_some() && time / 2 >= MARKS_STAY {
            let store = [3, 4].map(|place| quarter(place, |look| look.store));
            let what = format!("{name}: used_memory, last quarter : third");
            report.goal(
                &what,
                store[1] / store[0],
                "x",
                Goal::AtMost(1.0 + GROWTH_PART),
            );
        }
    }

    /// Every call is in the ledger once, nobody had more than was there, and store and ledger agree.
    fn books(&self, report: &mut Report, runtime: &Runtime) {
        let sums = self.drained(runtime);
        let records: i64 = sums.iter().map(|(_, records, _)| records).sum();
        report.figure(
            &format!("{}: records in the ledger", self.name),
            records as f64,
            "",
        );
        assert_eq!(
            u64::try_from(records),
            Ok(self.answered),
            "a record for each answered call"
        );
        let over = |(account, _, charged): &(String, i64, i64)| {
            let is_poor = *account == self.poor.account;
            let credits = if is_poor { POOR_CREDITS } else { CREDITS };
            let granted = Nanos::from_credits(credits).expect("an amount").0;
            (charged - granted).max(0)
        };
        let oversold: i64 = sums.iter().map(over).sum();
        report.figure(
            &format!("{}: oversold", self.name),
            oversold as f64,
            "nanos",
        );
        assert_eq!(oversold, 0, "oversold");
        self.setting.installation.verify();
    }

    /// The sums of every account, once the ledger has a record of each call.
    fn drained(&self, runtime: &Runtime) -> Vec<(String, i64, i64)> {
        let began = Instant::now();
        loop {
            self.setting.installation.run(&["flush"]);
            let sums = runtime.block_on(self.sums());
            let records: i64 = sums.iter().map(|(_, records, _)| records).sum();
            if u64::try_from(records) == Ok(self.answered) || began.elapsed() > DRAINING {
                return sums;
            }
            thread::sleep(Duration::from_millis(500));
        }
    }

    async fn sums(&self) -> Vec<(String, i64, i64)> {
        let installation = &self.setting.installation;
        let sums = if installation.is_embedded() {
            let mut file = installation.file().await;
            sqlx::query_as(SUMS).fetch_all(&mut file).await
        } else {
            let mut ledger = installation.ledger().await;
            sqlx::query_as(SUMS).fetch_all(&mut ledger).await
        };
        sums.expect("the ledger adds up its records")
    }
}

fn used_mib(redis: &Server) -> f64 {
    let info: String = redis.command(&["INFO", "memory"]);
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
    used.map_or(0.0, |bytes: f64| bytes / MIB)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / count
}

/// Of what is resident, by least squares, in MiB an hour.
fn slope<'a>(looks: impl Iterator<Item = &'a Look> + Clone) -> f64 {
    let hours = |look: &Look| look.at.as_secs_f64() / 3600.0;
    let middle = mean(looks.clone().map(hours));
    let level = mean(looks.clone().map(|look| look.resident));
    let (rise, run) = looks.fold((0.0, 0.0), |(rise, run), look| {
        let from_middle = hours(look) - middle;
        (
            rise + from_middle * (look.resident - level),
            run + from_middle * from_middle,
        )
    });
    rise / run
}
