//! What is on the page, and what is not.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;

use super::list::{METRICS, OTHER};
use super::*;
use crate::clock::UnixMs;
use crate::money::Nanos;
use crate::quota::ReservationId;
use crate::quota::{Cut, EndedEntry, Entry, EntryKind, Epoch, LotId, Moved, OutSeq, Outcome};

fn telemetry() -> Telemetry {
    let telemetry = Telemetry::default();
    telemetry.metrics.route("/openai");
    telemetry
}

/// What the page says of the kind of each metric.
fn kinds(page: &str) -> BTreeMap<&str, &str> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines.filter_map(|line| line.split_once(' ')).collect()
}

#[test]
fn every_metric_is_on_the_page_from_the_start_as_it_is_listed() {
    let page = telemetry().render();
    let listed = METRICS
        .iter()
        .map(|metric| (metric.name, metric.kind.as_str()));
    assert_eq!(kinds(&page), listed.collect(), "{page}");
    for metric in METRICS {
        let help = format!("# HELP {} {}\n", metric.name, metric.help);
        assert!(page.contains(&help), "{help} in {page}");
        for label in metric.labels {
            let samples = page.lines().filter(|line| line.starts_with(metric.name));
            let labelled = format!("{label}=\"");
            assert!(samples.clone().count() > 0, "{}", metric.name);
            assert!(samples.into_iter().all(|line| line.contains(&labelled)));
        }
    }
}

#[test]
fn a_route_or_a_code_that_is_not_listed_makes_no_new_label() {
    let telemetry = telemetry();
    let metrics = &telemetry.metrics;
    metrics.no_route().refused("sk-secret");
    metrics.route("/openai").refused("budget_in_flight");
    let page = telemetry.render();
    for counted in [
        format!("{{route=\"none\",code=\"{OTHER}\"}} 1"),
        "{route=\"/openai\",code=\"budget_in_flight\"} 1".to_owned(),
    ] {
        assert!(page.contains(&counted), "{counted} in {page}");
    }
    assert!(!page.contains("sk-secret"));
}

#[test]
fn what_is_measured_falls_into_its_bucket() {
    let telemetry = telemetry();
    let metrics = &telemetry.metrics;
    metrics.reserve.record(Duration::from_micros(300));
    let route = metrics.route("/openai");
    route.answered(StatusCode::OK, Duration::from_millis(30));
    route.answered(StatusCode::BAD_GATEWAY, Duration::from_millis(30));
    let page = telemetry.render();
    for sample in [
        "tollgate_reserve_seconds_bucket{le=\"0.0005\"} 1",
        "tollgate_upstream_first_byte_seconds_bucket{route=\"/openai\",le=\"0.1\"} 2",
        "tollgate_upstream_answers_total{route=\"/openai\",class=\"2xx\"} 1",
        "tollgate_upstream_answers_total{route=\"/openai\",class=\"5xx\"} 1",
    ] {
        assert!(page.contains(sample), "{sample} in {page}");
    }
}

/// The entry of a call that held 1000, was charged so much, and for which the store moved so much.
fn ended(outcome: Outcome, charge: i64, moved: i64) -> Entry {
    Entry {
        seq: OutSeq(1),
        epoch: Epoch(1),
        at: UnixMs(500),
        account: "acme".parse().expect("an id"),
        kind: EntryKind::Ended(EndedEntry {
            id: ReservationId::new(),
            outcome,
            overrun: charge > 1000,
            reserved: Nanos(1000),
            charge: Nanos(charge),
            counts: Vec::new(),
            detail: "{}".into(),
            cut: Cut::default(),
        }),
        moved: Moved {
            lots: vec![(LotId(1), Nanos(-moved))],
            ..Moved::default()
        },
    }
}

#[test]
fn flushed_endings_are_counted_as_what_they_are() {
    let telemetry = telemetry();
    let lapsed_then_settled = ended(Outcome::Settled, 90, 40);
    let entries = [
        ended(Outcome::Settled, 90, 90),
        ended(Outcome::Lapsed, 50, 50),
        lapsed_then_settled,
        ended(Outcome::Settled, 1500, 1500),
    ];
    telemetry.metrics.flushed(&entries, UnixMs(1250));
    let page = telemetry.render();
    for sample in [
        "tollgate_overruns_total 1",
        "tollgate_corrections_total 1",
        "tollgate_estimate_ratio_bucket{le=\"0.05\"} 1",
        "tollgate_estimate_ratio_bucket{le=\"0.1\"} 3",
        "tollgate_estimate_ratio_bucket{le=\"2\"} 4",
        "tollgate_flush_lag_seconds 0.75",
    ] {
        assert!(page.contains(sample), "{sample} in {page}");
    }
}

#[test]
fn credit_is_shown_in_credits() {
    let telemetry = telemetry();
    telemetry.metrics.show(&State {
        held: Nanos(1_250_000_000),
        open_calls: 3,
        store_up: true,
        ..State::default()
    });
    let page = telemetry.render();
    for sample in [
        "tollgate_held_credits 1.25",
        "tollgate_open_calls 3",
        "tollgate_store_up 1",
        "tollgate_ledger_up 0",
    ] {
        assert!(page.contains(sample), "{sample} in {page}");
    }
}
