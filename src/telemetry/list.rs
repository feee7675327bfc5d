//! The list of every metric: its name, kind, unit, labels and meaning, as data.
//!
//! What counts takes its name from here, and so do the table in the README and the checks of `deploy/`: nothing is counted
//! that is not in the list, and nothing is asked for that is not counted. Labels are bounded in number: a route's prefix
//! as configured, a refusal's code, a class of status, the version.
// holds: 9, blind

/// What becomes of a metric's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It goes up only.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How often it was at most each of these upper bounds, in its unit.
    Histogram(&'static [f64]),
}

impl Kind {
    /// As Prometheus calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its name. A counter's ends with `_total`, that of a time with `_seconds`.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// What one of it is.
    pub unit: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

/// What the label `route` says of calls that no route takes; a prefix begins with a slash.
pub const NO_ROUTE: &str = "none";
/// What the label `code` says where a code is not listed.
pub const OTHER: &str = "other";
/// The codes of refusals, as callers read them.
pub const CODES: [&str; 17] = [
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
/// The classes of an upstream's status, from 200 on.
pub const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// Buckets of a command to the store.
const STORE_SECONDS: &[f64] = &[
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.25, 1.0,
];
/// Buckets of an upstream's first byte.
const UPSTREAM_SECONDS: &[f64] = &[
    0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 120.0,
];
/// Buckets of a charge as a part of its hold.
const RATIO: &[f64] = &[0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 2.0];

const fn counter(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        unit,
        labels,
        help,
    }
}

const fn gauge(name: &'static str, unit: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        unit,
        labels: &[],
        help,
    }
}

const fn histogram(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    buckets: &'static [f64],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind: Kind::Histogram(buckets),
        unit,
        labels,
        help,
    }
}

/// Makes a constant of each metric, and the list of them all.
macro_rules! metrics {
    ($($constant:ident = $metric:expr;)*) => {
        $(pub(super) const $constant: Metric = $metric;)*
        /// Every metric.
        pub const METRICS: &[Metric] = &[$($constant),*];
    };
}

metrics! {
    BUILD_INFO = Metric {
        labels: &["version"],
        ..gauge("tollgate_build_info", "1", "always 1; the label says which version runs")
    };
    READY = gauge("tollgate_ready", "1 or 0", "whether readiness answers 200");
    STORE_UP = gauge("tollgate_store_up", "1 or 0", "whether the store answers, and has what it should");
    LEDGER_UP = gauge("tollgate_ledger_up", "1 or 0", "whether the ledger answers");
    FLUSHER_UP = gauge("tollgate_flusher_up", "1 or 0", "whether endings reach the ledger");
    APPLIER_UP = gauge("tollgate_applier_up", "1 or 0", "whether the ledger's changes reach the store");
    NOEVICTION = gauge(
        "tollgate_store_noeviction", "1 or 0", "whether the store's `maxmemory-policy` is `noeviction`"
    );
    ADMISSIONS = counter("tollgate_admissions_total", "calls", &["route"], "calls admitted");
    REFUSALS = counter(
        "tollgate_refusals_total", "calls", &["route", "code"],
        "calls refused; `route` is `none` where no route takes the path"
    );
    WOULD_REFUSE = counter(
        "tollgate_would_refuse_total", "calls", &["route"],
        "calls admitted in `monitor` mode that would have been refused"
    );
    FREE_CALLS = counter("tollgate_free_calls_total", "calls", &["route"], "calls forwarded free of charge");
    BOUNDED = counter(
        "tollgate_bounded_calls_total", "calls", &[], "calls that went on without the store, within their bound"
    );
    ADMIT = histogram(
        "tollgate_admit_seconds", "seconds", &[], STORE_SECONDS,
        "from a call that was read to its hold or refusal, with all that took: its price, loads, repeats"
    );
    RESERVE = histogram("tollgate_reserve_seconds", "seconds", &[], STORE_SECONDS, "a reserve, there and back");
    SETTLE = histogram(
        "tollgate_settle_seconds", "seconds", &[], STORE_SECONDS,
        "from the end of a call until the store has acknowledged it, repeats included"
    );
    UPSTREAM = histogram(
        "tollgate_upstream_first_byte_seconds", "seconds", &["route"], UPSTREAM_SECONDS,
        "from the call to the head of the upstream's answer"
    );
    UPSTREAM_ANSWERS = counter(
        "tollgate_upstream_answers_total", "answers", &["route", "class"],
        "answers of upstreams by the class of their status, `2xx` to `5xx`"
    );
    OPEN_CALLS = gauge("tollgate_open_calls", "calls", "calls in flight that are held");
    HELD = gauge("tollgate_held_credits", "credits", "what calls in flight hold");
    ESTIMATE = histogram(
        "tollgate_estimate_ratio", "ratio", &[], RATIO, "what calls were charged, as a part of what they had held"
    );
    OVERRUNS = counter("tollgate_overruns_total", "calls", &[], "calls that used more than they had reserved");
    LAPSES = counter("tollgate_lapses_total", "holds", &[], "holds that lapsed at this sidecar's sweeper");
    CORRECTIONS = counter(
        "tollgate_corrections_total", "records", &[],
        "calls that ended after their hold had lapsed, with another charge than the lapse's"
    );
    ENDINGS_WAITING = gauge(
        "tollgate_endings_waiting", "calls", "calls that ended and are not settled in the store yet"
    );
    OUTBOX_ENTRIES = gauge(
        "tollgate_outbox_entries", "entries",
        "what waits in the store for the ledger, over all shards; each as this sidecar saw it last, nothing where it has flushed since"
    );
    OUTBOX_AGE = gauge(
        "tollgate_outbox_age_seconds", "seconds",
        "how long the oldest ending of this sidecar has waited for the ledger; 0 where none waits"
    );
    FLUSH_LAG = gauge(
        "tollgate_flush_lag_seconds", "seconds",
        "how old the oldest ending of the last flush was when it reached the ledger"
    );
    EPOCHS = counter(
        "tollgate_epochs_total", "epochs", &[],
        "new epochs of shards seen by this sidecar, after a rebuild or because the store lost them or may have"
    );
    HELD_AGAIN = counter(
        "tollgate_holds_made_again_total", "holds", &[], "holds of calls in flight that the store had lost, made again"
    );
    SETTLED_AGAIN = counter(
        "tollgate_endings_settled_again_total", "endings", &[],
        "endings settled again because the store may have lost them before the ledger had them"
    );
    QUARANTINED = gauge(
        "tollgate_quarantined_entries", "entries", "what is in the ledger's quarantine, as of the last minute"
    );
    AUDITED = counter(
        "tollgate_audited_accounts_total", "accounts", &[], "accounts audited in the background by this sidecar"
    );
    AUDIT_DRIFT = gauge(
        "tollgate_audit_drift", "accounts", "accounts that did not add up when this sidecar audited them last"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_its_kind_and_its_unit_and_is_there_once() {
        for (at, metric) in METRICS.iter().enumerate() {
            let name = metric.name;
            assert!(name.starts_with("tollgate_"), "{name}");
            let counts = metric.kind == Kind::Counter;
            assert_eq!(name.ends_with("_total"), counts, "{name}");
            let is_time = metric.unit == "seconds";
            assert_eq!(name.ends_with("_seconds"), is_time, "{name}");
            assert!(METRICS[..at].iter().all(|before| before.name != name));
            if let Kind::Histogram(bounds) = metric.kind {
                assert!(bounds.is_sorted() && !bounds.is_empty(), "{name}");
            }
        }
    }
}
