//! Which process runs a command: this one, or the sidecar that owns the file it speaks of (rule 29).

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::failure::Failure;
use super::lease::{Holder, Lease};
use super::output::Output;
use super::owner::{self, Asked, NotAsked};
use super::place::Place;
use super::{Command, Typed, run_at};
use crate::config::{Config, LedgerUrl};

/// How long an owner may take from listening no more to giving the file back.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EACH: Duration = Duration::from_millis(20);

/// Runs it to its exit code.
pub(super) async fn run(config: Config, typed: Typed, output: &Output) -> Result<u8, Failure> {
    let LedgerUrl::Sqlite(file) = &config.ledger.url else {
        let place = Place::new(config);
        return run_at(&place, typed, output).await.map(|()| 0);
    };
    if !file.exists() && !matches!(typed.command, Command::Migrate(_)) {
        return Err(Failure::Usage(format!(
            "there is no {}: make it with `tollgate migrate`, or with `tollgate serve`",
            file.display()
        )));
    }
    let until = Instant::now() + PATIENCE;
    loop {
        let listens = match Lease::take(file).await? {
            Holder::Us(lease) => return here(config, lease, typed, output).await,
            Holder::Sidecar(listens) => listens,
            Holder::Silent(lease) => {
                return Err(Failure::Away(format!(
                    "another process has the file and does not say where it listens: a command that runs, or a sidecar \
                     that begins or ends. Try again when it is done; {} has its process id",
                    lease.display()
                )));
            }
        };
        let asked = Asked {
            arguments: std::env::args().collect(),
            file: typed.file.clone(),
        };
        match owner::ask(&listens, &asked).await {
            Ok(code) => return Ok(code),
            Err(NotAsked::Failed(failure)) => return Err(failure),
            Err(NotAsked::Gone) if Instant::now() < until => sleep(LOOK_EACH).await,
            Err(NotAsked::Gone) => {
                return Err(Failure::Away(format!(
                    "the sidecar that owns the file does not listen at {}",
                    listens.control
                )));
            }
        }
    }
}

/// Opens the file, runs it, and gives the file back as clean as a sidecar would.
async fn here(config: Config, lease: Lease, typed: Typed, output: &Output) -> Result<u8, Failure> {
    let place = match &typed.command {
        // What is to be opened may not be there yet.
        Command::Migrate(arguments) => Place::make(config, arguments.shards).await?,
        _ => Place::open(config).await?,
    };
    let outcome = run_at(&place, typed, output).await;
    place.close().await;
    drop(lease);
    outcome.map(|()| 0)
}
