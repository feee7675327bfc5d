//! Telemetry: every metric with its unit, and the log.
//!
//! Handles are registered once, so that a call pays an atomic add and no look-up. No label carries a secret, a prompt, a
//! key, an account or anything else without a bound: the only label there is names a refusal's code.
// holds: 9, blind

use std::io::IsTerminal;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit};
use metrics::{
    counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
    with_local_recorder,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock::UnixMs;
use crate::config::{LogConfig, LogFormat};
use crate::money::Nanos;
use crate::quota::{Entry, EntryKind};

/// How often histograms take in what was recorded; without it they grow for ever.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// The label of a code that is not listed.
const OTHER: &str = "other";
/// The codes of refusals that are counted apart, as callers read them.
const REFUSAL_CODES: [&str; 17] = [
    "invalid_api_key",
    "account_suspended",
    "path_not_allowed",
    "insufficient_quota",
    "request_exceeds_budget",
    "budget_in_flight",
    "rate_limit_exceeded",
    "invalid_request",
    "request_too_large",
    "request_timeout",
    "unknown_route",
    "model_not_priced",
    "quota_unavailable",
    "overloaded",
    "upstream_unreachable",
    "upstream_timeout",
    OTHER,
];

/// Upper bounds of the buckets of a command to the store, in seconds.
const STORE_SECONDS: [f64; 11] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.25, 1.0,
];
/// Upper bounds of the buckets of an upstream's first byte, in seconds.
const UPSTREAM_SECONDS: [f64; 11] = [
    0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 120.0,
];
/// Upper bounds of the buckets of a charge in percent of its hold.
const ESTIMATE_PERCENT: [f64; 10] = [1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 100.0, 125.0, 200.0];

/// Every metric.
#[derive(Clone)]
pub struct Metrics {
    admissions: Counter,
    would_refuse: Counter,
    refusals: Vec<(&'static str, Counter)>,
    /// Reserve, from command to answer, in seconds.
    pub reserve: Histogram,
    /// Settle and release, from command to answer, in seconds.
    pub settle: Histogram,
    estimate: Histogram,
    /// An upstream's answer, from the call to its first byte, in seconds.
    pub upstream: Histogram,
    /// Holds that lapsed here.
    pub lapses: Counter,
    /// Calls that went on without the store, within their bound.
    pub bounded: Counter,
    /// Holds that a store had lost.
    pub held_again: Counter,
    /// Endings that a store may have lost.
    pub settled_again: Counter,
    /// Epochs that began since this sidecar knows their shards; the first that it sees of each is not counted.
    pub epochs: Counter,
    overruns: Counter,
    flush_lag: Gauge,
    store_up: Gauge,
    ledger_up: Gauge,
    endings_waiting: Gauge,
    audited: Counter,
    audit_drift: Gauge,
}

/// The metrics of one sidecar, and the page that shows them.
#[derive(Clone)]
pub struct Telemetry {
    /// Where to count.
    pub metrics: Metrics,
    page: PrometheusHandle,
}

impl Telemetry {
    /// Registers every metric. Each sidecar has its own, also where several share a process in tests.
    pub fn new() -> Self {
        let recorder = builder()
            .expect("the lists of buckets are not empty")
            .build_recorder();
        Self {
            page: recorder.handle(),
            metrics: with_local_recorder(&recorder, Metrics::register),
        }
    }

    /// The page for Prometheus.
    pub fn render(&self) -> String {
        self.page.render()
    }

