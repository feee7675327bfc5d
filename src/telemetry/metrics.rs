//! Where the sidecar counts: a handle for each metric of the list, registered once, so that a call pays an atomic add and
//! no look-up.
// holds: 9, blind

use std::sync::Arc;
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, Label, counter, gauge, histogram, with_local_recorder};
use ::metrics::{describe_counter, describe_gauge, describe_histogram};
use http::StatusCode;
use metrics_exporter_prometheus::PrometheusRecorder;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::list::{self, CLASSES, CODES, Kind, METRICS, Metric, NO_ROUTE};
use crate::clock::UnixMs;
use crate::money::Nanos;
use crate::quota::{Entry, EntryKind, Outcome};

/// Every metric.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    no_route: Arc<RouteMetrics>,
    /// From a call that was read to its hold or refusal.
    pub admit: Histogram,
    /// Reserve, from command to answer.
    pub reserve: Histogram,
    /// Settle and release, until they are acknowledged.
    pub settle: Histogram,
    estimate: Histogram,
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
    corrections: Counter,
    flush_lag: Gauge,
    audited: Counter,
    audit_drift: Gauge,
    quarantined: Gauge,
    state: StateGauges,
}

/// What is counted of one route.
pub struct RouteMetrics {
    admissions: Counter,
    would_refuse: Counter,
    refusals: Vec<(&'static str, Counter)>,
    free: Counter,
    upstream: Histogram,
    answers: [Counter; CLASSES.len()],
}

/// What is looked at now and then.
#[derive(Clone)]
struct StateGauges {
    ready: Gauge,
    store_up: Gauge,
    ledger_up: Gauge,
    flusher_up: Gauge,
    applier_up: Gauge,
    noeviction: Gauge,
    open_calls: Gauge,
    held: Gauge,
    endings_waiting: Gauge,
    outbox_entries: Gauge,
    outbox_age: Gauge,
}

/// How the sidecar is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a gauge of its own, and any mixture of them is possible"
)]
pub struct State {
    /// Whether readiness answers 200.
    pub ready: bool,
    /// Whether the store answers, and has what it should.
    pub store_up: bool,
    /// Whether the ledger answers.
    pub ledger_up: bool,
    /// Whether endings reach the ledger.
    pub flusher_up: bool,
    /// Whether changes reach the store.
    pub applier_up: bool,
    /// Whether the store would never evict a balance.
    pub noeviction: bool,
    /// Calls in flight that are held.
    pub open_calls: u64,
    /// What they hold.
    pub held: Nanos,
    /// Calls that ended and are not settled yet.
    pub endings_waiting: u64,
    /// What waits in the store for the ledger.
    pub outbox_entries: u64,
    /// How long the oldest ending of this sidecar has waited for it.
    pub outbox_age: Duration,
}

fn register_counter(metric: &Metric, values: &[&str]) -> Counter {
    counter!(metric.name, labels(metric, values))
}

fn register_histogram(metric: &Metric, values: &[&str]) -> Histogram {
    histogram!(metric.name, labels(metric, values))
}

fn register_gauge(metric: &Metric) -> Gauge {
    gauge!(metric.name)
}

fn labels(metric: &Metric, values: &[&str]) -> Vec<Label> {
    assert_eq!(metric.labels.len(), values.len(), "{}", metric.name);
    let values = values.iter().map(|value| (*value).to_owned());
    let pairs = metric.labels.iter().zip(values);
    pairs
        .map(|(name, value)| Label::new(*name, value))
        .collect()
}

fn describe_all() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Histogram(_) => describe_histogram!(metric.name, metric.help),
        }
    }
}

impl Metrics {
    /// Registers every metric; those of a route when it is made.
    pub(super) fn new(recorder: PrometheusRecorder) -> Self {
        let recorder = Arc::new(recorder);
        with_local_recorder(&*recorder, || Self::register(recorder.clone()))
    }

    fn register(recorder: Arc<PrometheusRecorder>) -> Self {
        describe_all();
        let version = env!("CARGO_PKG_VERSION");
        gauge!(list::BUILD_INFO.name, labels(&list::BUILD_INFO, &[version])).set(1);
        let counted = |metric| register_counter(metric, &[]);
        let timed = |metric| register_histogram(metric, &[]);
        Self {
            recorder,
            no_route: Arc::new(RouteMetrics::register(NO_ROUTE)),
            admit: timed(&list::ADMIT),
            reserve: timed(&list::RESERVE),
            settle: timed(&list::SETTLE),
            estimate: timed(&list::ESTIMATE),
            lapses: counted(&list::LAPSES),
            bounded: counted(&list::BOUNDED),
            held_again: counted(&list::HELD_AGAIN),
            settled_again: counted(&list::SETTLED_AGAIN),
            epochs: counted(&list::EPOCHS),
            overruns: counted(&list::OVERRUNS),
            corrections: counted(&list::CORRECTIONS),
            flush_lag: register_gauge(&list::FLUSH_LAG),
            audited: counted(&list::AUDITED),
            audit_drift: register_gauge(&list::AUDIT_DRIFT),
            quarantined: register_gauge(&list::QUARANTINED),
            state: StateGauges::register(),
        }
    }

