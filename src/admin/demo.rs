//! `demo`: everything in one process and in memory, with calls that are ready to paste.
//!
//! Its account, its key and its credit are made as an operator would make them; its upstream costs nothing.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::failure::Failure;
use super::output::Output;
use super::secret::KeySecret;
use super::serve::told_to_stop;
use crate::clock::Clock;
use crate::config::Config;
use crate::ledger::{AnyLedger, MemoryLedger, NewGrant, Prices};
use crate::mock::{self, Mock};
use crate::money::{Amount, Nanos};
use crate::proxy::{self, Addresses, Listeners, Operator};
use crate::quota::embedded::EmbeddedStore;
use crate::quota::{AccountId, AnyStore, Limit, Mode, Snapshot, Status, Version};

const ACCOUNT: &str = "demo";
const CREDITS: Nanos = Nanos(10_000_000_000);
const SHARDS: u16 = 1;
const LIMITS: [(&str, i64); 2] = [
    ("account/requests/day", 10_000),
    ("account/tokens/month", 5_000_000),
];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where callers reach it; port 0 chooses one.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// End by itself after so long.
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
}

/// What a demo stands on, before anybody is answered.
struct Demo {
    config: Config,
    ledger: MemoryLedger,
    store: EmbeddedStore,
    account: AccountId,
    secret: KeySecret,
}

pub(super) async fn run(arguments: Arguments, output: &Output) -> Result<(), Failure> {
    let upstream = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(Failure::Process)?;
    let address = upstream.local_addr().map_err(Failure::Process)?;
    let mock = mock::serve(upstream, Mock::new(), pending());
    let Demo {
        config,
        ledger,
        store,
        account,
        secret,
    } = Demo::set_up(arguments.listen, address).await?;
    let told = told_to_stop()?;
    let end = async {
        match arguments.seconds {
            Some(seconds) => {
                let _ = timeout(Duration::from_secs(seconds), told).await;
            }
            None => told.await,
        }
    };
    let announce = |addresses: &Addresses| {
        let key = secret.expose();
        let mut value = json!(addresses);
        value["account"] = json!(account);
        value["key"] = json!(key);
        // If nobody reads what is said any more, calls are served all the same.
        let _ = output.answer(&value, &ready_to_paste(addresses, &account, key));
    };
    let store = Arc::new(AnyStore::Embedded(store));
    let ledger = Arc::new(AnyLedger::Memory(ledger));
    let upstream = tokio::spawn(mock);
    let listeners = Listeners::open(&config).await?;
    let backends = (store, ledger);
    let operator = Operator::default();
    let served = proxy::serve(
        config,
        listeners,
        backends,
        Clock::System,
        operator,
        announce,
        end,
    );
    let served = served.await;
    upstream.abort();
    Ok(served?)
}

impl Demo {
    async fn set_up(listen: SocketAddr, upstream: SocketAddr) -> Result<Self, Failure> {
        let config = Config::demo(&format!(
            r#"
            [listen]
            proxy = "{listen}"
            control = "127.0.0.1:0"
            health = "127.0.0.1:0"

            [[route]]
            prefix = "/openai"
            upstream = "http://{upstream}"
            meter = "openai"
            "#
        ))?;
        let prices = Prices {
            version: 1,
            entries: crate::price::seed(),
            markup_percent: Decimal::ZERO,
        };
        let ledger = MemoryLedger::new(SHARDS, prices);
        let account: AccountId = ACCOUNT.parse().expect("it is an account id");
        let secret = KeySecret::generate();
        ledger.create_account(snapshot(&account)).await;
        ledger.create_key(&account, secret.hash()).await;
        let grant = NewGrant {
            amount: CREDITS,
            priority: 0,
            promotional: true,
            effective_at: Clock::System.now(),
            expires_at: None,
        };
        ledger.grant(&account, &grant).await?;
        Ok(Self {
            store: EmbeddedStore::in_memory(SHARDS, config.store.outbox_bound, Clock::System),
            config,
            ledger,
            account,
            secret,
        })
    }
}

fn snapshot(account: &AccountId) -> Snapshot {
    let limit = |(key, limit): (&str, i64)| Limit {
        key: key.parse().expect("it is a counter's name"),
        limit: Amount(limit),
    };
    Snapshot {
        account: account.clone(),
        version: Version(1),
        keys_version: 1,
        plan: None,
        mode: Mode::Enforce,
        status: Status::Active,
        anchor_at: None,
        limits: LIMITS.into_iter().map(limit).collect(),
        overage: Nanos::ZERO,
        markup_percent: None,
        throttle: None,
    }
}

fn ready_to_paste(addresses: &Addresses, account: &AccountId, key: &str) -> String {
    let Addresses { proxy, health, .. } = addresses;
    format!(
        r#"Tollgate listens on {proxy}. Account `{account}` has {CREDITS} credits.
All of it is in memory, and the upstream is a mock that costs nothing: when this ends, it is gone. Ctrl-C ends it.

A call; x-tollgate-charge is what it cost, x-tollgate-balance what is left:
  curl -i {proxy}/openai/v1/chat/completions \
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \
    -d '{{"model": "gpt-4o-mini", "max_tokens": 50, "messages": [{{"role": "user", "content": "Hello"}}]}}'

A call that does not fit, and is told what would:
  curl -i {proxy}/openai/v1/chat/completions \
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \
    -d '{{"model": "gpt-4o-mini", "max_tokens": 9000000, "messages": [{{"role": "user", "content": "Hello"}}]}}'

A stream:
  curl -N {proxy}/openai/v1/chat/completions \
    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \
    -d '{{"model": "gpt-4o-mini", "max_tokens": 50, "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}'

From Python, with `pip install openai`:
  from openai import OpenAI
  client = OpenAI(base_url="{proxy}/openai/v1", api_key="{key}")
  print(client.chat.completions.create(
      model="gpt-4o-mini", max_tokens=50, messages=[{{"role": "user", "content": "Hello"}}]
  ).choices[0].message.content)

Whether it is ready, and its metrics:
  curl {health}/readyz
  curl {health}/metrics
"#
    )
}
