//! `serve` and `check`: the configuration, and the sidecar that runs under it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

use super::connect;
use super::failure::Failure;
use super::output::Output;
use crate::clock::Clock;
use crate::ledger::{AnyLedger, Ledger};
use crate::proxy::{self, Addresses};
use crate::quota::AnyStore;
use crate::quota::redis::RedisStore;
use crate::telemetry;

/// How often the partitions of the coming months are looked after.
const PARTITIONS_EACH: Duration = Duration::from_hours(12);

pub(super) const EXAMPLES: &str = "\
Callers change nothing but their base URL and their key:
  http://127.0.0.1:8080/openai/v1    for a [[route]] with prefix = \"/openai\"

See whether it is ready, and what is away if it is not:
  curl http://127.0.0.1:8082/readyz

A setting for this process alone:
  TOLLGATE__LISTEN__PROXY=127.0.0.1:9080 tollgate serve";

/// Runs the sidecar until it is told to stop.
pub(super) async fn run(file: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let config = connect::config(file)?;
    telemetry::start_log(config.log);
    let ledger = connect::ledger(&config).await?;
    let settings = connect::store_settings(&config, ledger.installation().shards)?;
    let store = RedisStore::connect(settings).await?;
    let told = told_to_stop()?;
    let announce = |addresses: &Addresses| {
        // If nobody reads what is said any more, calls are served all the same.
        let _ = output.answer(
            &json!(addresses),
            &format!(
                "Tollgate listens on {} (control {}, health {})",
                addresses.proxy, addresses.control, addresses.health
            ),
        );
    };
    let (store, ledger) = (Arc::new(AnyStore::Redis(store)), Arc::new(ledger));
    let partitions = tokio::spawn(keep_partitions(ledger.clone()));
    let served = proxy::serve(config, store, ledger, Clock::System, announce, told).await;
    partitions.abort();
    Ok(served?)
}

/// Sees to it that the records of the coming months have partitions, for as long as the sidecar runs.
async fn keep_partitions(ledger: Arc<AnyLedger>) {
    let mut looks = interval(PARTITIONS_EACH);
    loop {
        looks.tick().await;
        // It comes again in time: partitions are made months ahead, and a record without one has the default's.
        match ledger.upkeep().await {
            Ok(0) => {}
            Ok(records) => {
                tracing::warn!(
                    records,
                    "records are in no month's partition: a sidecar's clock is far off, or partitions came late"
                );
            }
            Err(error) => {
                tracing::warn!(%error, "the partitions of the coming months cannot be made");
            }
        }
    }
}

/// SIGTERM, as an orchestrator sends it, or Ctrl-C. SIGHUP does not end it: some day it will reload routes.
pub(super) fn told_to_stop() -> Result<impl Future<Output = ()>, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Process)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(Failure::Process)?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
                _ = hang_up.recv() => {
                    tracing::warn!("reloading is not built yet: restart to change the configuration");
                }
            }
        }
    })
}

/// Looks over the configuration.
pub(super) fn check(file: Option<&Path>, output: &Output) -> Result<(), Failure> {
    let config = connect::config(file)?;
    let prefixes: Vec<&str> = config
        .routes
        .iter()
        .map(|route| route.prefix.as_str())
        .collect();
    let text = match prefixes[..] {
        [] => "The configuration is in order. It has no [[route]] yet.".to_owned(),
        _ => format!(
            "The configuration is in order. Its routes: {}",
            prefixes.join(", ")
        ),
    };
    output.answer(&json!({ "ok": true, "routes": prefixes }), &text)
}
