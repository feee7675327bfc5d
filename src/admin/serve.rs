//! `serve` and `check`: the configuration, and the sidecar that runs under it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{interval, sleep};

use super::failure::Failure;
use super::lease::{Holder, Lease, Listens};
use super::output::Output;
use super::place::{Live, Place};
use super::{connect, owner, secret};
use crate::clock::Clock;
use crate::config::{Config, LedgerUrl, LogFormat};
use crate::ledger::{AnyLedger, Away, Ledger, LedgerError};
use crate::price::seed;
use crate::proxy::{self, Addresses, Listeners, Operator};
use crate::quota::AnyStore;
use crate::quota::redis::RedisStore;
use crate::telemetry;

/// How soon a ledger that does not answer at the start is asked again.
const LEDGER_RETRY: Duration = Duration::from_millis(500);
/// How often the ledger is looked after.
const UPKEEP_EACH: Duration = Duration::from_hours(12);

pub(super) const EXAMPLES: &str = "\
Callers change nothing but their base URL and their key:
  http://127.0.0.1:8080/openai/v1    for a [[route]] with prefix = \"/openai\"

See whether it is ready, and what is away if it is not:
  curl http://127.0.0.1:8082/readyz

Take over changed routes and their timeouts; the log says what has changed, and a file with an error changes nothing:
  kill -HUP PID

A setting for this process alone:
  TOLLGATE__LISTEN__PROXY=127.0.0.1:9080 tollgate serve";

/// Runs the sidecar until it is told to stop, to its exit code. Where its log is for machines, so is what ends it.
pub(super) async fn run(file: Option<&Path>, output: &Output) -> Result<u8, Failure> {
    let config = Config::load(file)?;
    telemetry::start_log(config.log);
    let logs_json = config.log.format == LogFormat::Json;
    // In a box: it is large, and whatever waits for it would be, too.
    match Box::pin(serve(config, file, output)).await {
        Err(failure) if logs_json => Ok(failure.log()),
        served => served.map(|()| 0),
    }
}

async fn serve(config: Config, file: Option<&Path>, output: &Output) -> Result<(), Failure> {
    if config.routes.is_empty() {
        tracing::warn!("the configuration has no [[route]] yet: every call is answered with 404");
    }
    let reloads = follow_file(file.map(Path::to_owned))?;
    if let LedgerUrl::Sqlite(path) = &config.ledger.url {
        let lease = own(path).await?;
        return embedded(config, lease, reloads, output).await;
    }
    Box::pin(servers(config, reloads, output)).await
}

/// Serves from Redis and Postgres. While the ledger does not answer it lives, is not ready, and refuses every call.
async fn servers(config: Config, reloads: Reloads, output: &Output) -> Result<(), Failure> {
    let listeners = Listeners::open(&config).await?;
    let mut told = std::pin::pin!(told_to_stop()?);
    let mut announced = false;
    let mut announce = |addresses: &Addresses| {
        if !announced {
            say(addresses, output);
        }
        announced = true;
    };
    let ledger = listeners.refuse_until(&config, reach_ledger(&config, &listeners, &mut announce));
    let ledger = tokio::select! {
        ledger = ledger => ledger??,
        () = &mut told => return Ok(()),
    };
    let settings = connect::store_settings(&config, ledger.installation().shards)?;
    let store = AnyStore::Redis(RedisStore::connect(settings).await?);
    let live = Live::new(store, Arc::new(ledger));
    let operator = Operator {
        commands: None,
        reloads: Some(reloads),
    };
    sidecar(config, listeners, &live, operator, announce, told).await
}

/// Until the ledger answers, however long that takes; what it says then is another matter.
async fn reach_ledger(
    config: &Config,
    listeners: &Listeners,
    mut announce: impl FnMut(&Addresses),
) -> Result<AnyLedger, Failure> {
    let mut attempt = connect::ledger(config).await;
    let since = Clock::System.now();
    let mut attempts: u64 = 1;
    loop {
        let reason = match attempt {
            Err(Failure::Ledger(LedgerError::Away(reason))) => reason,
            Ok(ledger) => {
                if attempts > 1 {
                    tracing::info!(attempts, "the ledger is reached");
                }
                return Ok(ledger);
            }
            Err(failure) => return Err(failure),
        };
        if attempts == 1 {
            tracing::warn!(
                reason,
                "the ledger is away: calls are refused until it answers"
            );
        }
        listeners.ledger_is_away(Away { since, reason });
        announce(listeners.addresses());
        sleep(LEDGER_RETRY).await;
        attempts += 1;
        attempt = connect::ledger(config).await;
    }
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
async fn embedded(
    config: Config,
    mut lease: Lease,
    reloads: Reloads,
    output: &Output,
) -> Result<(), Failure> {
    let listeners = Listeners::open(&config).await?;
    let place = Arc::new(Place::make(config.clone(), None).await?);
    place.admin().await?.seed_prices(&seed()).await?;
    let token = secret::random_digits();
    let operator = Operator {
        commands: Some(owner::answering(place.clone(), token.clone())),
        reloads: Some(reloads),
    };
    let announce = |addresses: &Addresses| {
        let control = addresses.control.clone();
        if let Err(error) = lease.say(Listens { control, token }) {
            tracing::error!(%error, "commands cannot find this sidecar");
        }
        say(addresses, output);
    };
    let told = told_to_stop()?;
    let served = sidecar(
        config,
        listeners,
        place.live().await?,
        operator,
        announce,
        told,
    )
    .await;
    place.close().await;
    served
}

async fn sidecar(
    config: Config,
    listeners: Listeners,
    live: &Live,
    operator: Operator,
    announce: impl FnOnce(&Addresses),
    told: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let upkeep = tokio::spawn(keep_up(live.ledger.clone()));
    let backends = (live.store.clone(), live.ledger.clone());
    let clock = Clock::System;
    let served = proxy::serve(config, listeners, backends, clock, operator, announce, told).await;
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

/// SIGTERM, as an orchestrator sends it, or Ctrl-C.
pub(super) fn told_to_stop() -> Result<impl Future<Output = ()>, Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Process)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    })
}

/// Configurations as they are read anew, one at a time.
type Reloads = mpsc::Receiver<Config>;

/// Reads the configuration again at each SIGHUP. One that cannot be used changes nothing.
fn follow_file(file: Option<PathBuf>) -> Result<Reloads, Failure> {
    let mut hang_up = signal(SignalKind::hangup()).map_err(Failure::Process)?;
    let (new, reloads) = mpsc::channel(1);
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            let file = file.clone();
            // Calls run on this thread.
            let loaded = spawn_blocking(move || Config::load(file.as_deref())).await;
            match loaded.expect("it does not panic") {
                Ok(config) => {
                    if new.send(config).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::error!(
                    %error,
                    "the configuration cannot be used, and the one before goes on"
                ),
            }
        }
    });
    Ok(reloads)
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
