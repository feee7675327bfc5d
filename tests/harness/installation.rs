//! An installation: a ledger, a place in a Redis, a catalogue, and sidecars and commands that share them.
//!
//! Most tests share one, and one sidecar of it, and own accounts with random ids. A test that breaks something, or that
//! counts what a whole installation does, makes its own.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Mutex;

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, Row};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tollgate::money::Nanos;
use uuid::Uuid;

use super::client::{Call, get, post};
use super::sidecar::{Sidecar, run, run_well};
use super::upstream::{SCRIPT, Script, scripted};
use super::wait::until;
use super::{mock, postgres, redis};

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

/// What a sidecar's configuration says beside where everything is.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub deadline_s: u32,
    pub drain_s: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline_s: 60,
            drain_s: 20,
        }
    }
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
        let sidecar = installation.sidecar(Settings::default());
        (installation, sidecar)
    };
    SHARED.get_or_init(start).await
}

/// A sidecar's time between two looks for overdue holds.
pub const SWEEP_MS: u64 = 300;

impl Installation {
    /// A new one in this Redis, with a database of its own, migrated and with the prices in it.
    pub async fn new(store_url: &str) -> Self {
        let installation = Self {
            directory: TempDir::new().expect("a directory"),
            ledger_url: postgres::database().await,
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
    pub fn config(&self, settings: Settings) -> PathBuf {
        let path = self.path(&format!("{}.toml", Uuid::now_v7()));
        std::fs::write(&path, self.config_text(settings)).expect("a file");
        path
    }

    fn config_text(&self, settings: Settings) -> String {
        let Settings {
            deadline_s,
            drain_s,
        } = settings;
        let (store, ledger, prefix) = (&self.store_url, &self.ledger_url, &self.prefix);
        let (mock, scripted) = (mock::url(), scripted());
        let credential = format!(r#"{{ header = "authorization", value = "{CREDENTIAL}" }}"#);
        let mut text = format!(
            r#"
            [listen]
            proxy = "127.0.0.1:0"
            control = "127.0.0.1:0"
            health = "127.0.0.1:0"
            drain_s = {drain_s}
            [store]
            url = "{store}"
            prefix = "{prefix}"
            deadline_s = {deadline_s}
            sweep_interval_ms = {SWEEP_MS}
            response_timeout_ms = 3000
            [ledger]
            url = "{ledger}"
            [refusal]
            upgrade_url = "{UPGRADE_URL}"
            "#
        );
        let openai = |more: &str| format!("meter = \"openai\"\nprovider = \"openai\"\n{more}");
        let flat = "meter = \"flat\"\ncharge = { credits = \"0.005\", resource = \"tool_calls\" }";
        let routes: [(&str, &str, String); 11] = [
            ("/openai", mock, openai("")),
            ("/scripted", scripted, openai("")),
            ("/small", scripted, openai("max_body_bytes = 1000")),
            ("/unpriced", scripted, openai("unpriced = \"free\"")),
            ("/open", scripted, openai("unknown_paths = \"free\"")),
            ("/brief", scripted, openai("assume_output_tokens = 7")),
            (
                "/impatient",
                scripted,
                openai("first_byte_timeout_ms = 300\nidle_timeout_ms = 300"),
            ),
            // A port that nobody listens on: the port of a listener that is closed at once may be given away again.
            ("/gone", "http://127.0.0.1:1", openai("")),
            ("/flat", scripted, flat.to_owned()),
            ("/flat/gone", "http://127.0.0.1:1", flat.to_owned()),
            ("/none", scripted, "meter = \"none\"".to_owned()),
        ];
        for (prefix, upstream, more) in routes {
            text += &format!(
                "[[route]]\nprefix = \"{prefix}\"\nupstream = \"{upstream}\"\ncredential = {credential}\n{more}\n"
            );
        }
        text.lines()
            .map(|line| format!("{}\n", line.trim()))
            .collect()
    }

    /// Starts a sidecar.
    #[track_caller]
    pub fn sidecar(&self, settings: Settings) -> Sidecar {
        Sidecar::start(&self.config(settings))
    }

    /// Runs a command that must succeed, and returns what it printed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        run_well(&self.config(Settings::default()), arguments)
    }

    /// Runs a command that may fail.
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        run(&self.config(Settings::default()), arguments)
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

    /// Where the configuration's directory is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// An account with one key.
pub struct Account<'a> {
    pub installation: &'a Installation,
    pub id: String,
    pub key_id: String,
    /// The key's secret.
    pub key: String,
}

/// What a usage record says.
#[derive(Debug, Clone)]
pub struct Record {
    pub id: Uuid,
    pub outcome: String,
    pub overrun: bool,
    pub route: String,
    pub model: String,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub reserved: i64,
    pub charged: i64,
    pub corrects: Option<Uuid>,
    pub occurred_at: time::OffsetDateTime,
    pub properties: Value,
}

impl Account<'_> {
    #[track_caller]
    pub fn grant(&self, credits: &str) {
        self.installation.run(&["grant", &self.id, credits]);
    }

    /// What `account show` says, after loading the account as a call would.
    #[track_caller]
    pub fn show(&self) -> Value {
        let shown = self
            .installation
            .run(&["account", "show", &self.id, "--json"]);
        serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}"))
    }

