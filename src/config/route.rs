//! Routes: which paths go where, under whose name, and what is charged for them.
//!
//! A setting that means nothing for a route's meter is an error, so that nobody believes in a limit that is not there.

use std::fmt;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Uri, uri};
use rust_decimal::Decimal;

use super::backends::{StoreConfig, StoreDown};
use super::error::Problem;
use super::raw::{RawCharge, RawCredential, RawRoute};
use super::{choice, number, time};
use crate::money::Nanos;
use crate::quota::Resource;

/// The paths that are the proxy's own.
const OWN_PREFIXES: [&str; 2] = ["/tollgate", "/llms.txt"];
const MAX_ROUTES: usize = 256;
const MAX_MARKUP_PERCENT: i64 = 10_000;
const MAX_TIMEOUT_MS: i64 = 86_400_000;

/// One route.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// What its paths begin with, and what is stripped; `/` for all. No slash at the end otherwise.
    pub prefix: String,
    /// Where the calls go.
    pub upstream: Upstream,
    /// How they are measured.
    pub meter: Meter,
    /// Whose prices are charged.
    pub provider: String,
    /// What takes the place of the caller's key; `None`: the call goes without one.
    pub credential: Option<Credential>,
    /// What happens to a model without a price.
    pub unpriced: Unpriced,
    /// What happens to its calls while the store is away.
    pub on_store_down: StoreDown,
    /// What happens to a path that the meter does not know.
    pub unknown_paths: UnknownPaths,
    /// The output that is held where the caller names no maximum, in tokens.
    pub assume_output_tokens: i64,
    /// The largest body of a call, in bytes.
    pub max_body_bytes: usize,
    /// This route's own markup, in place of the plan's and the catalogue's.
    pub markup_percent: Option<Decimal>,
    /// How long a connection to the upstream may take.
    pub connect_timeout: Duration,
    /// How long the upstream may take to begin its answer.
    pub first_byte_timeout: Duration,
    /// How long a body or an answer may pause.
    pub idle_timeout: Duration,
    /// How long the body of a call may take as a whole.
    pub body_timeout: Duration,
}

/// Where a route's calls go.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    scheme: Scheme,
    authority: Authority,
    /// What paths begin with there; no slash at the end.
    base: String,
}

/// How a route's calls are measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meter {
    /// By the tokens that OpenAI's answers report.
    OpenAi,
    /// The same for each call.
    Flat(Charge),
    /// Not at all: they are forwarded for a key's holder, free of charge.
    None,
}

/// What one call of a flat route costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// From the wallet.
    pub credits: Nanos,
    /// One unit of this besides.
    pub resource: Option<Resource>,
}

/// What a call carries upstream in place of the caller's key. Its value is marked sensitive, so `Debug` hides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The header's name.
    pub header: HeaderName,
    /// The header's value.
    pub value: HeaderValue,
}

/// What happens to a model without a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpriced {
    /// It is refused.
    Refuse,
    /// It is metered and recorded, and charged nothing.
    Free,
}

/// What happens to a path that the meter does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownPaths {
    /// It is refused.
    Refuse,
    /// It is forwarded and charged nothing.
    Free,
}

impl Route {
    /// What is left of a path of this route; `None` where the path is not one. `/openai` is no prefix of `/openaix`.
    pub fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        if self.prefix == "/" {
            return path.starts_with('/').then_some(path);
        }
        let rest = path.strip_prefix(self.prefix.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then_some(rest)
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.base)
    }
}

impl Upstream {
    /// The address of a call there: `rest` is the path after the route's prefix.
    ///
    /// `None` where rest and query do not make a path.
    pub fn uri(&self, rest: &str, query: Option<&str>) -> Option<Uri> {
        let mut path = format!("{}{rest}", self.base);
        if path.is_empty() {
            path.push('/');
        }
        if let Some(query) = query {
            path.push('?');
            path.push_str(query);
        }
        let mut parts = uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
        Uri::from_parts(parts).ok()
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        let expected = "expected an address that begins with http:// or https://";
        let uri: Uri = text.parse().map_err(|_| expected)?;
        if text.contains(['?', '#']) {
            return Err("an upstream has no query and no fragment");
        }
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(expected);
        };
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(expected);
        }
        if authority.as_str().contains('@') {
            return Err("an upstream has no user name; use `credential`");
        }
        let path = parts.path_and_query;
        let base = path.as_ref().map_or("", |path| path.path());
        Ok(Self {
            scheme,
            authority,
            base: base.trim_end_matches('/').to_owned(),
        })
    }
}

