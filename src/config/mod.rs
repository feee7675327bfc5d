//! The configuration: what the user typed, made usable once, at start.
//!
//! What is typed wrong, and what is not built yet, is an error that names the file, the key and the line; nothing is
//! ever ignored. `config/default.toml` shows every setting with its default.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use rust_decimal::Decimal;

use self::error::Problem;
use self::raw::{RawConfig, RawCredit, RawIdentify, RawLog, RawRefusal, Whole};
use self::source::Source;
use crate::quota::Throttle;

mod backends;
mod change;
mod error;
mod listen;
mod protect;
mod raw;
mod route;
mod secret;
mod source;
mod trace;

pub use backends::{LedgerConfig, LedgerUrl, StoreConfig, StoreDown, StoreUrl};
pub use change::Changes;
pub use error::ConfigError;
pub use listen::Listen;
pub use protect::{MAX_CONNECTIONS, Shed};
pub use route::{Charge, Credential, Meter, Route, UnknownPaths, Unpriced, Upstream};
pub use secret::Secret;
pub use source::Environment;
pub use trace::TraceConfig;

/// The file that is read where none is named.
pub const DEFAULT_FILE: &str = "tollgate.toml";

/// A usable configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
    /// Where the live balances are.
    pub store: StoreConfig,
    /// Where the durable truth is.
    pub ledger: LedgerConfig,
    /// What a credit is worth in USD; more than zero.
    pub credit_usd: Decimal,
    /// The routes, the longest prefix first: the first one that a path belongs to is the one it takes.
    pub routes: Vec<Route>,
    /// How fast the calls of an account and of a key may come, where its plan says nothing of it.
    pub throttle: Throttle,
    /// What a sidecar takes upon itself at once.
    pub shed: Shed,
    /// How refusals are worded.
    pub refusal: RefusalConfig,
    /// How the program speaks.
    pub log: LogConfig,
    /// Where calls are traced to.
    pub trace: TraceConfig,
}

/// What operators may choose about refusals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusalConfig {
    /// The status of an exhausted balance, `spend`, `overall` or `cumulative` limit: 402, or 429.
    pub exhausted_status: StatusCode,
    /// Where a customer can get more, which every refusal names.
    pub upgrade_url: Option<String>,
}

/// What is logged to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// In which form.
    pub format: LogFormat,
    /// From which level on. Other crates' messages begin at `warn`, because theirs may show requests.
    pub level: tracing::Level,
}

/// The form of a line of log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: an object a line.
    Json,
}

/// Which store and ledger the defaults mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backends {
    /// Where the configuration says; by default, embedded.
    AsConfigured,
    /// In memory, as `demo` has them.
    InMemory,
}

impl Config {
    /// Reads `file`, or [`DEFAULT_FILE`] where none is named, under this process's environment.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(file) = file.map(Path::to_owned).or_else(default_file) else {
            // Nothing is configured: every default holds, under what the environment says.
            let nothing = Path::new(DEFAULT_FILE);
            return Self::parse(nothing, "", &Environment::of_process());
        };
        let text = std::fs::read_to_string(&file).map_err(|error| ConfigError {
            file: Some(file.clone()),
            line: None,
            variable: None,
            key: None,
            message: format!("cannot be read: {error}"),
        })?;
        Self::parse(&file, &text, &Environment::of_process())
    }

    /// Reads a text; `file` is what errors call it.
    pub fn parse(file: &Path, text: &str, environment: &Environment) -> Result<Self, ConfigError> {
        Self::read(file, text, environment, Backends::AsConfigured)
    }

    /// Reads the text that `demo` brings along: the embedded default stands for memory, the environment for nothing.
    pub fn demo(text: &str) -> Result<Self, ConfigError> {
        let nothing = Environment::default();
        Self::read(Path::new("demo"), text, &nothing, Backends::InMemory)
    }

    fn read(
        file: &Path,
        text: &str,
        environment: &Environment,
        backends: Backends,
    ) -> Result<Self, ConfigError> {
        let source = Source::read(file, text, environment)?;
        let raw: RawConfig = source.parse()?;
        Self::usable(raw, backends).map_err(|problem| source.place(problem))
    }

    fn usable(raw: RawConfig, backends: Backends) -> Result<Self, Problem> {
        let later = [
            ("companion", raw.companion),
            ("jwt", raw.jwt),
            ("stripe", raw.stripe),
        ];
        if let Some((section, _)) = later.iter().find(|(_, typed)| typed.is_some()) {
            return Err(Problem::new(*section, "this section is not built yet"));
        }
        refuse_trust(&raw.identify)?;
        let store = StoreConfig::usable(raw.store, backends)?;
        let ledger = LedgerConfig::usable(raw.ledger, backends)?;
        backends::belong_together(&store.url, &ledger.url)?;
        let routes = route::all(raw.route, &store)?;
        Ok(Self {
            listen: Listen::usable(raw.listen)?,
            ledger,
            credit_usd: credit_usd(&raw.credit)?,
            throttle: protect::throttle(&raw.throttle)?,
            shed: Shed::usable(&raw.shed, &routes)?,
            routes,
            store,
            refusal: RefusalConfig::usable(raw.refusal)?,
            log: LogConfig::usable(&raw.log)?,
            trace: TraceConfig::usable(raw.trace)?,
        })
    }
}

