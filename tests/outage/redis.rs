//! The schedule on Redis and Postgres: three sidecars, and everything beside them fails in turn.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::fault::{Death, Fault, Loss, schedule};
use super::load::{Door, Doors, Load};
use super::reckoning::{Seen, reckon};
use crate::harness::configuration::Settings;
use crate::harness::installation::Installation;
use crate::harness::relay::Relay;
use crate::harness::seed::seed;
use crate::harness::sidecar::Sidecar;
use crate::harness::wait::until_within;
use crate::harness::{postgres, redis};

const SIDECARS: usize = 3;
/// How long a promoted replica has heard nothing when it takes over.
const UNHEARD: Duration = Duration::from_millis(300);
/// How long until a Cluster's replica has taken over by itself.
const NODE_IS_GONE: Duration = Duration::from_millis(2500);
/// How long until every sidecar is ready again after a fault.
const RECOVERY: Duration = Duration::from_secs(30);
/// What the budgeted account may spend, in credits and in nanos.
const BUDGET: (&str, i64) = ("0.012", 12_000_000);
/// A server that forgets nothing when it is killed, and one that may forget the last second if its machine is.
const ALWAYS: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
const EVERYSEC: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "everysec"];

/// Faults after which the store knows all that it has acknowledged.
const NOTHING_FORGOTTEN: [Fault; 5] = [
    Fault::PostgresStopped,
    Fault::PostgresSilent,
    Fault::FlusherKilled,
    Fault::SidecarKilled,
    Fault::RedisKilledWithAof,
];
const ALL: [Fault; 8] = [
    Fault::PostgresStopped,
    Fault::PostgresSilent,
    Fault::FlusherKilled,
    Fault::SidecarKilled,
    Fault::RedisKilledWithAof,
    Fault::RedisFlushed,
    Fault::ReplicaPromoted,
    Fault::FailedBack,
];