/// All routes, the longest prefix first.
pub(super) fn all(raw: Vec<RawRoute>, store: &StoreConfig) -> Result<Vec<Route>, Problem> {
    if raw.len() > MAX_ROUTES {
        let message = format!("there are more than {MAX_ROUTES} routes");
        return Err(Problem::new("route", message));
    }
    let mut routes: Vec<Route> = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let key = format!("route[{index}]");
        let route = usable(&key, raw, store)?;
        if routes.iter().any(|other| other.prefix == route.prefix) {
            let message = "an earlier route has the same prefix";
            return Err(Problem::new(format!("{key}.prefix"), message));
        }
        routes.push(route);
    }
    routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
    Ok(routes)
}

fn usable(key: &str, raw: RawRoute, store: &StoreConfig) -> Result<Route, Problem> {
    let at = |name: &str| format!("{key}.{name}");
    let meter = meter(key, &raw)?;
    refuse_meaningless(key, &meter, &raw)?;
    choice(
        &at("on_short"),
        raw.on_short.as_deref(),
        "refuse",
        &[("refuse", ())],
        &["clamp"],
    )?;
    let unpriced = [("refuse", Unpriced::Refuse), ("free", Unpriced::Free)];
    let paths = [
        ("refuse", UnknownPaths::Refuse),
        ("free", UnknownPaths::Free),
    ];
    let max_body_bytes = number(
        &at("max_body_bytes"),
        raw.max_body_bytes,
        10_485_760,
        1..=1_073_741_824,
    )?;
    let timeout = |name: &str, typed, default| {
        let ms = Duration::from_millis(1);
        time(&at(name), typed, default, 1..=MAX_TIMEOUT_MS, ms)
    };
    Ok(Route {
        prefix: prefix(&at("prefix"), raw.prefix)?,
        upstream: Upstream::read(&raw.upstream)
            .map_err(|message| Problem::new(at("upstream"), message))?,
        unpriced: choice(
            &at("unpriced"),
            raw.unpriced.as_deref(),
            "refuse",
            &unpriced,
            &[],
        )?,
        on_store_down: StoreDown::of_route(
            key,
            raw.on_store_down.as_deref(),
            raw.bounded_credits.as_deref(),
            store,
        )?,
        unknown_paths: choice(
            &at("unknown_paths"),
            raw.unknown_paths.as_deref(),
            "refuse",
            &paths,
            &[],
        )?,
        assume_output_tokens: number(
            &at("assume_output_tokens"),
            raw.assume_output_tokens,
            4096,
            1..=10_000_000,
        )?,
        max_body_bytes: usize::try_from(max_body_bytes).expect("the bound is within usize"),
        markup_percent: markup(&at("markup_percent"), raw.markup_percent)?,
        connect_timeout: timeout("connect_timeout_ms", raw.connect_timeout_ms, 5_000)?,
        first_byte_timeout: timeout("first_byte_timeout_ms", raw.first_byte_timeout_ms, 120_000)?,
        idle_timeout: timeout("idle_timeout_ms", raw.idle_timeout_ms, 60_000)?,
        body_timeout: timeout("body_timeout_ms", raw.body_timeout_ms, 120_000)?,
        credential: raw
            .credential
            .map(|raw| credential(key, &raw))
            .transpose()?,
        provider: provider(&at("provider"), raw.provider.unwrap_or(raw.meter))?,
        meter,
    })
}

fn meter(key: &str, raw: &RawRoute) -> Result<Meter, Problem> {
    #[derive(Clone, Copy)]
    enum Kind {
        OpenAi,
        Flat,
        None,
    }
    let built = [
        ("openai", Kind::OpenAi),
        ("flat", Kind::Flat),
        ("none", Kind::None),
    ];
    let later = ["anthropic", "gemini", "mcp"];
    let name = format!("{key}.meter");
    match (
        choice(&name, Some(&raw.meter), "", &built, &later)?,
        &raw.charge,
    ) {
        (Kind::OpenAi, _) => Ok(Meter::OpenAi),
        (Kind::None, _) => Ok(Meter::None),
        (Kind::Flat, Some(raw)) => Ok(Meter::Flat(charge(key, raw)?)),
        (Kind::Flat, None) => {
            let message = "`flat` needs `charge`, as in { credits = \"0.005\" }";
            Err(Problem::new(name, message))
        }
    }
}

