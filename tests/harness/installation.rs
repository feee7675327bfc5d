//! An installation: a ledger, a place in a Redis, a catalogue, and sidecars and commands that share them.
//!
//! Most tests share one, and one sidecar of it, and own accounts with random ids. A test that breaks something, or that
//! counts what a whole installation does, makes its own.

use std::ops::Deref;
use std::path::PathBuf;
use std::process::Output;
use std::sync::Mutex;

use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, FromRow, PgConnection, SqliteConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::account::Account;
use super::configuration::Settings;
use super::sidecar::{Sidecar, run, run_well};
use super::{postgres, redis};

/// What one token of input and of output charges with the catalogue's prices below.
pub const INPUT_NANOS: i64 = 1_000;
pub const OUTPUT_NANOS: i64 = 2_000;
/// What a call on the flat route charges.
pub const FLAT_NANOS: i64 = 5_000_000;
/// The model that has these prices; the mock and the scripts answer as any model.
pub const MODEL: &str = "house-chat";
/// Another one, ten times as dear.
pub const DEAR_MODEL: &str = "house-chat-dear";
/// A model with a price of input only.
pub const EMBEDDING_MODEL: &str = "house-embedding";
/// Where the refusals send people.
pub const UPGRADE_URL: &str = "https://example.com/upgrade";
/// What the routes send upstream in place of a caller's key.
pub const CREDENTIAL: &str = "Bearer sk-the-routes-own";

const PRICES: &str = r#"
[[price]]
provider = "openai"
model = "house-chat"
input = "1"
output = "2"

[[price]]
provider = "openai"
model = "house-chat-dear"
input = "10"
output = "20"

[[price]]
provider = "openai"
model = "house-embedding"
input = "1"
"#;

/// Where a ledger and a store are.
pub struct Installation {
    directory: TempDir,
    pub ledger_url: String,
    pub store_url: String,
    pub prefix: String,
    /// Two catalogues applied at once would each take back what the other one adds.
    catalogue: Mutex<()>,
}

/// What a configuration calls the store that needs no server.
const EMBEDDED: &str = "embedded";

/// Whether this run is to try everything on the embedded store: `scripts/test` runs the tests of the public face on both.
pub fn on_embedded() -> bool {
    std::env::var("TOLLGATE_TEST_STORE").is_ok_and(|store| store == EMBEDDED)
}

static SHARED: OnceCell<(Installation, Sidecar)> = OnceCell::const_new();

/// The sidecar that most tests share.
pub async fn sidecar() -> &'static Sidecar {
    &shared().await.1
}

/// The installation that most tests share.
pub async fn installation() -> &'static Installation {
    &shared().await.0
}

async fn shared() -> &'static (Installation, Sidecar) {
    let start = || async {
        let store = if on_embedded() {
            EMBEDDED.to_owned()
        } else {
            redis::server().url()
        };
        let installation = Installation::new(&store).await;
        let sidecar = installation.sidecar(&Settings::default());
        (installation, sidecar)
    };
    SHARED.get_or_init(start).await
}

/// What a test has for itself, or shares with others.
pub enum Of<T: 'static> {
    Own(T),
    Shared(&'static T),
}

impl<T> Deref for Of<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Own(own) => own,
            Self::Shared(shared) => shared,
        }
    }
}

/// An installation that has room for one more sidecar: the shared one, or on the embedded store, which has one sidecar,
/// a new one without any.
pub async fn installation_with_room() -> Of<Installation> {
    if on_embedded() {
        Of::Own(Installation::embedded())
    } else {
        Of::Shared(installation().await)
    }
}

/// A second sidecar of the shared installation; on the embedded store it is the first one again.
pub async fn another_sidecar() -> Of<Sidecar> {
    if on_embedded() {
        Of::Shared(sidecar().await)
    } else {
        Of::Own(installation().await.sidecar(&Settings::default()))
    }
}

/// A sidecar's time between two looks for overdue holds.
pub const SWEEP_MS: u64 = 300;

impl Installation {
    /// A new one in this Redis, with a database of its own, migrated and with the prices in it.
    pub async fn new(store_url: &str) -> Self {
        if on_embedded() {
            return Self::embedded();
        }
        Self::on_servers(store_url).await
    }

    /// The same for tests of the servers themselves, which the embedded store has not: on Redis and Postgres in every run.
    pub async fn on_servers(store_url: &str) -> Self {
        Self::at(store_url, &postgres::database().await)
    }

    /// One in a file of its own. It has one sidecar at a time.
    pub fn embedded() -> Self {
        let directory = TempDir::new().expect("a directory");
        let file = directory.path().join("tollgate.db");
        let ledger_url = format!("sqlite://{}", file.display());
        Self::begin(directory, EMBEDDED, &ledger_url)
    }

    pub fn is_embedded(&self) -> bool {
        self.store_url == EMBEDDED
    }

    /// One in this Redis and this database.
    pub fn at(store_url: &str, ledger_url: &str) -> Self {
        Self::begin(TempDir::new().expect("a directory"), store_url, ledger_url)
    }

