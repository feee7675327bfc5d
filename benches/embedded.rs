//! The embedded store alone: what a call costs a sidecar in all, and which of its threads pay for it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::Effort;
use crate::load::{self, Calls, Sample};
use crate::nginx::Nginx;
use crate::process::cpu_s;
use crate::report::{Report, median};
use crate::setting::Setting;

const CONNECTIONS: usize = 32;
const PATH: &str = "/v1/chat/completions";

pub fn run(report: &mut Report, effort: Effort) {
    let upstream = Nginx::upstream();
    let plain = Nginx::plain(&upstream.url);
    let setting = Setting::embedded();
    let customer = setting.customer();
    let sidecar = setting.sidecar(&upstream.url, None);
    let calls = |base: &str, path: &str| Calls::chat(base, path, &customer.key);
    let contestants = [
        ("nginx, proxy_pass", calls(&plain.url, PATH), plain.pid()),
        (
            "quotas off",
            calls(&sidecar.proxy, &format!("/none{PATH}")),
            sidecar.pid(),
        ),
        (
            "embedded",
            calls(&sidecar.proxy, &format!("/openai{PATH}")),
            sidecar.pid(),
        ),
    ];
    let time = effort.of(Duration::from_millis(300), Duration::from_secs(4));
    for (_, calls, _) in &contestants {
        load::closed(calls, CONNECTIONS, Duration::from_millis(500));
    }
    let mut rounds: Vec<Vec<(Sample, f64)>> = Vec::new();
    let mut threads: BTreeMap<String, f64> = BTreeMap::new();
    for _ in 0..effort.of(1, 3) {
        let round = contestants.iter().map(|(name, calls, pid)| {
            let (before, began) = (threads_s(*pid), cpu_s(*pid));
            let sample = load::closed(calls, CONNECTIONS, time);
            let us = |seconds: f64| seconds * 1e6 / sample.calls as f64;
            let cpu = us(cpu_s(*pid) - began);
            if *name == "embedded" {
                threads = threads_s(*pid);
                for (thread, seconds) in &mut threads {
                    *seconds = us(*seconds - before.get(thread).copied().unwrap_or(0.0));
                }
            }
            (sample, cpu)
        });
        rounds.push(round.collect());
    }
    for (place, (name, ..)) in contestants.iter().enumerate() {
        let rate = median(rounds.iter().map(|round| round[place].0.per_second()));
        let cpu = median(rounds.iter().map(|round| round[place].1));
        report.figure(name, rate, "calls/s");
        report.figure(&format!("{name}, its own CPU"), cpu, "us a call");
        let ratio = rounds
            .iter()
            .map(|round| round[place].0.per_second() / round[0].0.per_second());
        report.figure(&format!("{name} : nginx"), median(ratio), "x");
        for percent in [50.0, 99.0] {
            let latency = rounds
                .iter()
                .map(|round| round[place].0.percentile_us(percent));
            report.figure(&format!("{name}, p{percent}"), median(latency), "us");
        }
    }
    for (thread, us) in threads {
        if us > 0.2 {
            report.figure(&format!("embedded, last round: {thread}"), us, "us a call");
        }
    }
}

/// CPU seconds of the threads of a process, by name.
fn threads_s(pid: u32) -> BTreeMap<String, f64> {
    let mut threads = BTreeMap::new();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    for task in tasks.flatten() {
        let at = task.path();
        let name = fs::read_to_string(at.join("comm")).unwrap_or_default();
        let scheduled = fs::read_to_string(at.join("schedstat")).unwrap_or_default();
        let nanos: f64 = scheduled
            .split_whitespace()
            .next()
            .and_then(|it| it.parse().ok())
            .unwrap_or(0.0);
        *threads.entry(name.trim().to_owned()).or_default() += nanos / 1e9;
    }
    threads
}