fn default_file() -> Option<PathBuf> {
    let file = PathBuf::from(DEFAULT_FILE);
    file.exists().then_some(file)
}

fn refuse_trust(raw: &RawIdentify) -> Result<(), Problem> {
    if raw.trust_header.is_some_and(|trust| trust.0) {
        let message = "`true` is not built yet: the account comes from the caller's key";
        return Err(Problem::new("identify.trust_header", message));
    }
    Ok(())
}

fn credit_usd(raw: &RawCredit) -> Result<Decimal, Problem> {
    let usd = raw.usd.as_deref().unwrap_or("1").trim().parse();
    let positive = usd.ok().filter(|usd: &Decimal| *usd > Decimal::ZERO);
    positive.ok_or_else(|| Problem::new("credit.usd", "expected a decimal above zero, as in \"1\""))
}

impl RefusalConfig {
    fn usable(raw: RawRefusal) -> Result<Self, Problem> {
        let exhausted_status = match raw.exhausted_status {
            None | Some(Whole(402)) => StatusCode::PAYMENT_REQUIRED,
            Some(Whole(429)) => StatusCode::TOO_MANY_REQUESTS,
            Some(_) => {
                return Err(Problem::new(
                    "refusal.exhausted_status",
                    "expected 402 or 429",
                ));
            }
        };
        if let Some(url) = &raw.upgrade_url {
            let web = url.parse::<http::Uri>().ok().is_some_and(|uri| {
                matches!(uri.scheme_str(), Some("https" | "http")) && uri.host().is_some()
            });
            if !web {
                return Err(Problem::new(
                    "refusal.upgrade_url",
                    "expected an address that begins with https:// or http://",
                ));
            }
        }
        Ok(Self {
            exhausted_status,
            upgrade_url: raw.upgrade_url,
        })
    }
}

impl LogConfig {
    fn usable(raw: &RawLog) -> Result<Self, Problem> {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let levels = [
            ("error", tracing::Level::ERROR),
            ("warn", tracing::Level::WARN),
            ("info", tracing::Level::INFO),
            ("debug", tracing::Level::DEBUG),
            ("trace", tracing::Level::TRACE),
        ];
        Ok(Self {
            format: choice("log.format", raw.format.as_deref(), "text", &formats, &[])?,
            level: choice("log.level", raw.level.as_deref(), "info", &levels, &[])?,
        })
    }
}

/// Finds a word among those that are built; one that is not built yet is told apart from one that means nothing.
fn choice<T: Copy>(
    key: &str,
    typed: Option<&str>,
    default: &str,
    built: &[(&str, T)],
    later: &[&str],
) -> Result<T, Problem> {
    let typed = typed.unwrap_or(default);
    if let Some((_, found)) = built.iter().find(|(word, _)| *word == typed) {
        return Ok(*found);
    }
    let words: Vec<&str> = built.iter().map(|(word, _)| *word).collect();
    let words = words.join(", ");
    let message = match later.iter().find(|word| **word == typed) {
        Some(word) => format!("`{word}` is not built yet; use one of: {words}"),
        None => format!("expected one of: {words}"),
    };
    Err(Problem::new(key, message))
}

/// A whole number within its bounds.
fn number(
    key: &str,
    typed: Option<Whole>,
    default: i64,
    bounds: std::ops::RangeInclusive<i64>,
) -> Result<i64, Problem> {
    let number = typed.map_or(default, |typed| typed.0);
    if bounds.contains(&number) {
        return Ok(number);
    }
    let (least, most) = (bounds.start(), bounds.end());
    let message = format!("expected a number from {least} to {most}");
    Err(Problem::new(key, message))
}

/// The same as a time, where one of it lasts `unit`.
fn time(
    key: &str,
    typed: Option<Whole>,
    default: i64,
    bounds: std::ops::RangeInclusive<i64>,
    unit: Duration,
) -> Result<Duration, Problem> {
    let count = u32::try_from(number(key, typed, default, bounds)?);
    Ok(unit * count.expect("bounds of times are within u32"))
}

#[cfg(test)]
mod tests;