    fn begin(directory: TempDir, store_url: &str, ledger_url: &str) -> Self {
        let installation = Self {
            directory,
            ledger_url: ledger_url.to_owned(),
            store_url: store_url.to_owned(),
            prefix: format!("t{}", Uuid::now_v7().simple()),
            catalogue: Mutex::new(()),
        };
        installation.run(&["migrate"]);
        installation.apply("");
        installation
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a configuration and returns its path.
    pub fn config(&self, settings: &Settings) -> PathBuf {
        let path = self.path(&format!("{}.toml", Uuid::now_v7()));
        std::fs::write(
            &path,
            settings.text(&self.store_url, &self.prefix, &self.ledger_url),
        )
        .expect("a file");
        path
    }

    /// Starts a sidecar.
    #[track_caller]
    pub fn sidecar(&self, settings: &Settings) -> Sidecar {
        Sidecar::start(&self.config(settings))
    }

    /// Runs a command that must succeed, and returns what it printed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        run_well(&self.config(&Settings::default()), arguments)
    }

    /// Runs a command that may fail.
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        run(&self.config(&Settings::default()), arguments)
    }

    /// Applies the prices above and these plans.
    #[track_caller]
    pub fn apply(&self, plans: &str) -> String {
        let one_at_a_time = self.catalogue.lock();
        let path = self.path(&format!("{}.catalog.toml", Uuid::now_v7()));
        std::fs::write(&path, format!("{plans}\n{PRICES}")).expect("a file");
        let said = self.run(&["apply", path.to_str().expect("a UTF-8 path")]);
        drop(one_at_a_time);
        said
    }

    /// A plan with these quotas, as the catalogue writes them, under a name of its own.
    #[track_caller]
    pub fn plan(&self, quotas: &str) -> String {
        let key = format!("p{}", Uuid::now_v7().simple());
        self.edit_plan(&key, quotas);
        key
    }

    /// Gives a plan other quotas.
    #[track_caller]
    pub fn edit_plan(&self, key: &str, quotas: &str) {
        self.apply(&format!(
            "[[plan]]\nkey = \"{key}\"\nname = \"Test\"\nquotas = [{quotas}]\n"
        ));
    }

    /// An account with so many credits.
    #[track_caller]
    pub fn account(&self, credits: &str) -> Account<'_> {
        self.account_with(&[], credits)
    }

    /// An account on a plan.
    #[track_caller]
    pub fn account_on(&self, plan: &str, credits: &str) -> Account<'_> {
        self.account_with(&["--plan", plan], credits)
    }

    #[track_caller]
    fn account_with(&self, more: &[&str], credits: &str) -> Account<'_> {
        let id = format!("a{}", Uuid::now_v7().simple());
        self.run(&[&["account", "create", &id], more].concat());
        let (key_id, key) = self.key(&id);
        let account = Account {
            installation: self,
            id,
            key_id,
            key,
        };
        if credits != "0" {
            account.grant(credits);
        }
        account
    }

    /// Another key of an account: its id and its secret.
    #[track_caller]
    pub fn key(&self, account: &str) -> (String, String) {
        let made = self.run(&["key", "create", account, "--json"]);
        let made: Value =
            serde_json::from_str(&made).unwrap_or_else(|error| panic!("{error}: {made}"));
        let text = |name: &str| made[name].as_str().expect("id and secret").to_owned();
        (text("id"), text("secret"))
    }

    /// Store and ledger agree, lot by lot and counter by counter (invariant 6).
    #[track_caller]
    pub fn verify(&self) {
        let output = self.try_run(&["verify", "--json"]);
        let said = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(
            output.status.success(),
            "{}: {}",
            output.status,
            said.concat()
        );
    }

    /// All that is in the files of an embedded installation, as text.
    pub fn files(&self) -> String {
        let names = ["tollgate.db", "tollgate.db-wal"];
        let files = names.map(|name| std::fs::read(self.path(name)).expect("a file"));
        files
            .map(|file| String::from_utf8_lossy(&file).into_owned())
            .concat()
    }

    /// The one row of the ledger that a statement asks for by an id.
    pub async fn row<T>(&self, statement: &'static str, id: Uuid) -> T
    where
        T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        let row = if self.is_embedded() {
            let row = sqlx::query_as(statement).bind(id);
            row.fetch_one(&mut self.file().await).await
        } else {
            let row = sqlx::query_as(statement).bind(id);
            row.fetch_one(&mut self.ledger().await).await
        };
        row.expect("a row")
    }

    /// A connection to the ledger that is a file.
    pub async fn file(&self) -> SqliteConnection {
        SqliteConnection::connect(&self.ledger_url)
            .await
            .expect("the ledger is there")
    }

    /// A connection to the ledger.
    pub async fn ledger(&self) -> PgConnection {
        PgConnection::connect(&self.ledger_url)
            .await
            .expect("the ledger is there")
    }
}
