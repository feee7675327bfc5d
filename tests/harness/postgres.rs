//! A private PostgreSQL for this process, and a fresh migrated database for each test.
//!
//! The server is started by the first test that needs it and dies with the process, even if that is killed: it runs
//! under a shell that waits for the end of its input.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::OnceCell;
use tollgate::ledger::postgres::schema::migrate;
use uuid::Uuid;

/// How many shards a test's installation has: several, so that none is special, and few, so that all are visited.
pub const SHARDS: u16 = 4;

const TEMPLATE: &str = "migrated";
const START_DEADLINE: Duration = Duration::from_mins(1);

// $1: where the programs are, $2: the port, $3: the folder.
const RUN: &str = r#"
"$1/postgres" -D "$3/data" -p "$2" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
    -c fsync=off -c full_page_writes=off -c synchronous_commit="$4" \
    -c max_connections=300 -c shared_buffers=32MB -c autovacuum="$4" >"$3/log" 2>&1 &
pid=$!
cat >/dev/null
kill -QUIT $pid
wait $pid
rm -f "$3/data/postmaster.pid"
[ "$4" = off ] && rm -rf "$3"
"#;

/// A server of its own, which a test may stop and start again: what it has committed is there again then.
pub struct Server {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    /// Whether a commit outlives a stop, and tables are looked after. It costs a little, so only servers do it that are
    /// stopped or run for long.
    durable: bool,
    /// Its input is what keeps the server alive.
    shell: Option<Child>,
}

impl Server {
    /// Starts one that keeps what it has committed.
    pub fn durable() -> Self {
        Self::start(true)
    }

    fn start(durable: bool) -> Self {
        let mut server = Self {
            programs: programs(),
            folder: new_data_folder(),
            port: free_port(),
            durable,
            shell: None,
        };
        server.restart();
        server
    }

    /// Starts it again on the same port.
    pub fn restart(&mut self) {
        assert!(self.shell.is_none(), "it runs already");
        let shell = as_server_user(Path::new("sh"))
            .args(["-c", RUN, "sh"])
            .arg(&self.programs)
            .arg(self.port.to_string())
            .arg(&self.folder)
            .arg(if self.durable { "on" } else { "off" })
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .spawn()
            .expect("a shell runs");
        self.shell = Some(shell);
        wait_until_ready(&self.programs, self.port, &self.folder);
    }

    /// Ends it at once, whatever it is doing, and waits until it is gone.
    pub fn stop(&mut self) {
        let mut shell = self.shell.take().expect("it runs");
        drop(shell.stdin.take());
        shell.wait().expect("the shell was started here");
    }

    /// The url of a new database, migrated.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", Uuid::now_v7().simple());
        let url = self.empty_database(&name).await;
        migrate(&url, Some(SHARDS)).await.expect("it migrates");
        url
    }

    /// The url of a new database without any schema.
    pub async fn empty_database(&self, name: &str) -> String {
        sql(&self.url("postgres"), format!("CREATE DATABASE {name}")).await;
        self.url(name)
    }

    fn url(&self, database: &str) -> String {
        let port = self.port;
        format!("postgres://postgres@127.0.0.1:{port}/{database}?sslmode=disable")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.shell.is_some() {
            self.stop();
        }
        // The folder may be another user's; whoever runs as root may remove it all the same.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The url of a database that nothing has touched yet, migrated.
pub async fn database() -> String {
    static TEMPLATE_MADE: OnceCell<()> = OnceCell::const_new();
    TEMPLATE_MADE
        .get_or_init(async || {
            let url = empty_database(TEMPLATE).await;
            migrate(&url, Some(SHARDS)).await.expect("it migrates");
        })
        .await;
    let name = format!("test_{}", Uuid::now_v7().simple());
    sql(
        &url("postgres"),
        format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"),
    )
    .await;
    let url = url(&name);
    sql(
        &url,
        "UPDATE installation SET id = gen_random_uuid()".into(),
    )
    .await;
    url
}

/// The url of a new database without any schema.
pub async fn empty_database(name: &str) -> String {
    server().empty_database(name).await
}

fn url(database: &str) -> String {
    server().url(database)
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(false))
}

async fn sql(url: &str, statement: String) {
    let mut conn = PgConnection::connect(url).await.expect("it connects");
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut conn)
        .await
        .expect("it runs");
    conn.close().await.expect("it closes");
}

/// A folder with an empty database cluster in it.
fn new_data_folder() -> PathBuf {
    let folder = tempfile::Builder::new()
        .prefix("tollgate-postgres-")
        .tempdir()
        .expect("there is room for a folder")
        .keep();
    if let Some(user) = server_user() {
        let owner = format!("{user}:");
        let chown = Command::new("chown").arg(owner).arg(&folder).status();
        assert!(chown.expect("chown runs").success());
    }
    let initdb = as_server_user(&programs().join("initdb"))
        .arg("-D")
        .arg(folder.join("data"))
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"])
        .args(["--no-sync", "--no-instructions"])
        .current_dir(&folder)
        .output()
        .expect("initdb runs");
    assert!(initdb.status.success(), "{initdb:?}");
    folder
}

fn wait_until_ready(programs: &Path, port: u16, folder: &Path) {
    let patience = Instant::now() + START_DEADLINE;
    loop {
        let ready = Command::new(programs.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .status();
        if ready.expect("pg_isready runs").success() {
            return;
        }
        let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(Instant::now() < patience, "it does not start: {}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A command that does not run as root, whoever runs the tests.
fn as_server_user(program: &Path) -> Command {
    let Some(user) = server_user() else {
        return Command::new(program);
    };
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", user, "--clear-groups", "--"])
        .arg(program);
    command
}

/// Whom the server runs as where the tests run as root, which PostgreSQL refuses; `None`: as whoever runs them.
fn server_user() -> Option<&'static str> {
    let id = |of: &[&str]| Command::new("id").arg("-u").args(of).output();
    if id(&[]).expect("id runs").stdout != b"0\n" {
        return None;
    }
    let exists = id(&["postgres"]).is_ok_and(|id| id.status.success());
    Some(if exists { "postgres" } else { "nobody" })
}

/// Where PostgreSQL's programs are: on the path, or where Debian keeps them, the newest first.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut debian: Vec<PathBuf> = debian
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    debian.sort();
    folders.extend(debian.into_iter().rev());
    let complete = |folder: &&PathBuf| {
        ["initdb", "postgres", "pg_isready"]
            .iter()
            .all(|program| folder.join(program).is_file())
    };
    let found = folders.iter().find(complete);
    found.expect("PostgreSQL is installed").clone()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it has an address").port()
}
