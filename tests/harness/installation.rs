//! An installation: a ledger, a place in a Redis, a catalogue, and sidecars and commands that share them.
//!
//! Most tests share one, and one sidecar of it, and own accounts with random ids. A test that breaks something, or that
//! counts what a whole installation does, makes its own.

use std::path::PathBuf;
use std::process::Output;
use std::sync::Mutex;

use serde_json::Value;
use sqlx::{Connection, PgConnection};
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
        let installation = Installation::new(&redis::server().url()).await;
        let sidecar = installation.sidecar(&Settings::default());
        (installation, sidecar)
    };
    SHARED.get_or_init(start).await
}

/// A sidecar's time between two looks for overdue holds.
pub const SWEEP_MS: u64 = 300;

impl Installation {
    /// A new one in this Redis, with a database of its own, migrated and with the prices in it.
    pub async fn new(store_url: &str) -> Self {
        Self::at(store_url, &postgres::database().await)
    }

    /// One in this Redis and this database.
    pub fn at(store_url: &str, ledger_url: &str) -> Self {
        let installation = Self {
            directory: TempDir::new().expect("a directory"),
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

    /// A connection to the ledger.
    pub async fn ledger(&self) -> PgConnection {
        PgConnection::connect(&self.ledger_url)
            .await
            .expect("the ledger is there")
    }
}