    /// What is left of the wallet, in nanos, what is held not counted.
    #[track_caller]
    pub fn available(&self) -> i64 {
        self.show()["available_nanos"]
            .as_i64()
            .expect("available_nanos")
    }

    /// What calls in flight hold of the wallet, in nanos.
    #[track_caller]
    pub fn held(&self) -> i64 {
        self.show()["held_nanos"].as_i64().expect("held_nanos")
    }

    /// Its usage records, oldest first.
    pub async fn records(&self) -> Vec<Record> {
        let rows = sqlx::query(
            "SELECT id, outcome, overrun, route, model, input_tokens, output_tokens, reserved_nanos, charged_nanos, \
             corrects, occurred_at, properties FROM usage_record WHERE account_id = $1 ORDER BY id",
        );
        let rows = rows
            .bind(&self.id)
            .fetch_all(&mut self.installation.ledger().await)
            .await;
        let record = |row: &sqlx::postgres::PgRow| Record {
            id: row.get("id"),
            outcome: row.get("outcome"),
            overrun: row.get("overrun"),
            route: row.get("route"),
            model: row.get("model"),
            input_tokens: row.get("input_tokens"),
            output_tokens: row.get("output_tokens"),
            reserved: row.get("reserved_nanos"),
            charged: row.get("charged_nanos"),
            corrects: row.get("corrects"),
            occurred_at: row.get("occurred_at"),
            properties: row.get("properties"),
        };
        rows.expect("usage_record is there")
            .iter()
            .map(record)
            .collect()
    }

    /// Waits until there are so many usage records, and returns them.
    pub async fn until_records(&self, count: usize) -> Vec<Record> {
        let what = format!("account {} has {count} usage records", self.id);
        let records = until(&what, async || {
            let records = self.records().await;
            (records.len() >= count).then_some(records)
        })
        .await;
        assert_eq!(records.len(), count, "{records:#?}");
        records
    }

    /// Waits for the one record there should be.
    pub async fn until_record(&self) -> Record {
        self.until_records(1).await.remove(0)
    }

    /// Waits until nothing is held.
    pub async fn until_nothing_held(&self) {
        until("nothing is held", async || (self.held() == 0).then_some(())).await;
    }

    /// A call of this account, through a sidecar.
    pub fn post(&self, sidecar: &Sidecar, path: &str, body: &Value) -> Call {
        post(format!("{}{path}", sidecar.proxy), body).key(&self.key)
    }

    /// A call without a body.
    pub fn get(&self, sidecar: &Sidecar, path: &str) -> Call {
        get(format!("{}{path}", sidecar.proxy)).key(&self.key)
    }

    /// A chat call that the mock answers.
    pub fn chat(&self, sidecar: &Sidecar, body: &Value) -> Call {
        self.post(sidecar, "/openai/v1/chat/completions", body)
    }

    /// A chat call that a script answers.
    pub fn scripted_chat(&self, sidecar: &Sidecar, script: &Script, body: &Value) -> Call {
        self.post(sidecar, "/scripted/v1/chat/completions", body)
            .header(SCRIPT, &script.id)
    }
}

/// Nanos as the credits that commands take.
pub fn credits(nanos: i64) -> String {
    Nanos(nanos).to_string()
}

/// A chat of one short message.
pub fn chat(max_tokens: i64) -> Value {
    json!({
        "model": MODEL,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Count to three."}],
    })
}

/// The same, streamed.
pub fn streamed_chat(max_tokens: i64) -> Value {
    let mut body = chat(max_tokens);
    body["stream"] = json!(true);
    body
}
