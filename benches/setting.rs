//! What the benchmarks stand on: an installation with an upstream of their choice, its sidecar, and accounts that never
//! run dry.

use std::path::PathBuf;

use tempfile::TempDir;
use uuid::Uuid;

use crate::harness::installation::Installation;
use crate::harness::sidecar::Sidecar;
use crate::harness::{postgres, redis};

/// More than any benchmark spends.
pub const CREDITS: &str = "8000000";
/// As the demo's account has them: two limits that are never reached.
const QUOTAS: &str = r#"
    { resource = "requests", window = "day", limit = 1000000000000 },
    { resource = "tokens", window = "month", limit = 1000000000000 },
"#;

/// An installation, and a folder for its files.
pub struct Setting {
    pub installation: Installation,
    pub plan: String,
    directory: TempDir,
}

/// Somebody who calls.
pub struct Customer {
    pub account: String,
    pub key_id: String,
    pub key: String,
}

impl Setting {
    /// In a file.
    pub fn embedded() -> Self {
        Self::of(Installation::embedded())
    }

    /// In this Redis, and in a database of its own with as many shards as an installation has unless told otherwise.
    pub async fn on_servers(redis: &redis::Server) -> Self {
        let name = format!("bench_{}", Uuid::now_v7().simple());
        let database = postgres::empty_database(&name).await;
        Self::on(redis, &database)
    }

    /// The same in a database that is there.
    pub fn on(redis: &redis::Server, database: &str) -> Self {
        Self::of(Installation::at(&redis.url(), database))
    }

    fn of(installation: Installation) -> Self {
        Self {
            plan: installation.plan(QUOTAS),
            installation,
            directory: TempDir::new().expect("there is a place for temporary files"),
        }
    }

    pub fn customer(&self) -> Customer {
        self.customer_with(CREDITS)
    }

    /// One with so many credits.
    pub fn customer_with(&self, credits: &str) -> Customer {
        let account = self.installation.account_on(&self.plan, credits);
        Customer {
            key_id: account.key_id.clone(),
            key: account.key.clone(),
            account: account.id,
        }
    }

    /// A sidecar with a metered route and one with the meter `none`; `ledger_url`: another way to the ledger.
    pub fn sidecar(&self, upstream: &str, ledger_url: Option<&str>) -> Sidecar {
        let routes = format!(
            "{}{}",
            route("/openai", upstream, "openai"),
            route("/none", upstream, "none")
        );
        Sidecar::start(&self.config(&routes, ledger_url))
    }

    /// A sidecar with two metered routes, the second to an upstream that streams.
    pub fn sidecar_with_streams(&self, upstream: &str, streams: &str) -> Sidecar {
        let routes = format!(
            "{}{}",
            route("/openai", upstream, "openai"),
            route("/streams", streams, "openai")
        );
        Sidecar::start(&self.config(&routes, None))
    }

    /// A sidecar that needs no tokenizer.
    pub fn sidecar_without_tokenizer(&self, upstream: &str) -> Sidecar {
        Sidecar::start(&self.config(&route("/none", upstream, "none"), None))
    }

    fn config(&self, routes: &str, ledger_url: Option<&str>) -> PathBuf {
        let Installation {
            store_url,
            prefix,
            ledger_url: own,
            ..
        } = &self.installation;
        let ledger_url = ledger_url.unwrap_or(own);
        // The time-out of the store is far above the default: at 32 connections everything here waits for two cores.
        let text = format!(
            r#"
            [listen]
            proxy = "127.0.0.1:0"
            control = "127.0.0.1:0"
            health = "127.0.0.1:0"
            [store]
            url = "{store_url}"
            prefix = "{prefix}"
            response_timeout_ms = 2000
            [ledger]
            url = "{ledger_url}"
            [log]
            level = "warn"
            {routes}"#
        );
        let path = self
            .directory
            .path()
            .join(format!("{}.toml", Uuid::now_v7()));
        std::fs::write(&path, text).expect("a file");
        path
    }
}

fn route(prefix: &str, upstream: &str, meter: &str) -> String {
    format!(
        r#"
        [[route]]
        prefix = "{prefix}"
        upstream = "{upstream}"
        meter = "{meter}"
        credential = {{ header = "authorization", value = "Bearer sk-the-routes-own" }}
        "#
    )
}