const CLUSTER: [Fault; 5] = [
    Fault::ClusterFailover,
    Fault::ClusterNodeKilled,
    Fault::SidecarKilled,
    Fault::FlusherKilled,
    Fault::PostgresStopped,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_forgets_nothing_nothing_is_lost_or_oversold() {
    live_through(&NOTHING_FORGOTTEN, Store::pair(&ALWAYS).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_forgets_is_healed_from_the_ledger_and_the_sidecars() {
    live_through(&ALL, Store::pair(&EVERYSEC).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_nodes_fail_over_loses_nothing() {
    live_through(&CLUSTER, Store::Cluster(redis::Cluster::with_replicas())).await;
}

async fn live_through(faults: &[Fault], store: Store) {
    let seed = seed();
    let servers = Servers::start(store).await;
    let installation = Installation::at(&servers.store_url, &servers.ledger_url);
    let (rich, poor) = (installation.account("100"), installation.account(BUDGET.0));
    let mut world = World::new(&installation, servers);
    let load = Load::start(&world.doors, &[rich.key.clone(), poor.key.clone()], seed);
    schedule(faults, seed, async |fault, lasting| {
        world.suffer(fault, lasting).await;
        let over = Instant::now();
        world.recover(&load).await;
        println!(
            "{fault:?} for {lasting:?}: served again {:?} later",
            over.elapsed()
        );
    })
    .await;
    let told = load.end().await;
    let budget = Some((&poor, BUDGET.1));
    reckon(&[&rich, &poor], budget, &told, &world.seen).await;
}

/// All that may fail but the sidecars, and the wires that lead there.
struct Servers {
    postgres: postgres::Server,
    to_postgres: Relay,
    ledger_url: String,
    store: Store,
    store_url: String,
}

impl Servers {
    async fn start(store: Store) -> Self {
        let postgres = postgres::Server::durable();
        let (to_postgres, ledger_url) = Relay::to(&postgres.database().await).await;
        Self {
            postgres,
            to_postgres,
            ledger_url,
            store_url: store.url(),
            store,
        }
    }
}

/// The servers of the store.
#[expect(clippy::large_enum_variant, reason = "there is one a test")]
enum Store {
    /// One in use and one that follows it, and the wire to the one in use.
    Pair {
        redis: [redis::Server; 2],
        wire: Relay,
        url: String,
    },
    /// Three pairs.
    Cluster(redis::Cluster),
}

impl Store {
    async fn pair(aof: &[&str]) -> Self {
        let redis = [(); 2].map(|()| redis::Server::with_options(aof));
        let (wire, url) = Relay::to(&redis[0].url()).await;
        let mut store = Self::Pair { redis, wire, url };
        store.follow();
        store
    }

    fn url(&self) -> String {
        match self {
            Self::Pair { url, .. } => url.clone(),
            Self::Cluster(cluster) => cluster.url(),
        }
    }

    fn servers(&mut self) -> &mut [redis::Server; 2] {
        match self {
            Self::Pair { redis, .. } => redis,
            Self::Cluster(_) => panic!("this is a Cluster"),
        }
    }

    fn cluster(&mut self) -> &mut redis::Cluster {
        match self {
            Self::Cluster(cluster) => cluster,
            Self::Pair { .. } => panic!("this is no Cluster"),
        }
    }

    /// The second server follows the first.
    fn follow(&mut self) {
        let [first, second] = self.servers();
        let port = first.address().port().to_string();
        second.command::<()>(&["REPLICAOF", "127.0.0.1", &port]);
    }

    /// The second server takes over, and has not heard the last; the first one follows or goes, as the caller decides.
    async fn promote(&mut self) -> Loss {
        let Self::Pair { redis, wire, .. } = self else {
            panic!("this is a Cluster");
        };
        until_within(RECOVERY, "the replica follows", async || {
            let info: String = redis[1].command(&["INFO", "replication"]);
            info.contains("master_link_status:up").then_some(())
        })
        .await;
        let from = Instant::now();
        redis[1].command::<()>(&["REPLICAOF", "NO", "ONE"]);
        sleep(UNHEARD).await;
        wire.lead_to(redis[1].address());
        redis.swap(0, 1);
        let until = Instant::now();
        Loss { from, until }
    }
}

/// Servers and sidecars.
struct World<'a> {
    installation: &'a Installation,
    servers: Servers,
    sidecars: Vec<Sidecar>,
    doors: Doors,
    started: usize,
    flusher: Child,
    seen: Seen,
}

impl<'a> World<'a> {
    fn new(installation: &'a Installation, servers: Servers) -> Self {
        let mut world = Self {
            installation,
            servers,
            sidecars: Vec::new(),
            doors: Arc::new(RwLock::new(Vec::new())),
            started: 0,
            flusher: flusher(installation, &Settings::default()),
            seen: Seen::default(),
        };
        for _ in 0..SIDECARS {
            world.start_sidecar();
        }
        world
    }

    fn start_sidecar(&mut self) {
        let settings = Settings {
            deadline_s: 3,
            response_timeout_ms: 1000,
            ..Settings::default()
        };
        let sidecar = self.installation.sidecar(&settings);
        let url = sidecar.proxy.clone();
        let process = self.started;
        self.started += 1;
        self.doors.write().unwrap().push(Door { process, url });
        self.sidecars.push(sidecar);
    }

    /// Does it, for so long, and undoes it.
    async fn suffer(&mut self, fault: Fault, lasting: Duration) {
        let servers = &mut self.servers;
        let at = self.seen.losses.len() % 3;
        match fault {
            Fault::PostgresStopped => {
                servers.postgres.stop();
                sleep(lasting).await;
                servers.postgres.restart();
            }
            Fault::PostgresSilent => {
                servers.to_postgres.silence();
                sleep(lasting).await;
                servers.to_postgres.mend();
            }
            Fault::FlusherKilled => {
                sleep(lasting / 10).await;
                self.flusher.kill().expect("it runs");
                self.flusher.wait().expect("a killed process ends");
                self.flusher = flusher(self.installation, &Settings::default());
            }
            Fault::SidecarKilled => {
                let door = self.doors.write().unwrap().remove(0);
                self.sidecars.remove(0).kill();
                self.seen.deaths.push(Death {
                    process: door.process,
                    at: Instant::now(),
                });
                sleep(lasting / 4).await;
                self.start_sidecar();
            }
            Fault::RedisKilledWithAof => {
                let first = &mut servers.store.servers()[0];
                first.kill();
                sleep(lasting / 4).await;
                first.restart();
            }
            Fault::RedisFlushed => {
                let from = Instant::now();
                servers.store.servers()[0].command::<()>(&["FLUSHALL"]);
                let until = Instant::now();
                self.seen.losses.push(Loss { from, until });
            }
            Fault::ReplicaPromoted => {
                self.seen.losses.push(servers.store.promote().await);
                let before = &mut servers.store.servers()[1];
                before.kill();
                before.restart();
                servers.store.follow();
            }
            Fault::FailedBack => {
                self.seen.losses.push(servers.store.promote().await);
                // It lives on and copies what is there now; it has its old name when it takes over again.
                servers.store.follow();
                self.seen.losses.push(servers.store.promote().await);
                servers.store.follow();
            }
            Fault::ClusterFailover => {
                let cluster = servers.store.cluster();
                let (_, follower) = cluster.pair(at);
                let from = Instant::now();
                follower.command::<()>(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
                cluster.all_are_there();
                let until = Instant::now();
                self.seen.losses.push(Loss { from, until });
            }
            Fault::ClusterNodeKilled => {
                let cluster = servers.store.cluster();
                let from = Instant::now();
                let (in_use, _) = cluster.pair(at);
                in_use.kill();
                sleep(lasting.max(NODE_IS_GONE)).await;
                cluster.restart();
                cluster.all_are_there();
                let until = Instant::now();
                self.seen.losses.push(Loss { from, until });
            }
        }
    }

    /// Waits until every sidecar is ready and calls are served again.
    async fn recover(&self, load: &Load) {
        let before = load.served();
        for sidecar in &self.sidecars {
            until_within(RECOVERY, "every sidecar is ready again", async || {
                (sidecar.readiness().await.status == 200).then_some(())
            })
            .await;
        }
        until_within(RECOVERY, "calls are served again", async || {
            (load.served() > before).then_some(())
        })
        .await;
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        let _ = self.flusher.kill();
        let _ = self.flusher.wait();
    }
}

/// A flusher beside the sidecars', which may be killed at any moment.
pub fn flusher(installation: &Installation, settings: &Settings) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["flush", "--watch", "--config"])
        .arg(installation.config(settings))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs")
}
