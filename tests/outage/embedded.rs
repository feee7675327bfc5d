//! The schedule on the embedded store: its one process is killed at random moments, and the next one goes on where it
//! stopped.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::fault::random_part;
use super::load::{Door, Doors, Load};
use super::reckoning::{Seen, reckon};
use crate::harness::configuration::Settings;
use crate::harness::installation::Installation;
use crate::harness::seed::seed;
use crate::harness::sidecar::Sidecar;
use crate::harness::wait::until_within;

/// How long until calls are served again after a kill.
const RECOVERY: Duration = Duration::from_secs(30);
/// How long a process lives, in milliseconds.
const LIFE_MS: std::ops::Range<u64> = 20..2500;
/// What the budgeted account may spend, in credits and in nanos.
const BUDGET: (&str, i64) = ("0.012", 12_000_000);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_store_whose_process_is_killed_at_any_moment_loses_nothing() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let installation = Installation::embedded();
    let (rich, poor) = (installation.account("100"), installation.account(BUDGET.0));
    let doors = Doors::default();
    let mut sidecar = start(&installation, &doors, 0);
    let load = Load::start(&doors, &[rich.key.clone(), poor.key.clone()], seed);
    let until = Instant::now() + random_part();
    let mut kills = 0;
    while Instant::now() < until {
        sleep(Duration::from_millis(rng.random_range(LIFE_MS))).await;
        doors.write().unwrap().clear();
        sidecar.kill();
        kills += 1;
        sidecar = start(&installation, &doors, kills);
        let before = load.served();
        until_within(RECOVERY, "calls are served again", async || {
            (load.served() > before).then_some(())
        })
        .await;
    }
    let told = load.end().await;
    println!("{kills} kills");
    // Nothing was forgotten, so no record may be missing and nothing may be oversold.
    let budget = Some((&poor, BUDGET.1));
    reckon(&[&rich, &poor], budget, &told, &Seen::default()).await;
}

fn start(installation: &Installation, doors: &Doors, process: usize) -> Sidecar {
    let sidecar = installation.sidecar(&Settings {
        deadline_s: 3,
        ..Settings::default()
    });
    let url = sidecar.proxy.clone();
    doors.write().unwrap().push(Door { process, url });
    sidecar
}
