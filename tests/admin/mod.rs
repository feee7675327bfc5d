//! The commands, as an operator types them: the real program, against a private Postgres and a private Redis.

mod accounts;
mod catalogue;
mod credit;
mod customer;
mod exit_codes;
mod grants;
mod keys;
mod migrate;
mod quarantine;
mod tampered;
mod verify;

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tollgate::quota::AccountId;
use uuid::Uuid;

use crate::harness::postgres::database;
use crate::harness::redis::server;

/// An installation that no other test has, and the folder its configuration lies in.
pub struct Installation {
    pub folder: TempDir,
    pub database: String,
    pub redis: String,
    pub prefix: String,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Installation {
    /// Migrated, and with nothing in it.
    pub async fn new() -> Self {
        Self::over(database().await, server().url())
    }

    pub fn over(database: String, redis: String) -> Self {
        let installation = Self {
            folder: TempDir::new().unwrap(),
            database,
            redis,
            prefix: format!("test-{}", Uuid::now_v7()),
        };
        let (database, redis, prefix) = (
            &installation.database,
            &installation.redis,
            &installation.prefix,
        );
        let text = format!(
            "[store]\nurl = \"{redis}\"\nprefix = \"{prefix}\"\n[ledger]\nurl = \"{database}\"\n"
        );
        installation.file("tollgate.toml", &text);
        installation
    }

    /// Writes a file into the folder.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts a command in the folder.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(words).current_dir(self.folder.path());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Ran {
        Ran::from(self.command(words).output().unwrap())
    }

    /// Runs a command that succeeds, and returns what it said to people.
    pub fn says(&self, words: &[&str]) -> String {
        let ran = self.run(words);
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
        ran.stdout
    }

    /// Runs a command that succeeds, and returns the one value it said to machines.
    pub fn value(&self, words: &[&str]) -> Value {
        let mut values = self.values(words);
        assert_eq!(values.len(), 1, "{words:?}: {values:?}");
        values.remove(0)
    }

    /// Runs a command that succeeds, and returns all it said to machines.
    pub fn values(&self, words: &[&str]) -> Vec<Value> {
        let ran = self.run(&[words, &["--json"]].concat());
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
        ran.values()
    }

    /// A connection past the commands, to look behind them.
    pub async fn sql(&self) -> PgConnection {
        PgConnection::connect(&self.database).await.unwrap()
    }

    /// The one number that a query answers.
    pub async fn number(&self, query: &'static str) -> i64 {
        let mut sql = self.sql().await;
        sqlx::query_scalar(query).fetch_one(&mut sql).await.unwrap()
    }
}

impl Ran {
    pub fn values(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line} is no JSON")))
            .collect()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// An account's id that no other test has.
pub fn some_account() -> AccountId {
    format!("account-{}", Uuid::now_v7()).parse().unwrap()
}
