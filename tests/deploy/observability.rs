//! The dashboard and the alert rules ask for metrics and labels that there are, as what they are.

use std::collections::BTreeSet;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use tollgate::telemetry::list::{CLASSES, CODES, Kind, METRICS, Metric};

const DASHBOARD: &str = include_str!("../../deploy/grafana/tollgate.json");
const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yml");
/// Labels that Prometheus adds to whatever it scrapes.
const OF_TARGETS: [&str; 2] = ["instance", "job"];

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    labels: Severity,
    annotations: Annotations,
}

#[derive(Deserialize)]
struct Severity {
    severity: String,
}

#[derive(Deserialize)]
struct Annotations {
    summary: String,
    description: String,
}

/// What a query asks for: a metric, and the part of it.
struct Asked<'a> {
    metric: &'static Metric,
    is_bucket: bool,
    /// What stands before it.
    before: &'a str,
    /// What stands in braces behind it.
    matchers: &'a str,
}

/// The metrics that a query asks for, or what is wrong with it.
fn asked(query: &str) -> Result<Vec<Asked<'_>>, String> {
    let sample = Regex::new(r"\b(tollgate_\w+)(?:\{([^}]*)\})?").expect("a pattern");
    let samples = sample.captures_iter(query).map(|found| {
        let whole = found.get(0).expect("a match");
        let name = &found[1];
        let (metric, suffix) = find(name).ok_or_else(|| format!("there is no {name}"))?;
        let is_histogram = matches!(metric.kind, Kind::Histogram(_));
        if is_histogram == suffix.is_empty() {
            return Err(format!("{name} is a {}", metric.kind.as_str()));
        }
        Ok(Asked {
            metric,
            is_bucket: suffix == "_bucket",
            before: &query[..whole.start()],
            matchers: found.get(2).map_or("", |matchers| matchers.as_str()),
        })
    });
    samples.collect()
}

/// The metric of a sample, and what is appended to its name.
fn find(name: &str) -> Option<(&'static Metric, &'static str)> {
    let suffixes = ["", "_bucket", "_sum", "_count"];
    suffixes.into_iter().find_map(|suffix| {
        let metric = METRICS
            .iter()
            .find(|metric| name.strip_suffix(suffix) == Some(metric.name));
        metric.map(|metric| (metric, suffix))
    })
}

/// What is wrong with a query, as far as it can be seen without a Prometheus.
fn fault(query: &str) -> Result<(), String> {
    let asked = asked(query)?;
    if asked.is_empty() && !query.starts_with("up{") {
        return Err("it asks for nothing of Tollgate".into());
    }
    let mut labels: BTreeSet<&str> = OF_TARGETS.into();
    for asked in &asked {
        let name = asked.metric.name;
        let own: BTreeSet<&str> = asked.metric.labels.iter().copied().collect();
        let rated = ["rate(", "increase("];
        let counts = asked.metric.kind == Kind::Counter || asked.is_bucket;
        if counts != rated.iter().any(|rated| asked.before.ends_with(rated)) {
            return Err(format!("{name} is a {}", asked.metric.kind.as_str()));
        }
        for (label, values) in matchers(asked.matchers)? {
            if !own.contains(label) && !OF_TARGETS.contains(&label) {
                return Err(format!("{name} has no label {label}"));
            }
            let known: &[&str] = match label {
                "code" => &CODES,
                "class" => &CLASSES,
                _ => continue,
            };
            if let Some(unknown) = values.split('|').find(|value| !known.contains(value)) {
                return Err(format!("{label} is never {unknown}"));
            }
        }
        labels.extend(own);
        labels.extend(asked.is_bucket.then_some("le"));
    }
    let by = Regex::new(r"\bby \(([^)]*)\)").expect("a pattern");
    for group in by.captures_iter(query) {
        let group = group.get(1).expect("a group").as_str();
        let mut names = group.split(',').map(str::trim);
        if let Some(unknown) = names.find(|name| !labels.contains(name)) {
            return Err(format!("nothing has a label {unknown}"));
        }
    }
    if query.contains("histogram_quantile(") && !query.contains("by (le") {
        return Err("a quantile needs its buckets apart, by (le)".into());
    }
    Ok(())
}