    /// Where the calls of a route are counted: made when it is first asked for, the same ever after.
    pub fn route(&self, prefix: &str) -> Arc<RouteMetrics> {
        let register = || RouteMetrics::register(prefix);
        Arc::new(with_local_recorder(&*self.recorder, register))
    }

    /// Where calls are counted that no route takes.
    pub fn no_route(&self) -> &RouteMetrics {
        &self.no_route
    }

    /// Looks at endings that have reached the ledger: what each was charged against what it had held, and how long the
    /// oldest has waited.
    pub fn flushed(&self, entries: &[Entry], now: UnixMs) {
        for entry in entries {
            if let EntryKind::Ended(ended) = &entry.kind {
                self.overruns.increment(u64::from(ended.overrun));
                // An ending says its total, and the store moves what a lapse before it has not (rule 6).
                let moved_less = entry.moved.wallet() != -ended.charge;
                let corrects = moved_less && ended.outcome != Outcome::Lapsed;
                self.corrections.increment(u64::from(corrects));
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
        let ratio = Decimal::from(charged.0).checked_div(Decimal::from(held.0));
        if let Some(ratio) = ratio.and_then(|ratio| ratio.to_f64()) {
            self.estimate.record(ratio);
        }
    }

    /// Counts accounts that were audited, and says in how many something drifts.
    pub fn audited(&self, accounts: usize, drifting: usize) {
        self.audited.increment(accounts as u64);
        self.audit_drift.set(shown(drifting as u64));
    }

    /// How many entries are in quarantine.
    pub fn quarantined(&self, entries: u64) {
        self.quarantined.set(shown(entries));
    }

    /// Shows how the sidecar is.
    pub fn show(&self, state: &State) {
        let gauges = &self.state;
        gauges.ready.set(u8::from(state.ready));
        gauges.store_up.set(u8::from(state.store_up));
        gauges.ledger_up.set(u8::from(state.ledger_up));
        gauges.flusher_up.set(u8::from(state.flusher_up));
        gauges.applier_up.set(u8::from(state.applier_up));
        gauges.noeviction.set(u8::from(state.noeviction));
        gauges.open_calls.set(shown(state.open_calls));
        let held = Decimal::from_i128_with_scale(i128::from(state.held.0), 9);
        gauges.held.set(held.to_f64().unwrap_or(f64::NAN));
        gauges.endings_waiting.set(shown(state.endings_waiting));
        gauges.outbox_entries.set(shown(state.outbox_entries));
        gauges.outbox_age.set(state.outbox_age);
    }
}

impl RouteMetrics {
    fn register(route: &str) -> Self {
        let refusal = |code| register_counter(&list::REFUSALS, &[route, code]);
        Self {
            admissions: register_counter(&list::ADMISSIONS, &[route]),
            would_refuse: register_counter(&list::WOULD_REFUSE, &[route]),
            refusals: CODES.iter().map(|code| (*code, refusal(code))).collect(),
            free: register_counter(&list::FREE_CALLS, &[route]),
            upstream: register_histogram(&list::UPSTREAM, &[route]),
            answers: CLASSES
                .map(|class| register_counter(&list::UPSTREAM_ANSWERS, &[route, class])),
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

    /// Counts a call that costs nothing.
    pub fn passed_free(&self) {
        self.free.increment(1);
    }

    /// The head of an upstream's answer came, so long after the call.
    pub fn answered(&self, status: StatusCode, after: Duration) {
        self.upstream.record(after);
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        self.answers[class.min(CLASSES.len() - 1)].increment(1);
    }
}

impl StateGauges {
    fn register() -> Self {
        Self {
            ready: register_gauge(&list::READY),
            store_up: register_gauge(&list::STORE_UP),
            ledger_up: register_gauge(&list::LEDGER_UP),
            flusher_up: register_gauge(&list::FLUSHER_UP),
            applier_up: register_gauge(&list::APPLIER_UP),
            noeviction: register_gauge(&list::NOEVICTION),
            open_calls: register_gauge(&list::OPEN_CALLS),
            held: register_gauge(&list::HELD),
            endings_waiting: register_gauge(&list::ENDINGS_WAITING),
            outbox_entries: register_gauge(&list::OUTBOX_ENTRIES),
            outbox_age: register_gauge(&list::OUTBOX_AGE),
        }
    }
}

/// Gauges take no `u64`; nothing that is shown here comes near the end of a `u32`.
fn shown(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
