//! Refusals: every reason for which the proxy itself answers a call, and the status, code and headers each one gets.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::shortage::{Kind, Shortage, Violation};
use crate::clock::UnixMs;
use crate::config::{Meter, RefusalConfig};

/// Why the proxy answers in the upstream's place.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No key, or one that is unknown or revoked.
    #[error(
        "no valid API key: send a live key as `Authorization: Bearer <key>`, `x-api-key`, `api-key` or `x-goog-api-key`"
    )]
    InvalidKey,
    /// The account may not call.
    #[error("account `{0}` is suspended: ask whoever runs this service why")]
    Suspended(String),
    /// A path that this route does not meter.
    #[error(
        "`{0}` is not metered on this route, so it is not forwarded: see to the method and the spelling of the path"
    )]
    PathNotAllowed(String),
    /// It does not fit.
    #[error("{}", .0.message())]
    Short(Box<Shortage>),
    /// It comes too fast, or with too many others of its account.
    #[error("{}", .0.message)]
    TooMany(Box<TooMany>),
    /// This sidecar can take no more upon itself, whoever asks.
    #[error("{0}; try again in a moment")]
    Overloaded(&'static str),
    /// The estimate is above what the caller allows with `X-Tollgate-Max-Charge`.
    #[error(
        "this call may cost {estimate} credits, more than the {allowed} that X-Tollgate-Max-Charge allows"
    )]
    AboveMaxCharge {
        /// In credits.
        estimate: String,
        /// In credits.
        allowed: String,
    },
    /// The request makes no sense.
    #[error("{message}")]
    InvalidRequest {
        /// What is wrong with it.
        message: String,
        /// Where.
        param: Option<String>,
    },
    /// The body is beyond the route's bound.
    #[error("the body is larger than this route takes, which its `max_body_bytes` says")]
    BodyTooLarge,
    /// The caller broke it off.
    #[error("the body ended too early")]
    BodyCutShort,
    /// The caller takes too long over it.
    #[error(
        "the body came too slowly: it paused for longer than this route's `idle_timeout_ms`, or took longer than its \
         `body_timeout_ms`. What to do: send it faster, or have them raised"
    )]
    BodyTooSlow,
    /// The head leaves in doubt where the body ends.
    #[error(
        "the head of this call can be read in two ways: {0}. What to do: say it once and plainly"
    )]
    BadFraming(&'static str),
    /// No route has such a prefix.
    #[error(
        "no route is configured for this path: it must begin with the prefix of a route, as in /openai/v1"
    )]
    UnknownRoute,
    /// The model has no price.
    #[error(
        "model `{0}` has no price in the catalogue, so what it costs cannot be held: use another, or have its price added"
    )]
    ModelNotPriced(String),
    /// The store, or a cold account's ledger, is away.
    #[error("quota and credit cannot be checked right now: {0}")]
    QuotaUnavailable(&'static str),
    /// No connection.
    #[error("the upstream cannot be reached; nothing was charged")]
    UpstreamUnreachable,
    /// No answer in time.
    #[error("the upstream did not begin to answer in time; nothing was charged")]
    UpstreamTimeout,
}

/// More calls of an account than it may make now.
#[derive(Debug, Clone, PartialEq)]
pub struct TooMany {
    /// In words, with what to do.
    pub message: String,
    /// In numbers.
    pub violation: Violation,
    /// When the next one may be let through.
    pub retry_after: Duration,
}

/// What a route makes of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `{"error": {...}}`, as the OpenAI SDKs parse it.
    OpenAi,
    /// RFC 9457.
    Problem,
}

impl Shape {
    /// Of a route's refusals.
    pub fn of(meter: &Meter) -> Self {
        match meter {
            Meter::OpenAi => Self::OpenAi,
            Meter::Flat(_) | Meter::None => Self::Problem,
        }
    }
}

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const SHOWN_PATH_CHARS: usize = 200;
/// How soon a call in flight may have given back what it holds.
const IN_FLIGHT_RETRY: Duration = Duration::from_millis(250);
const AWAY_RETRY: Duration = Duration::from_secs(1);
/// SDKs that wait longer than this for a window to end do no one a service.
const LONGEST_SENSIBLE_WAIT: Duration = Duration::from_mins(1);

impl Refusal {
    /// Refuses a path, or a method and a path, shown as far as it may be of use.
    pub fn path_not_allowed(path: &str) -> Self {
        Self::PathNotAllowed(path.chars().take(SHOWN_PATH_CHARS).collect())
    }

