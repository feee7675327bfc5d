//! Where the live store and the ledger are, and the bounds on how they are used.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use redis::IntoConnectionInfo;
use sqlx::postgres::PgConnectOptions;

use super::error::Problem;
use super::raw::{RawLedger, RawStore};
use super::{Backends, Secret, choice, number, time};
use crate::ledger::sqlite::file::Durability;
use crate::money::Nanos;

/// Where the ledger is, where nothing is said about it.
const DEFAULT_LEDGER: &str = "tollgate.db";

/// The live store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Where it is.
    pub url: StoreUrl,
    /// What every key begins with, so that installations can share a server.
    pub prefix: String,
    /// How long a hold lives without a heartbeat, in milliseconds.
    pub deadline_ms: i64,
    /// How long a hold lives at the most, in milliseconds; never less than `deadline_ms`.
    pub max_age_ms: i64,
    /// How long one command may take before the store counts as away.
    pub response_timeout: Duration,
    /// How many connections there are to each server.
    pub connections: u16,
    /// How many entries of a shard's outbox may wait before reserve refuses (rule 14).
    pub outbox_bound: u64,
    /// How long one round over all shards takes that looks for overdue holds.
    pub sweep_interval: Duration,
    /// What the embedded store survives; Redis has its own settings for that.
    pub durability: Durability,
    /// What happens to calls while it is away, on routes that say nothing of it.
    pub on_store_down: StoreDown,
    /// The bound of routes that are bounded and name none.
    pub bounded_credits: Nanos,
    /// Where calls are written down that go on without it.
    pub bounded_journal: PathBuf,
}

/// What happens to calls while the store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreDown {
    /// They are refused at once.
    Refuse,
    /// They go on until an account has used so much on this sidecar; never zero.
    Bounded(Nanos),
}

/// Where the live store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// In this process, and gone with it: only `demo` has it, no file can ask for it.
    Memory,
    /// In this process, with its journal in the ledger's SQLite file.
    Embedded,
    /// One Redis or Valkey: a `redis://` or `rediss://` address.
    Redis(Secret),
    /// A Cluster: such an address of each node that is asked first.
    Cluster(Vec<Secret>),
}

/// The durable truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerConfig {
    /// Where it is.
    pub url: LedgerUrl,
    /// How long until the next few accounts are audited; `None`: never.
    pub audit_interval: Option<Duration>,
}

/// Where the ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerUrl {
    /// In this process, and gone with it: only `demo` has it, no file can ask for it.
    Memory,
    /// A SQLite file, which the embedded store shares.
    Sqlite(PathBuf),
    /// A `postgres://` address.
    Postgres(Secret),
}

impl StoreConfig {
    pub(super) fn usable(raw: RawStore, backends: Backends) -> Result<Self, Problem> {
        let (on_store_down, bounded_credits) = StoreDown::of_store(&raw)?;
        let deadline_s = number("store.deadline_s", raw.deadline_s, 60, 1..=3600)?;
        let max_age_s = number("store.max_age_s", raw.max_age_s, 3600, 1..=86_400)?;
        if max_age_s < deadline_s {
            let message = "a hold's greatest age cannot be less than `deadline_s`";
            return Err(Problem::new("store.max_age_s", message));
        }
        let connections = number("store.connections", raw.connections, 4, 1..=64)?;
        let outbox_bound = number(
            "store.outbox_bound",
            raw.outbox_bound,
            100_000,
            1..=100_000_000,
        )?;
        let ms = Duration::from_millis(1);
        let url = store_url(raw.url.as_deref().unwrap_or("embedded"), backends)?;
        let answers_in_ms = match url {
            StoreUrl::Redis(_) | StoreUrl::Cluster(_) => 50,
            // Its answers wait for a file.
            StoreUrl::Embedded | StoreUrl::Memory => 1000,
        };
        Ok(Self {
            url,
            prefix: prefix(raw.prefix)?,
            deadline_ms: deadline_s * 1000,
            max_age_ms: max_age_s * 1000,
            response_timeout: time(
                "store.response_timeout_ms",
                raw.response_timeout_ms,
                answers_in_ms,
                1..=60_000,
                ms,
            )?,
            connections: u16::try_from(connections).expect("the bound is within u16"),
            outbox_bound: outbox_bound.unsigned_abs(),
            sweep_interval: time(
                "store.sweep_interval_ms",
                raw.sweep_interval_ms,
                5_000,
                10..=600_000,
                ms,
            )?,
            durability: choice(
                "store.durability",
                raw.durability.as_deref(),
                "process",
                &[
                    ("process", Durability::Process),
                    ("power", Durability::Power),
                ],
                &[],
            )?,
            on_store_down,
            bounded_credits,
            bounded_journal: journal(raw.bounded_journal)?,
        })
    }
}

impl StoreDown {
    /// Of [store]: what routes do that say nothing of it.
    fn of_store(raw: &RawStore) -> Result<(Self, Nanos), Problem> {
        let credits = bounded_credits("store", raw.bounded_credits.as_deref())?;
        let credits = credits.unwrap_or_default();
        let down = Self::choose("store", raw.on_store_down.as_deref(), "refuse", credits)?;
        Ok((down, credits))
    }

    /// Of a route.
    pub(super) fn of_route(
        section: &str,
        on_store_down: Option<&str>,
        credits: Option<&str>,
        store: &StoreConfig,
    ) -> Result<Self, Problem> {
        let credits = bounded_credits(section, credits)?.unwrap_or(store.bounded_credits);
        let default = match store.on_store_down {
            Self::Refuse => "refuse",
            Self::Bounded(_) => "bounded",
        };
        Self::choose(section, on_store_down, default, credits)
    }

