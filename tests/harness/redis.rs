//! Private Redis servers: one plain, one three-node Cluster, shared by all tests; and ones that a test owns and may kill.
//!
//! Each runs under a shell that ends it when its standard input ends, so that no server outlives the test process, not even
//! one that is killed.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue};
use tempfile::TempDir;
use tollgate::quota::redis::{RedisSettings, RedisStore};
use tollgate::quota::{ChangeSeq, Epoch, Header, OutSeq, STORE_FORMAT, ShardId, Store};
use uuid::Uuid;

/// How long a server may take to come up, or a state to come about, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Far above the default, because the machine that runs the tests is busy with them.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const SLOTS: u16 = 16_384;
const NODES: u16 = 3;

/// A server of its own; dropping it ends it.
pub struct Server {
    port: u16,
    options: Vec<String>,
    directory: TempDir,
    running: Option<Running>,
}

struct Running {
    /// Its standard input is what keeps the server alive.
    shell: Child,
    pid: String,
}

impl Server {
    /// Starts one on a free port, and waits until it answers.
    pub fn start() -> Self {
        Self::with_options(&[])
    }

    pub fn with_options(options: &[&str]) -> Self {
        let directory = TempDir::new().expect("there is a place for temporary files");
        let mut server = Self {
            port: free_port(),
            options: options.iter().map(ToString::to_string).collect(),
            directory,
            running: None,
        };
        server.restart();
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        let killed = Command::new("kill").args(["-9", &running.pid]).status();
        assert!(killed.expect("there is `kill`").success());
        drop(running.shell.stdin.take());
        running.shell.wait().expect("the shell was started here");
    }

    /// Starts it again on the same port, empty.
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let script = "\"$@\" >server.log 2>&1 </dev/null & pid=$!; echo $pid; cat >/dev/null; kill -9 $pid 2>/dev/null; wait";
        let mut shell = Command::new("sh")
            .args(["-c", script, "sh", "redis-server", "--bind", "127.0.0.1"])
            .args(["--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .args(&self.options)
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let mut pid = String::new();
        let stdout = shell.stdout.take().expect("it is piped");
        let read = BufReader::new(stdout).read_line(&mut pid);
        read.expect("the shell says the server's pid");
        self.running = Some(Running {
            shell,
            pid: pid.trim().to_owned(),
        });
        wait_for("redis-server answers (is it installed?)", || {
            // One that reads its file first takes connections and answers nothing but that it is loading.
            let connection = self.try_connect();
            connection.is_some_and(|mut it| redis::cmd("PING").exec(&mut it).is_ok())
        });
    }

    /// Everything that an append-only server was ever told, as text.
    pub fn dump(&self) -> String {
        let files = std::fs::read_dir(self.directory.path().join("appendonlydir"));
        let files = files.expect("the server appends to files").flatten();
        let bytes = files.flat_map(|file| std::fs::read(file.path()).expect("a file"));
        String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
    }

    /// A connection past the store, to look behind it.
    pub fn connection(&self) -> Connection {
        self.try_connect().expect("the server runs")
    }

    /// Sends one command past the store.
    pub fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        command.arg(words);
        let answer = command.query(&mut self.connection());
        answer.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Its name in a Cluster.
    fn id(&self) -> String {
        self.command(&["CLUSTER", "MYID"])
    }

    fn try_connect(&self) -> Option<Connection> {
        let client = redis::Client::open(self.url()).expect("it is an address");
        client.get_connection_with_timeout(RESPONSE_TIMEOUT).ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.shell.stdin.take());
            // It ends in any case; waiting only keeps it from lingering as a zombie.
            let _ = running.shell.wait();
        }
    }
}

/// The plain server that all tests share.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// A Cluster of three nodes.
pub struct Cluster {
    pub nodes: Vec<Server>,
    /// One for each node, or none.
    pub replicas: Vec<Server>,
}