    /// The code in the body: what programs look at, and the label of the refusals metric.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidKey => "invalid_api_key",
            Self::Suspended(_) => "account_suspended",
            Self::PathNotAllowed(_) => "path_not_allowed",
            Self::Short(shortage) => shortage.kind.code(),
            Self::TooMany(many) => many.violation.kind.code(),
            Self::Overloaded(_) => "overloaded",
            Self::AboveMaxCharge { .. } => "request_exceeds_budget",
            Self::InvalidRequest { .. } | Self::BodyCutShort | Self::BadFraming(_) => {
                "invalid_request"
            }
            Self::BodyTooSlow => "request_timeout",
            Self::BodyTooLarge => "request_too_large",
            Self::UnknownRoute => "unknown_route",
            Self::ModelNotPriced(_) => "model_not_priced",
            Self::QuotaUnavailable(_) => "quota_unavailable",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
        }
    }

    fn status(&self, settings: &RefusalConfig) -> StatusCode {
        match self {
            Self::InvalidKey => StatusCode::UNAUTHORIZED,
            Self::Suspended(_) | Self::PathNotAllowed(_) => StatusCode::FORBIDDEN,
            Self::Short(shortage) => match shortage.kind {
                Kind::Exhausted | Kind::TooBig => settings.exhausted_status,
                Kind::WindowExhausted | Kind::InFlight => StatusCode::TOO_MANY_REQUESTS,
            },
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::AboveMaxCharge { .. } => settings.exhausted_status,
            Self::InvalidRequest { .. }
            | Self::BodyCutShort
            | Self::BadFraming(_)
            | Self::ModelNotPriced(_) => StatusCode::BAD_REQUEST,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnknownRoute => StatusCode::NOT_FOUND,
            Self::QuotaUnavailable(_) | Self::Overloaded(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamUnreachable => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The type that OpenAI's own errors of this kind carry.
    fn openai_type(&self) -> &'static str {
        match self {
            Self::Short(shortage) => match shortage.kind {
                Kind::Exhausted | Kind::TooBig => "insufficient_quota",
                Kind::WindowExhausted | Kind::InFlight => "rate_limit_error",
            },
            Self::TooMany(_) => "rate_limit_error",
            Self::AboveMaxCharge { .. } => "insufficient_quota",
            Self::QuotaUnavailable(_)
            | Self::Overloaded(_)
            | Self::UpstreamUnreachable
            | Self::UpstreamTimeout => "server_error",
            _ => "invalid_request_error",
        }
    }

    fn violations(&self) -> &[Violation] {
        match self {
            Self::Short(shortage) => &shortage.violations,
            Self::TooMany(many) => std::slice::from_ref(&many.violation),
            _ => &[],
        }
    }

    fn max_tokens(&self) -> Option<i64> {
        match self {
            Self::Short(shortage) => shortage.max_tokens,
            _ => None,
        }
    }

    /// The answer to a call: where its body is still in the connection, that ends with it. A caller who is not told might
    /// send its next call into it, and take the loss for a failure that is worth a retry.
    pub fn answer(
        &self,
        shape: Shape,
        has_body: bool,
        settings: &RefusalConfig,
        now: UnixMs,
    ) -> Response<Bytes> {
        let mut response = self.response(shape, settings, now);
        if has_body && self.leaves_body_unread(shape) {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }

    /// Whether it is decided before the call's body is read; on routes that buffer none, every refusal is.
    fn leaves_body_unread(&self, shape: Shape) -> bool {
        shape == Shape::Problem
            || matches!(
                self,
                Self::InvalidKey
                    | Self::PathNotAllowed(_)
                    | Self::BodyTooLarge
                    | Self::BodyCutShort
                    | Self::BodyTooSlow
                    | Self::BadFraming(_)
                    | Self::UnknownRoute
                    | Self::TooMany(_)
                    | Self::Overloaded(_)
                    | Self::QuotaUnavailable(_)
            )
    }

    /// After what time trying again may help; `None` where it will not by itself.
    fn retry_after(&self, now: UnixMs) -> Option<Duration> {
        match self {
            Self::QuotaUnavailable(_) => Some(AWAY_RETRY),
            Self::TooMany(many) => Some(many.retry_after),
            Self::Overloaded(_) => Some(IN_FLIGHT_RETRY),
            Self::Short(shortage) => match shortage.kind {
                Kind::InFlight => Some(IN_FLIGHT_RETRY),
                Kind::WindowExhausted => {
                    let ms = shortage.resets_at()?.0.saturating_sub(now.0).max(0);
                    Some(Duration::from_millis(ms.unsigned_abs()))
                }
                Kind::Exhausted | Kind::TooBig => None,
            },
            _ => None,
        }
    }

    fn headers(&self, now: UnixMs) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let retry_after = self.retry_after(now);
        if let Some(after) = retry_after {
            let seconds = after.as_millis().div_ceil(1000).max(1);
            headers.insert(RETRY_AFTER, number(seconds));
            headers.insert(RETRY_AFTER_MS, number(after.as_millis()));
        }
        let never_by_itself = matches!(
            self,
            Self::Suspended(_) | Self::PathNotAllowed(_) | Self::AboveMaxCharge { .. }
        ) || matches!(self, Self::Short(shortage) if shortage.kind >= Kind::TooBig);
        if never_by_itself || retry_after.is_some_and(|after| after > LONGEST_SENSIBLE_WAIT) {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if *self == Self::InvalidKey {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        headers
    }

    /// The whole answer.
    pub fn response(&self, shape: Shape, settings: &RefusalConfig, now: UnixMs) -> Response<Bytes> {
        let status = self.status(settings);
        let numbers = Numbers {
            violations: self.violations(),
            max_tokens: self.max_tokens(),
            upgrade_url: settings.upgrade_url.as_deref(),
        };
        let (content_type, body) = match shape {
            Shape::OpenAi => ("application/json", self.openai_body(&numbers)),
            Shape::Problem => (
                "application/problem+json",
                self.problem_body(status, &numbers),
            ),
        };
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = status;
        *response.headers_mut() = self.headers(now);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }

    fn openai_body(&self, numbers: &Numbers) -> serde_json::Value {
        let param = match self {
            Self::InvalidRequest { param, .. } => param.as_deref(),
            Self::ModelNotPriced(_) => Some("model"),
            _ => None,
        };
        let mut error = json!({
            "message": self.to_string(),
            "type": self.openai_type(),
            "param": param,
            "code": self.code(),
        });
        numbers.add_to(&mut error);
        json!({ "error": error })
    }

    fn problem_body(&self, status: StatusCode, numbers: &Numbers) -> serde_json::Value {
        let mut problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            "detail": self.to_string(),
            "code": self.code(),
        });
        numbers.add_to(&mut problem);
        problem
    }
}

/// What every refusal carries beside its words.
#[derive(Serialize)]
struct Numbers<'a> {
    violations: &'a [Violation],
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<i64>,
    upgrade_url: Option<&'a str>,
}

