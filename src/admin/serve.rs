//! `serve` and `check`: the configuration, and the sidecar that runs under it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

use super::failure::Failure;
use super::lease::{Holder, Lease, Listens};
use super::output::Output;
use super::place::{Live, Place};
use super::{connect, owner, secret};
use crate::clock::Clock;
use crate::config::{Config, LedgerUrl, LogFormat};
use crate::ledger::{AnyLedger, Ledger};
use crate::price::seed;
use crate::proxy::{self, Addresses, Commands};
use crate::quota::AnyStore;
use crate::quota::redis::RedisStore;
use crate::telemetry;

/// How often the ledger is looked after.
const UPKEEP_EACH: Duration = Duration::from_hours(12);

pub(super) const EXAMPLES: &str = "\
Callers change nothing but their base URL and their key:
  http://127.0.0.1:8080/openai/v1    for a [[route]] with prefix = \"/openai\"

See whether it is ready, and what is away if it is not:
  curl http://127.0.0.1:8082/readyz

A setting for this process alone:
  TOLLGATE__LISTEN__PROXY=127.0.0.1:9080 tollgate serve";

/// Runs the sidecar until it is told to stop, to its exit code. Where its log is for machines, so is what ends it.
pub(super) async fn run(file: Option<&Path>, output: &Output) -> Result<u8, Failure> {
    let config = Config::load(file)?;
    telemetry::start_log(config.log);
    let logs_json = config.log.format == LogFormat::Json;
    match serve(config, output).await {
        Err(failure) if logs_json => Ok(failure.log()),
        served => served.map(|()| 0),
    }
}

async fn serve(config: Config, output: &Output) -> Result<(), Failure> {
    if let LedgerUrl::Sqlite(path) = &config.ledger.url {
        let lease = own(path).await?;
        return embedded(config, lease, output).await;
    }
    let ledger = connect::ledger(&config).await?;
    let settings = connect::store_settings(&config, ledger.installation().shards)?;
    let store = AnyStore::Redis(RedisStore::connect(settings).await?);
    let live = Live::new(store, Arc::new(ledger));
    sidecar(config, &live, None, |addresses| say(addresses, output)).await
}

/// The file is ours, or another one has it.
async fn own(file: &Path) -> Result<Lease, Failure> {
    let file_name = file.display();
    let owner = match Lease::take(file).await? {
        Holder::Us(lease) => return Ok(lease),
        Holder::Sidecar(owner) => {
            format!("the sidecar with its control listener at {}", owner.control)
        }
        Holder::Silent(lease) => format!("the process that {} names", lease.display()),
    };
    Err(Failure::Usage(format!(
        "{file_name} is owned by {owner}: an embedded store has one sidecar; for more of them use redis:// and postgres://"
    )))
}

/// Serves from a file, and runs the commands that are about it.
async fn embedded(config: Config, mut lease: Lease, output: &Output) -> Result<(), Failure> {
    let place = Arc::new(Place::make(config.clone(), None).await?);
    place.admin().await?.seed_prices(&seed()).await?;
    let token = secret::random_digits();
    let commands = owner::answering(place.clone(), token.clone());
    let announce = |addresses: &Addresses| {
        let control = addresses.control.clone();
        if let Err(error) = lease.say(Listens { control, token }) {
            tracing::error!(%error, "commands cannot find this sidecar");
        }
        say(addresses, output);
    };
    let served = sidecar(config, place.live().await?, Some(commands), announce).await;
    place.close().await;
    served
}

async fn sidecar(
    config: Config,
    live: &Live,
    commands: Option<Commands>,
    announce: impl FnOnce(&Addresses),
) -> Result<(), Failure> {
    if config.routes.is_empty() {
        tracing::warn!("the configuration has no [[route]] yet: every call is answered with 404");
    }
    let told = told_to_stop()?;
    let upkeep = tokio::spawn(keep_up(live.ledger.clone()));
    let (store, ledger) = (live.store.clone(), live.ledger.clone());
    let served = proxy::serve(
        config,
        store,
        ledger,
        Clock::System,
        commands,
        announce,
        told,
    );
    let served = served.await;
    upkeep.abort();
    Ok(served?)
}

/// If nobody reads what is said any more, calls are served all the same.
fn say(addresses: &Addresses, output: &Output) {
    let _ = output.answer(
        &json!(addresses),
        &format!(
            "Tollgate listens on {} (control {}, health {})",
            addresses.proxy, addresses.control, addresses.health
        ),
    );
}

/// Looks after what grows with time in the ledger, for as long as the sidecar runs.
async fn keep_up(ledger: Arc<AnyLedger>) {
    let mut looks = interval(UPKEEP_EACH);
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
                tracing::warn!(%error, "the ledger could not be looked after: that is tried again in {UPKEEP_EACH:?}");
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
    let config = Config::load(file)?;
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
