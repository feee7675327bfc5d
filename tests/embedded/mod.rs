//! The embedded installation: store and ledger in one file, one process that owns it, and commands that ask it.

mod audit;
mod lease;
mod serve;
mod unwritable;

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::account::chat;
use crate::harness::client::{Call, post};
use crate::harness::mock;
use crate::harness::sidecar::{NotStarted, Sidecar, run_in};
use crate::harness::upstream::{SCRIPT, Script, scripted};

/// A directory with nothing in it but what comes of it. Where to listen and what to route is in the environment, so that
/// there is no configuration file.
pub struct Embedded {
    directory: TempDir,
    environment: Vec<(&'static str, &'static str)>,
}

impl Embedded {
    pub fn new() -> Self {
        let environment = vec![
            ("TOLLGATE__LISTEN__PROXY", "127.0.0.1:0"),
            ("TOLLGATE__LISTEN__CONTROL", "127.0.0.1:0"),
            ("TOLLGATE__LISTEN__HEALTH", "127.0.0.1:0"),
            ("TOLLGATE__STORE__SWEEP_INTERVAL_MS", "100"),
            ("TOLLGATE__ROUTE__0__PREFIX", "/openai"),
            ("TOLLGATE__ROUTE__0__UPSTREAM", mock::url()),
            ("TOLLGATE__ROUTE__0__METER", "openai"),
            ("TOLLGATE__ROUTE__1__PREFIX", "/scripted"),
            ("TOLLGATE__ROUTE__1__UPSTREAM", scripted()),
            ("TOLLGATE__ROUTE__1__METER", "openai"),
        ];
        Self {
            directory: TempDir::new().expect("a directory"),
            environment,
        }
    }

    pub fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    #[track_caller]
    pub fn sidecar(&self) -> Sidecar {
        self.try_sidecar().unwrap_or_else(|failed| {
            panic!("it did not start ({:?}): {}", failed.status, failed.said)
        })
    }

    pub fn try_sidecar(&self) -> Result<Sidecar, NotStarted> {
        Sidecar::try_start_in(self.path(), &self.environment)
    }

    pub fn try_run(&self, arguments: &[&str]) -> Output {
        run_in(self.path(), &self.environment, arguments)
    }

    /// Runs a command that must succeed, and returns what it printed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        let [out, err] = [&output.stdout, &output.stderr].map(|said| text(said));
        let status = output.status;
        assert!(
            status.success(),
            "tollgate {arguments:?}: {status}\n{out}{err}"
        );
        out
    }

    /// An account with a key and so many credits: the key's secret.
    #[track_caller]
    pub fn account(&self, id: &str, credits: &str) -> String {
        self.run(&["account", "create", id]);
        let made = self.run(&["key", "create", id, "--json"]);
        let made: Value = serde_json::from_str(&made).expect("one line of JSON");
        self.run(&["grant", id, credits, "--source-ref", "first"]);
        made["secret"].as_str().expect("a secret").to_owned()
    }

    #[track_caller]
    pub fn show(&self, account: &str) -> Shown {
        let shown = self.run(&["account", "show", account, "--json"]);
        let shown: Value = serde_json::from_str(&shown).expect("one line of JSON");
        let nanos = |name: &str| shown[name].as_i64().expect("an amount");
        Shown {
            available: nanos("available_nanos"),
            held: nanos("held_nanos"),
        }
    }
}

/// What `account show` says, in nanos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    pub available: i64,
    pub held: i64,
}

/// A chat with the mock, whose answers have prices.
pub fn call(sidecar: &Sidecar, key: &str) -> Call {
    let url = format!("{}/openai/v1/chat/completions", sidecar.proxy);
    post(url, &priced()).key(key)
}

/// A chat that goes as the script says.
pub fn scripted_call(sidecar: &Sidecar, key: &str, script: &Script) -> Call {
    let url = format!("{}/scripted/v1/chat/completions", sidecar.proxy);
    post(url, &priced()).key(key).header(SCRIPT, &script.id)
}

fn priced() -> Value {
    let mut body = chat(50);
    body["model"] = json!("gpt-4o-mini");
    body
}

pub fn text(said: &[u8]) -> String {
    String::from_utf8_lossy(said).into_owned()
}