    // holds: 8, fail as configured
    fn choose(
        section: &str,
        typed: Option<&str>,
        default: &str,
        credits: Nanos,
    ) -> Result<Self, Problem> {
        let key = format!("{section}.on_store_down");
        let words = [
            ("refuse", Self::Refuse),
            ("bounded", Self::Bounded(credits)),
        ];
        let chosen = choice(&key, typed, default, &words, &[])?;
        if chosen == Self::Bounded(Nanos::ZERO) {
            let message = "`bounded` needs a bound: set `bounded_credits`, as in \"0.5\"";
            return Err(Problem::new(key, message));
        }
        Ok(chosen)
    }
}

fn bounded_credits(section: &str, typed: Option<&str>) -> Result<Option<Nanos>, Problem> {
    let Some(typed) = typed else {
        return Ok(None);
    };
    let credits = Nanos::from_credits(typed).ok();
    let credits = credits.filter(|credits| *credits >= Nanos::ZERO);
    let key = format!("{section}.bounded_credits");
    let message = "expected credits from \"0\" to \"9000000\", with nine decimals at most";
    credits.map(Some).ok_or_else(|| Problem::new(key, message))
}

fn journal(typed: Option<String>) -> Result<PathBuf, Problem> {
    let path = typed.unwrap_or_else(|| "tollgate-bounded.jsonl".to_owned());
    if path.is_empty() {
        return Err(Problem::new("store.bounded_journal", "expected a path"));
    }
    Ok(path.into())
}

fn prefix(typed: Option<String>) -> Result<String, Problem> {
    let prefix = typed.unwrap_or_else(|| "tollgate".to_owned());
    // A brace would move the hash tag that keeps a shard in one slot (rule 17).
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':');
    if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(allowed) {
        let message = "expected 1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `-` and `:`";
        return Err(Problem::new("store.prefix", message));
    }
    Ok(prefix)
}

fn store_url(url: &str, backends: Backends) -> Result<StoreUrl, Problem> {
    let problem = |message: &str| Problem::new("store.url", message);
    if url == "embedded" {
        return Ok(match backends {
            Backends::InMemory => StoreUrl::Memory,
            Backends::AsConfigured => StoreUrl::Embedded,
        });
    }
    let expected = "expected `embedded`, or an address that begins with redis://, rediss:// or redis+cluster://";
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(problem(expected));
    };
    let node = |node: String| {
        let usable = node.as_str().into_connection_info().is_ok();
        let secret = usable.then(|| Secret::from(node));
        secret.ok_or_else(|| problem("this is no usable Redis address"))
    };
    match scheme {
        "redis" | "rediss" => Ok(StoreUrl::Redis(node(url.to_owned())?)),
        "redis+cluster" | "rediss+cluster" => {
            let scheme = scheme.trim_end_matches("+cluster");
            // Name and password stand once, before the list of nodes, and count for each.
            let (login, nodes) = rest.rsplit_once('@').unwrap_or(("", rest));
            let login = match login {
                "" => String::new(),
                login => format!("{login}@"),
            };
            let nodes = nodes
                .trim_end_matches('/')
                .split(',')
                .map(|host| node(format!("{scheme}://{login}{host}")));
            Ok(StoreUrl::Cluster(nodes.collect::<Result<_, _>>()?))
        }
        _ => Err(problem(expected)),
    }
}

impl LedgerConfig {
    pub(super) fn usable(raw: RawLedger, backends: Backends) -> Result<Self, Problem> {
        let audit_interval = time(
            "ledger.audit_interval_s",
            raw.audit_interval_s,
            300,
            0..=86_400,
            Duration::from_secs(1),
        )?;
        let url = match (raw.url, backends) {
            (None, Backends::InMemory) => LedgerUrl::Memory,
            (None, Backends::AsConfigured) => LedgerUrl::Sqlite(DEFAULT_LEDGER.into()),
            (Some(url), _) => ledger_url(url)?,
        };
        Ok(Self {
            url,
            audit_interval: Some(audit_interval).filter(|interval| !interval.is_zero()),
        })
    }
}

fn ledger_url(url: String) -> Result<LedgerUrl, Problem> {
    let problem = |message: &str| Problem::new("ledger.url", message);
    if let Some(path) = url.strip_prefix("sqlite://") {
        // What follows a `?` would be options elsewhere; here there are none, and a file is not named like that.
        if path.is_empty() || path.contains('?') || path.contains(":memory:") {
            return Err(problem("expected the path of a file: sqlite://tollgate.db"));
        }
        return Ok(LedgerUrl::Sqlite(path.into()));
    }
    let postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
    if !postgres || PgConnectOptions::from_str(&url).is_err() {
        return Err(problem(
            "expected an address that begins with postgres:// or sqlite://",
        ));
    }
    Ok(LedgerUrl::Postgres(url.into()))
}

/// The embedded store's journal is in the ledger's file, so each of them has the other and nothing else (rule 28).
pub(super) fn belong_together(store: &StoreUrl, ledger: &LedgerUrl) -> Result<(), Problem> {
    match (store, ledger) {
        (StoreUrl::Embedded, LedgerUrl::Postgres(_)) => Err(Problem::new(
            "store.url",
            "`embedded` goes with a sqlite:// ledger alone: use redis:// with this ledger, or [ledger] url = \
             \"sqlite://tollgate.db\" with this store",
        )),
        (StoreUrl::Redis(_) | StoreUrl::Cluster(_), LedgerUrl::Sqlite(_)) => Err(Problem::new(
            "ledger.url",
            "sqlite:// goes with the embedded store alone: use postgres:// with this store, or [store] url = \
             \"embedded\" with this ledger",
        )),
        _ => Ok(()),
    }
}
