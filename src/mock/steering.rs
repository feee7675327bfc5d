//! What a request asks of the mock: `x-mock-…` headers, so that any client can steer it a call at a time.
//!
//! A header that is not understood is an error, or a test would prove something else than it says.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

const PREFIX: &str = "x-mock-";
const MAX_OUTPUT_TOKENS: u64 = 200_000;
const MAX_DELAY_MS: u64 = 600_000;

/// What to do.
#[derive(Debug, Clone, Default)]
pub(super) struct Steering {
    /// `x-mock-output-tokens`: exactly so many for each choice, whatever the maximum of the request.
    pub(super) output_tokens: Option<u64>,
    /// `x-mock-cached-tokens`: so many of the input are reported as read from a cache.
    pub(super) cached_tokens: u64,
    /// `x-mock-model`: the model that answers.
    pub(super) model: Option<String>,
    /// `x-mock-status`: refuse with this status.
    pub(super) status: Option<StatusCode>,
    /// `x-mock-retry-after`: seconds, on such a refusal.
    pub(super) retry_after: Option<u64>,
    /// `x-mock-delay-ms`: before the answer begins.
    pub(super) delay: Duration,
    /// `x-mock-chunk-delay-ms`: before each event of a stream.
    pub(super) chunk_delay: Duration,
    /// `x-mock-break-after-events`: break the connection then; an answer that is no stream breaks half-way.
    pub(super) break_after: Option<u64>,
    /// `x-mock-stall-after-events`: say nothing more from then on, but stay; no stream: half-way.
    pub(super) stall_after: Option<u64>,
    /// `x-mock-no-usage`: leave the usage out.
    pub(super) no_usage: bool,
}

impl Steering {
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, String> {
        let mut steering = Self::default();
        for (name, value) in headers {
            let Some(directive) = name.as_str().strip_prefix(PREFIX) else {
                continue;
            };
            let text = value.to_str().unwrap_or_default();
            steering
                .take(directive, text)
                .ok_or_else(|| format!("the mock does not understand `{name}`"))?;
        }
        Ok(steering)
    }

    fn take(&mut self, directive: &str, text: &str) -> Option<()> {
        let number = |most: u64| text.parse().ok().filter(|number: &u64| *number <= most);
        let time = || number(MAX_DELAY_MS).map(Duration::from_millis);
        match directive {
            "output-tokens" => self.output_tokens = Some(number(MAX_OUTPUT_TOKENS)?),
            "cached-tokens" => self.cached_tokens = number(u64::MAX)?,
            "model" => self.model = Some(text.to_owned()),
            "status" => self.status = Some(text.parse().ok()?),
            "retry-after" => self.retry_after = Some(number(u64::MAX)?),
            "delay-ms" => self.delay = time()?,
            "chunk-delay-ms" => self.chunk_delay = time()?,
            "break-after-events" => self.break_after = Some(number(u64::MAX)?),
            "stall-after-events" => self.stall_after = Some(number(u64::MAX)?),
            "no-usage" => self.no_usage = true,
            _ => return None,
        }
        Some(())
    }
}
