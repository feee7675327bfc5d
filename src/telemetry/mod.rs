//! Telemetry: what the operator sees. The metrics and their page, the log, the traces.
//!
//! No label, no line and no span carries a secret, a prompt or a key; no label an account or anything else without a bound.
// holds: 9, blind

use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use self::list::{Kind, METRICS};

pub mod list;
mod log;
mod metrics;
mod trace;

pub use self::metrics::{Metrics, RouteMetrics, State};
pub use log::start_log;
pub use trace::{CallSpan, Tracer};

/// How often histograms take in what was recorded; without it they grow for ever.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The metrics of one sidecar, and the page that shows them.
#[derive(Clone)]
pub struct Telemetry {
    /// Where to count.
    pub metrics: Metrics,
    page: PrometheusHandle,
}

impl Default for Telemetry {
    /// Registers every metric. Each sidecar has its own, also where several share a process in tests.
    fn default() -> Self {
        let recorder = builder()
            .expect("the lists of buckets are not empty")
            .build_recorder();
        Self {
            page: recorder.handle(),
            metrics: Metrics::new(recorder),
        }
    }
}

impl Telemetry {
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

fn builder() -> Result<PrometheusBuilder, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let Kind::Histogram(bounds) = metric.kind {
            let name = Matcher::Full(metric.name.to_owned());
            builder = builder.set_buckets_for_metric(name, bounds)?;
        }
    }
    Ok(builder)
}

#[cfg(test)]
mod tests;