/// Refuses what would be ignored.
fn refuse_meaningless(key: &str, meter: &Meter, raw: &RawRoute) -> Result<(), Problem> {
    let by_tokens = matches!(meter, Meter::OpenAi);
    let by_call = matches!(meter, Meter::Flat(_));
    let settings = [
        ("charge", raw.charge.is_some(), by_call),
        ("on_short", raw.on_short.is_some(), by_tokens || by_call),
        ("unpriced", raw.unpriced.is_some(), by_tokens),
        ("unknown_paths", raw.unknown_paths.is_some(), by_tokens),
        ("markup_percent", raw.markup_percent.is_some(), by_tokens),
        (
            "assume_output_tokens",
            raw.assume_output_tokens.is_some(),
            by_tokens,
        ),
    ];
    match settings.iter().find(|(_, typed, means)| *typed && !means) {
        Some((name, _, _)) => {
            let message = format!("this means nothing with the meter `{}`", raw.meter);
            Err(Problem::new(format!("{key}.{name}"), message))
        }
        None => Ok(()),
    }
}

fn prefix(key: &str, prefix: String) -> Result<String, Problem> {
    let problem = |message: &str| Err(Problem::new(key, message));
    if !prefix.starts_with('/') {
        return problem("a prefix begins with a slash");
    }
    if prefix == "/" {
        return Ok(prefix);
    }
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'~' | b'@' | b':');
    let proper = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(allowed);
    if !prefix[1..].split('/').all(proper) {
        return problem("expected a plain path as in /openai, without a slash at the end");
    }
    let own = |own: &&str| prefix == **own || prefix.starts_with(&format!("{own}/"));
    if OWN_PREFIXES.iter().any(own) {
        return problem("these paths are the proxy's own");
    }
    Ok(prefix)
}

fn provider(key: &str, provider: String) -> Result<String, Problem> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if provider.is_empty() || provider.len() > 64 || !provider.bytes().all(allowed) {
        let message = "expected 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`";
        return Err(Problem::new(key, message));
    }
    Ok(provider)
}

fn credential(key: &str, raw: &RawCredential) -> Result<Credential, Problem> {
    let problem =
        |name: &str, message: &str| Problem::new(format!("{key}.credential.{name}"), message);
    let header = HeaderName::try_from(raw.header.as_str())
        .map_err(|_| problem("header", "expected the name of a header"))?;
    let framing = [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
    ];
    if framing.contains(&header) {
        return Err(problem("header", "this header belongs to the connection"));
    }
    let unusable = "expected the value of a header: visible characters, not empty";
    if raw.value.trim().is_empty() {
        return Err(problem("value", unusable));
    }
    let mut value =
        HeaderValue::try_from(raw.value.as_str()).map_err(|_| problem("value", unusable))?;
    value.set_sensitive(true);
    Ok(Credential { header, value })
}

fn charge(key: &str, raw: &RawCharge) -> Result<Charge, Problem> {
    let problem =
        |name: &str, message: String| Problem::new(format!("{key}.charge.{name}"), message);
    let credits = Nanos::from_credits(&raw.credits)
        .ok()
        .filter(|credits| *credits >= Nanos::ZERO)
        .ok_or_else(|| {
            let message = "expected credits from \"0\" to \"9000000\", with nine decimals at most";
            problem("credits", message.to_owned())
        })?;
    let resource: Option<Resource> = raw
        .resource
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|_| problem("resource", "use 1 to 64 of a-z, 0-9 and _".to_owned()))?;
    match resource {
        Some(Resource::Requests | Resource::Spend) => {
            let message = "every call counts as a request and as its spend by itself";
            Err(problem("resource", message.to_owned()))
        }
        resource => Ok(Charge { credits, resource }),
    }
}

fn markup(key: &str, typed: Option<String>) -> Result<Option<Decimal>, Problem> {
    let Some(typed) = typed else {
        return Ok(None);
    };
    let bounds = Decimal::ZERO..=Decimal::from(MAX_MARKUP_PERCENT);
    let percent = typed.trim().parse().ok();
    let percent = percent.filter(|percent| bounds.contains(percent));
    let message = format!("expected a decimal from \"0\" to \"{MAX_MARKUP_PERCENT}\"");
    percent.map(Some).ok_or_else(|| Problem::new(key, message))
}
