//! A flusher is killed after the ledger has committed what it read, and before the store has forgotten that: the one
//! moment in which both have it (rule 19). Others take calls meanwhile, and flush the same shards afterwards.

use std::process::Child;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use regex::bytes::Regex;

use super::fault::Death;
use super::load::{Door, Doors, Load};
use super::reckoning::{Seen, reckon};
use super::redis::flusher;
use crate::harness::account::Account;
use crate::harness::configuration::Settings;
use crate::harness::installation::Installation;
use crate::harness::redis::server;
use crate::harness::relay::Relay;
use crate::harness::seed::seed;
use crate::harness::sidecar::Sidecar;
use crate::harness::wait::until_within;

const KILLS: usize = 6;
const OTHERS: usize = 2;
const ACCOUNTS: usize = 4;
/// How many calls are served before the next one is killed.
const CALLS_BETWEEN: std::ops::Range<usize> = 5..40;
/// How long anything may take on the way to the next kill.
const RECOVERY: Duration = Duration::from_secs(30);
/// The verb that forgets, on its way to Redis: the outbox's name, the epoch, and the first of the entries.
const FORGET: &str = r"\{[^}]*:(\d+)\}:o\r\n\$\d+\r\n\d+\r\n\$\d+\r\n(\d+)-0\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flusher_killed_between_commit_and_forget_is_repeated_harmlessly() {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let installation = Installation::on_servers(&server().url()).await;
    let (others_to_ledger, ledger_url) = Relay::to(&installation.ledger_url).await;
    let accounts: Vec<Account<'_>> = (0..ACCOUNTS).map(|_| installation.account("100")).collect();
    let doors = Doors::default();
    let settings = Settings {
        ledger_url: Some(ledger_url),
        ..brief()
    };
    let others: Vec<Sidecar> = (0..OTHERS)
        .map(|process| serving(&installation, &settings, &doors, process))
        .collect();
    let keys: Vec<String> = accounts.iter().map(|one| one.key.clone()).collect();
    let load = Load::start(&doors, &keys, seed);
    let mut deaths = Vec::new();
    for kill in 0..KILLS {
        until_served(&load, rng.random_range(CALLS_BETWEEN)).await;
        // They go on with what they know, and nobody flushes beside the one that is killed, until that was looked at.
        others_to_ledger.cut();
        let doomed = Doomed::start(&installation, &doors, OTHERS + kill).await;
        let (shard, seq) = doomed.kill_as_it_forgets(&doors, &mut deaths).await;
        let flushed = flushed_seq(&installation, shard).await;
        assert!(flushed >= seq, "shard {shard}: {seq} is not committed");
        assert!(
            waits(&installation, shard, seq),
            "shard {shard}: {seq} is forgotten"
        );
        others_to_ledger.mend();
        until_within(RECOVERY, "another one has forgotten it", async || {
            (!waits(&installation, shard, seq)).then_some(())
        })
        .await;
        for other in &others {
            other.until_ready_is(200).await;
        }
        println!("killed as it was to forget {seq} of shard {shard}");
    }
    let told = load.end().await;
    // The store has forgotten nothing, so no record may be missing.
    let faults = Seen {
        losses: Vec::new(),
        deaths,
    };
    let accounts: Vec<&Account<'_>> = accounts.iter().collect();
    reckon(&accounts, None, &told, &faults).await;
}

/// Who is about to be killed, and its wire to the store.
struct Doomed {
    who: Flushing,
    wire: Relay,
    process: usize,
}

/// Both flush: the command alone, and the sidecar beside its calls.
enum Flushing {
    Command(Child),
    Sidecar(Sidecar),
}

impl Doomed {
    async fn start(installation: &Installation, doors: &Doors, process: usize) -> Self {
        let (wire, url) = Relay::to(&installation.store_url).await;
        wire.silence_at(Regex::new(FORGET).expect("a pattern"));
        let settings = Settings {
            store_url: Some(url),
            ..brief()
        };
        let who = if process.is_multiple_of(2) {
            Flushing::Command(flusher(installation, &settings))
        } else {
            Flushing::Sidecar(serving(installation, &settings, doors, process))
        };
        Self { who, wire, process }
    }

    /// Says of which shard it was about to forget which entry; that has not reached the store, and never will.
    async fn kill_as_it_forgets(mut self, doors: &Doors, deaths: &mut Vec<Death>) -> (i16, i64) {
        let met = until_within(RECOVERY, "it is about to forget", async || self.wire.met()).await;
        match &mut self.who {
            Flushing::Command(flusher) => {
                flusher.kill().expect("it runs");
                flusher.wait().expect("a killed process ends");
            }
            Flushing::Sidecar(sidecar) => {
                sidecar.kill();
                let mut doors = doors.write().unwrap();
                doors.retain(|door| door.process != self.process);
                deaths.push(Death {
                    process: self.process,
                    at: Instant::now(),
                });
            }
        }
        let forget = Regex::new(FORGET).expect("a pattern");
        let forget = forget.captures(&met).expect("it was met");
        let number = |at: usize| std::str::from_utf8(&forget[at]).expect("digits");
        let (shard, seq) = (number(1).parse(), number(2).parse());
        (shard.expect("a shard"), seq.expect("a number"))
    }
}

fn brief() -> Settings {
    Settings {
        deadline_s: 3,
        ..Settings::default()
    }
}

fn serving(
    installation: &Installation,
    settings: &Settings,
    doors: &Doors,
    process: usize,
) -> Sidecar {
    let sidecar = installation.sidecar(settings);
    let url = sidecar.proxy.clone();
    doors.write().unwrap().push(Door { process, url });
    sidecar
}

async fn until_served(load: &Load, calls: usize) {
    let enough = load.served() + calls;
    until_within(RECOVERY, "calls are served", async || {
        (load.served() >= enough).then_some(())
    })
    .await;
}

async fn flushed_seq(installation: &Installation, shard: i16) -> i64 {
    let asked = sqlx::query_scalar("SELECT flushed_seq FROM shard WHERE id = $1").bind(shard);
    let asked = asked.fetch_one(&mut installation.ledger().await).await;
    asked.expect("every shard has a row")
}

/// Whether an entry is in the store's outbox.
fn waits(installation: &Installation, shard: i16, seq: i64) -> bool {
    let outbox = format!("{{{}:{shard}}}:o", installation.prefix);
    let id = format!("{seq}-0");
    let found: Vec<redis::Value> = server().command(&["XRANGE", &outbox, &id, &id]);
    !found.is_empty()
}
