//! `[trace]`: where spans of calls go.

use super::error::Problem;
use super::raw::RawTrace;

/// Where calls are traced to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TraceConfig {
    /// The base URL of an OpenTelemetry collector; `None`: no call has a span.
    pub otlp_url: Option<String>,
    /// Whether spans name the account.
    pub account: bool,
}

impl TraceConfig {
    pub(super) fn usable(raw: RawTrace) -> Result<Self, Problem> {
        if let Some(url) = &raw.otlp_url {
            let problem = |message: &str| Err(Problem::new("trace.otlp_url", message));
            if !cfg!(feature = "otlp") {
                return problem("this build has no tracing: build it with `--features otlp`");
            }
            let collector = url.parse::<http::Uri>().ok().filter(|uri| {
                let login = uri.authority().is_some_and(|at| at.as_str().contains('@'));
                matches!(uri.scheme_str(), Some("https" | "http"))
                    && uri.query().is_none()
                    && !login
            });
            if collector.is_none() {
                return problem(
                    "expected the address of a collector, as in http://127.0.0.1:4318, without a login: \
                     OTEL_EXPORTER_OTLP_HEADERS takes headers",
                );
            }
        }
        Ok(Self {
            otlp_url: raw.otlp_url,
            account: raw.account.is_some_and(|account| account.0),
        })
    }
}