impl Cluster {
    /// Starts one, and waits until every node sees it whole.
    pub fn start() -> Self {
        let nodes: Vec<_> = (0..NODES).map(|_| cluster_node()).collect();
        for (first, node) in (0..NODES).zip(&nodes) {
            let (from, to) = (SLOTS / NODES * first, SLOTS / NODES * (first + 1) - 1);
            let to = if first + 1 == NODES { SLOTS - 1 } else { to };
            let range = [&from.to_string(), &to.to_string()];
            node.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", range[0], range[1]]);
        }
        for node in &nodes[1..] {
            let (port, bus) = (node.port.to_string(), node.options[3].as_str());
            nodes[0].command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]);
        }
        let replicas = Vec::new();
        let cluster = Self { nodes, replicas };
        wait_for("every node of the Cluster knows every slot", || {
            cluster.nodes.iter().all(Self::is_whole)
        });
        cluster
    }

    pub fn url(&self) -> String {
        let address = |node: &Server| format!("127.0.0.1:{}", node.port);
        let addresses: Vec<_> = self.nodes.iter().map(address).collect();
        format!("redis+cluster://{}", addresses.join(","))
    }

    /// One whose nodes have replicas, which take over when a node is gone for a second.
    pub fn with_replicas() -> Self {
        let mut cluster = Self::start();
        for node in &cluster.nodes {
            let replica = cluster_node();
            let (port, bus) = (node.port.to_string(), node.options[3].as_str());
            replica.command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]);
            let id = node.id();
            wait_for("the replica knows its node", || {
                let known: String = replica.command(&["CLUSTER", "NODES"]);
                known.contains(&id)
            });
            replica.command::<()>(&["CLUSTER", "REPLICATE", &id]);
            cluster.replicas.push(replica);
        }
        cluster.all_are_there();
        cluster
    }

    /// Waits until every node sees the Cluster whole, and every pair has one that follows the other.
    pub fn all_are_there(&self) {
        wait_for("every node of the Cluster knows every slot", || {
            self.nodes.iter().chain(&self.replicas).all(Self::is_whole)
        });
        wait_for("every node of the Cluster is followed", || {
            let follows = |server: &Server| {
                let info: String = server.command(&["INFO", "replication"]);
                info.contains("role:slave") && info.contains("master_link_status:up")
            };
            let mut pairs = self.nodes.iter().zip(&self.replicas);
            pairs.all(|(one, other)| follows(one) != follows(other))
        });
    }

    /// Starts again whatever was killed.
    pub fn restart(&mut self) {
        for server in self.nodes.iter_mut().chain(&mut self.replicas) {
            if server.running.is_none() {
                server.restart();
            }
        }
    }

    /// The pair's server that calls go to now, and the one that follows it.
    pub fn pair(&mut self, at: usize) -> (&mut Server, &mut Server) {
        let (one, other) = (&mut self.nodes[at], &mut self.replicas[at]);
        let role: String = one.command(&["INFO", "replication"]);
        if role.contains("role:master") {
            (one, other)
        } else {
            (other, one)
        }
    }

    fn is_whole(node: &Server) -> bool {
        let info: String = node.command(&["CLUSTER", "INFO"]);
        let size = format!("cluster_size:{NODES}");
        ["cluster_state:ok", "cluster_slots_ok:16384", &size]
            .iter()
            .all(|line| info.contains(*line))
    }
}

/// A slot on its way.
pub struct Move<'a> {
    from: &'a Server,
    to: &'a Server,
    slot: String,
}

impl Cluster {
    /// Which node keeps a hash tag.
    pub fn node_of(&self, tag: &str) -> usize {
        let slot: u16 = self.nodes[0].command(&["CLUSTER", "KEYSLOT", tag]);
        usize::from((slot / (SLOTS / NODES)).min(NODES - 1))
    }

    /// Lets the next node take over the slot of a hash tag, up to where its keys move.
    pub fn begin_to_move(&self, tag: &str) -> Move<'_> {
        let from = self.node_of(tag);
        let (from, to) = (
            &self.nodes[from],
            &self.nodes[(from + 1) % self.nodes.len()],
        );
        let slot: u16 = from.command(&["CLUSTER", "KEYSLOT", tag]);
        let slot = slot.to_string();
        let (from_id, to_id) = (from.id(), to.id());
        to.command::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        from.command::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        Move { from, to, slot }
    }
}

impl Move<'_> {
    pub fn move_one_key(&self) -> bool {
        let keys: Vec<String> = self
            .from
            .command(&["CLUSTER", "GETKEYSINSLOT", &self.slot, "1"]);
        let port = self.to.port.to_string();
        for key in &keys {
            self.from
                .command::<()>(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
        }
        !keys.is_empty()
    }

    pub fn finish(&self) {
        while self.move_one_key() {}
        let id = self.to.id();
        for node in [self.to, self.from] {
            node.command::<()>(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &id]);
        }
    }
}

/// The Cluster that all tests share.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

fn cluster_node() -> Server {
    let bus = free_port().to_string();
    let port = ["--cluster-enabled", "yes", "--cluster-port", &bus];
    // A second until a node counts as gone; a replica takes over however long it has heard nothing.
    let timeouts = [
        "--cluster-node-timeout",
        "1000",
        "--cluster-replica-validity-factor",
        "0",
    ];
    Server::with_options(&[port, timeouts].concat())
}

/// Settings of an installation that no other test has.
pub fn settings(url: &str, shards: u16) -> RedisSettings {
    RedisSettings {
        response_timeout: RESPONSE_TIMEOUT,
        ..RedisSettings::new(url, format!("test-{}", Uuid::now_v7()), shards)
    }
}

/// A store that is connected.
pub async fn connected(settings: RedisSettings) -> RedisStore {
    let store = RedisStore::connect(settings).await;
    store.expect("the settings can be used")
}

/// A store whose shards are opened and adopted, in their first epoch.
pub async fn opened(settings: RedisSettings) -> RedisStore {
    let store = connected(settings).await;
    for shard in (0..store.shards()).map(ShardId) {
        store.open(shard, &header()).await.expect("it opens");
        check(&store, shard).await;
    }
    store
}

/// Looks at a shard and adopts the epoch that is there, as a check does once the ledger agrees.
pub async fn check(store: &RedisStore, shard: ShardId) {
    let view = store.view(shard).await.expect("the store is there");
    let header = view.header.expect("the shard was opened");
    store.adopt(shard, header.epoch);
}

/// The header of a first epoch.
pub fn header() -> Header {
    Header {
        install: Uuid::nil(),
        format: STORE_FORMAT,
        epoch: Epoch(1),
        out_seq: OutSeq(0),
        applied_seq: ChangeSeq(0),
    }
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Asks again until it is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