/// The labels and values that stand in braces.
fn matchers(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let matcher = Regex::new(r#"^(\w+)(?:=~|=|!=|!~)"([^"]*)"$"#).expect("a pattern");
    let matchers = text
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty());
    let pairs = matchers.map(|text| {
        let found = matcher.captures(text).ok_or_else(|| text.to_owned())?;
        let part = |at| found.get(at).expect("a group").as_str();
        Ok((part(1), part(2)))
    });
    pairs.collect()
}

/// Every query of the dashboard.
fn queries_of_dashboard() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let mut ids = BTreeSet::new();
    let mut queries = Vec::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_i64()), "{panel}");
        assert!(
            panel["title"]
                .as_str()
                .is_some_and(|title| !title.is_empty())
        );
        if panel["type"] == "row" {
            continue;
        }
        let description = panel["description"].as_str().unwrap_or_default();
        assert!(
            !description.is_empty(),
            "{} has no description",
            panel["title"]
        );
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{}", panel["title"]);
        let expressions = targets.iter().map(|target| target["expr"].as_str());
        queries.extend(expressions.map(|text| text.expect("a query").to_owned()));
    }
    queries
}

#[test]
fn the_dashboard_asks_for_what_there_is_and_shows_all_of_it() {
    let queries = queries_of_dashboard();
    for query in &queries {
        assert_eq!(fault(query), Ok(()), "{query}");
    }
    let shown = queries
        .iter()
        .flat_map(|query| asked(query).expect("checked"));
    let shown: BTreeSet<&str> = shown.map(|asked| asked.metric.name).collect();
    let all: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    assert_eq!(shown, all);
    let variables = r#""query": "label_values(tollgate_build_info, instance)""#;
    assert!(DASHBOARD.contains(variables));
}

#[test]
fn every_alert_asks_for_what_there_is_and_says_what_to_do() {
    let rules: Rules = serde_saphyr::from_str(ALERTS).expect("YAML");
    let mut names = BTreeSet::new();
    for rule in rules.groups.into_iter().flat_map(|group| group.rules) {
        let name = rule.alert;
        assert_eq!(fault(&rule.expr), Ok(()), "{name}");
        assert!(["page", "ticket"].contains(&rule.labels.severity.as_str()));
        let Annotations {
            summary,
            description,
        } = rule.annotations;
        assert!(!summary.is_empty() && description.len() > 40, "{name}");
        assert!(names.insert(name.clone()), "{name} is there twice");
    }
    assert!(names.len() > 10, "{names:?}");
}

#[test]
fn what_is_wrong_with_a_query_is_seen() {
    for (query, wrong) in [
        ("rate(tollgate_admission_total[5m])", "there is no"),
        ("rate(tollgate_reserve_seconds[5m])", "is a histogram"),
        ("tollgate_store_up_bucket", "is a gauge"),
        ("sum(tollgate_lapses_total)", "is a counter"),
        ("rate(tollgate_store_up[5m])", "is a gauge"),
        (
            "rate(tollgate_refusals_total{account=\"a\"}[5m])",
            "no label account",
        ),
        (
            "rate(tollgate_refusals_total{code=\"teapot\"}[5m])",
            "never teapot",
        ),
        (
            "sum by (code) (rate(tollgate_admissions_total[5m]))",
            "a label code",
        ),
        (
            "histogram_quantile(0.9, rate(tollgate_reserve_seconds_bucket[5m]))",
            "(le)",
        ),
        ("vector(1)", "nothing"),
    ] {
        let fault = fault(query).expect_err(query);
        assert!(fault.contains(wrong), "{query}: {fault}");
    }
}