impl Numbers<'_> {
    fn add_to(&self, body: &mut serde_json::Value) {
        let numbers = serde_json::to_value(self).expect("numbers and texts are always JSON");
        if let (Some(body), serde_json::Value::Object(numbers)) = (body.as_object_mut(), numbers) {
            body.extend(numbers);
        }
    }
}

fn number(value: u128) -> HeaderValue {
    HeaderValue::from_str(&value.to_string()).expect("digits are a header value")
}

impl From<Shortage> for Refusal {
    fn from(shortage: Shortage) -> Self {
        Self::Short(Box::new(shortage))
    }
}

impl From<TooMany> for Refusal {
    fn from(many: TooMany) -> Self {
        Self::TooMany(Box::new(many))
    }
}

impl Kind {
    /// The code in the body.
    pub fn code(self) -> &'static str {
        match self {
            Self::InFlight => "budget_in_flight",
            Self::WindowExhausted => "rate_limit_exceeded",
            Self::TooBig => "request_exceeds_budget",
            Self::Exhausted => "insufficient_quota",
        }
    }
}

impl Shortage {
    fn message(&self) -> String {
        let list = self.violations.iter().map(ToString::to_string);
        let limits = list.collect::<Vec<_>>().join("; ");
        let advice = match (self.kind, self.max_tokens) {
            (Kind::Exhausted, _) => self.way_out().to_owned(),
            (Kind::TooBig, Some(most)) => {
                format!("as it is it can never fit; with max_tokens of at most {most} it would")
            }
            (Kind::TooBig, None) => "as it is it can never fit; a smaller one would".to_owned(),
            (Kind::WindowExhausted, _) if self.exceeds_a_limit() => {
                "wait for the window to end and ask for less, or raise the limit".to_owned()
            }
            (Kind::WindowExhausted, _) => {
                "wait for the window to end, or raise the limit".to_owned()
            }
            (Kind::InFlight, _) => {
                "calls in flight hold the rest; try again when they have ended".to_owned()
            }
        };
        format!("this call does not fit: {limits}. What to do: {advice}")
    }
}