    /// Keeps the histograms small, for ever.
    pub async fn run_upkeep(&self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            self.page.run_upkeep();
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let full = |name: &str| Matcher::Full(name.to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(full("tollgate_reserve_seconds"), &STORE_SECONDS)?
        .set_buckets_for_metric(full("tollgate_settle_seconds"), &STORE_SECONDS)?
        .set_buckets_for_metric(
            full("tollgate_upstream_first_byte_seconds"),
            &UPSTREAM_SECONDS,
        )?
        .set_buckets_for_metric(full("tollgate_estimate_percent"), &ESTIMATE_PERCENT)
}

/// A counter, its unit and what it counts.
fn counted(name: &'static str, what: &'static str) -> Counter {
    describe_counter!(name, Unit::Count, what);
    counter!(name)
}

fn gauged(name: &'static str, unit: Unit, what: &'static str) -> Gauge {
    describe_gauge!(name, unit, what);
    gauge!(name)
}

fn timed(name: &'static str, what: &'static str) -> Histogram {
    describe_histogram!(name, Unit::Seconds, what);
    histogram!(name)
}

impl Metrics {
    fn register() -> Self {
        describe_counter!(
            "tollgate_refusals_total",
            Unit::Count,
            "Calls refused, by code."
        );
        describe_histogram!(
            "tollgate_estimate_percent",
            Unit::Percent,
            "What a call was charged, in percent of what it had held."
        );
        let refusals = REFUSAL_CODES.map(|code| {
            let counter = counter!("tollgate_refusals_total", "code" => code);
            (code, counter)
        });
        Self {
            admissions: counted("tollgate_admissions_total", "Calls admitted."),
            would_refuse: counted(
                "tollgate_would_refuse_total",
                "Calls forwarded in monitor mode that would have been refused.",
            ),
            refusals: refusals.into(),
            reserve: timed("tollgate_reserve_seconds", "A reserve, there and back."),
            settle: timed(
                "tollgate_settle_seconds",
                "A settle or release, there and back.",
            ),
            estimate: histogram!("tollgate_estimate_percent"),
            upstream: timed(
                "tollgate_upstream_first_byte_seconds",
                "From the call to the first byte of the upstream's answer.",
            ),
            lapses: counted("tollgate_lapses_total", "Holds that lapsed here."),
            bounded: counted(
                "tollgate_bounded_calls_total",
                "Calls that went on while the store was away, within their bound.",
            ),
            held_again: counted(
                "tollgate_holds_made_again_total",
                "Holds of calls in flight that the store had lost, made again.",
            ),
            settled_again: counted(
                "tollgate_endings_settled_again_total",
                "Endings settled again because the store may have lost them before the ledger had them.",
            ),
            epochs: counted(
                "tollgate_epochs_total",
                "New epochs of shards, after a rebuild or because the store lost them or may have.",
            ),
            overruns: counted(
                "tollgate_overruns_total",
                "Calls that used more than they had reserved.",
            ),
            flush_lag: gauged(
                "tollgate_flush_lag_seconds",
                Unit::Seconds,
                "How old the oldest ending of the last flush was when it reached the ledger.",
            ),
            store_up: gauged(
                "tollgate_store_up",
                Unit::Count,
                "Whether the store answers.",
            ),
            ledger_up: gauged(
                "tollgate_ledger_up",
                Unit::Count,
                "Whether the ledger answers.",
            ),
            endings_waiting: gauged(
                "tollgate_endings_waiting",
                Unit::Count,
                "Calls that ended and are not settled in the store yet.",
            ),
            audited: counted(
                "tollgate_audited_accounts_total",
                "Accounts that were audited here.",
            ),
            audit_drift: gauged(
                "tollgate_audit_drift",
                Unit::Count,
                "Accounts that did not add up when they were audited last.",
            ),
        }
    }

    /// Counts a refusal under its code; one that is not listed counts as `other`, so that labels stay bounded.
    pub fn refused(&self, code: &str) {
        let listed = self.refusals.iter().find(|(listed, _)| *listed == code);
        let listed = listed.or(self.refusals.last());
        if let Some((_, counter)) = listed {
            counter.increment(1);
        }
    }

    /// Counts a call that was admitted, and whether only monitor mode let it through.
    pub fn admitted(&self, would_refuse: Option<&str>) {
        self.admissions.increment(1);
        if would_refuse.is_some() {
            self.would_refuse.increment(1);
        }
    }

    /// Looks at endings that have reached the ledger: what each was charged against what it had held, and how long the
    /// oldest has waited.
    pub fn flushed(&self, entries: &[Entry], now: UnixMs) {
        for entry in entries {
            if let EntryKind::Ended(ended) = &entry.kind {
                self.overruns.increment(u64::from(ended.overrun));
                self.estimated(ended.reserved, ended.charge);
            }
        }
        if let Some(oldest) = entries.iter().map(|entry| entry.at).min() {
            let lag = now.0.saturating_sub(oldest.0).max(0);
            self.flush_lag
                .set(Duration::from_millis(lag.unsigned_abs()));
        }
    }

    /// Holds of nothing say nothing.
    fn estimated(&self, held: Nanos, charged: Nanos) {
        if held > Nanos::ZERO {
            let percent = i128::from(charged.0) * 100 / i128::from(held.0);
            self.estimate
                .record(u32::try_from(percent).unwrap_or(u32::MAX));
        }
    }

    /// Counts accounts that were audited, and says in how many something drifts.
    pub fn audited(&self, accounts: usize, drifting: usize) {
        self.audited.increment(accounts as u64);
        self.audit_drift.set(shown(drifting as u64));
    }

    /// Whether the store answers.
    pub fn store_up(&self, up: bool) {
        self.store_up.set(u8::from(up));
    }

    /// Whether the ledger answers.
    pub fn ledger_up(&self, up: bool) {
        self.ledger_up.set(u8::from(up));
    }

    /// How many calls ended and are not settled in the store yet.
    pub fn endings_waiting(&self, endings: u64) {
        self.endings_waiting.set(shown(endings));
    }
}

/// Gauges take no `u64`; nothing that is shown here comes near the end of a `u32`.
fn shown(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Starts the log to stderr. A second start is ignored: the first one stays.
///
/// Other crates speak from `warn` on only, because at their lower levels they may show requests and queries.
pub fn start_log(log: LogConfig) {
    let filter = Targets::new()
        .with_default(tracing::Level::WARN)
        .with_target("tollgate", log.level);
    let line = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let line = match log.format {
        LogFormat::Text => line.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => line.json().flatten_event(true).boxed(),
    };
    let started = tracing_subscriber::registry()
        .with(line.with_filter(filter))
        .try_init();
    if started.is_err() {
        tracing::debug!("the log was started before");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_on_the_page_from_the_start() {
        let page = Telemetry::new().render();
        for name in [
            "tollgate_admissions_total 0",
            "tollgate_refusals_total{code=\"insufficient_quota\"} 0",
            "tollgate_lapses_total 0",
            "tollgate_overruns_total 0",
            "tollgate_audited_accounts_total 0",
            "tollgate_audit_drift 0",
            "tollgate_bounded_calls_total 0",
            "tollgate_holds_made_again_total 0",
            "tollgate_endings_settled_again_total 0",
            "tollgate_epochs_total 0",
        ] {
            assert!(page.contains(name), "{name} in {page}");
        }
    }

    #[test]
    fn a_code_that_is_not_listed_makes_no_new_label() {
        let telemetry = Telemetry::new();
        telemetry.metrics.refused("sk-secret");
        telemetry.metrics.refused("budget_in_flight");
        let page = telemetry.render();
        assert!(page.contains("{code=\"other\"} 1"), "{page}");
        assert!(page.contains("{code=\"budget_in_flight\"} 1"), "{page}");
        assert!(!page.contains("sk-secret"));
    }

    #[test]
    fn an_estimate_is_shown_in_percent_of_the_hold() {
        let telemetry = Telemetry::new();
        telemetry.metrics.estimated(Nanos(1000), Nanos(90));
        telemetry.metrics.estimated(Nanos::ZERO, Nanos(90));
        telemetry.metrics.reserve.record(Duration::from_micros(300));
        let page = telemetry.render();
        assert!(
            page.contains("tollgate_estimate_percent_bucket{le=\"10\"} 1"),
            "{page}"
        );
        assert!(page.contains("tollgate_estimate_percent_count 1"), "{page}");
        assert!(
            page.contains("tollgate_reserve_seconds_bucket{le=\"0.0005\"} 1"),
            "{page}"
        );
    }
}
