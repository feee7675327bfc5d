//! The configuration that the tests' sidecars run under: a route for each thing a route can be.

use super::installation::{CREDENTIAL, SWEEP_MS, UPGRADE_URL};
use super::mock;
use super::upstream::scripted;

/// What a sidecar's configuration says beside where everything is.
#[derive(Debug, Clone)]
pub struct Settings {
    pub deadline_s: u32,
    pub drain_s: u32,
    pub response_timeout_ms: u32,
    pub log_level: &'static str,
    /// More lines of [store].
    pub store_more: String,
    /// More sections.
    pub more: String,
    /// Another way to the store than the installation's.
    pub store_url: Option<String>,
    /// Another way to the ledger.
    pub ledger_url: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            deadline_s: 60,
            drain_s: 20,
            // Far above the product's default, because the machine that runs the tests is busy with them.
            response_timeout_ms: 3000,
            log_level: "info",
            store_more: String::new(),
            more: String::new(),
            store_url: None,
            ledger_url: None,
        }
    }
}

const OPENAI: &str = "meter = \"openai\"";
const FLAT: &str = "meter = \"flat\"\ncharge = { credits = \"0.005\", resource = \"tool_calls\" }";
const NONE: &str = "meter = \"none\"";
/// A port that nobody listens on, and nobody is given: it is not a free one.
const NOBODY: &str = "http://127.0.0.1:1";

impl Settings {
    /// The whole file.
    pub fn text(&self, store_url: &str, prefix: &str, ledger_url: &str) -> String {
        let Self {
            deadline_s,
            drain_s,
            response_timeout_ms,
            log_level,
            store_more,
            more,
            ..
        } = self;
        let store_url = self.store_url.as_deref().unwrap_or(store_url);
        let ledger_url = self.ledger_url.as_deref().unwrap_or(ledger_url);
        let sections = format!(
            r#"
[listen]
proxy = "127.0.0.1:0"
control = "127.0.0.1:0"
health = "127.0.0.1:0"
drain_s = {drain_s}

[store]
url = "{store_url}"
prefix = "{prefix}"
deadline_s = {deadline_s}
sweep_interval_ms = {SWEEP_MS}
response_timeout_ms = {response_timeout_ms}
{store_more}

[ledger]
url = "{ledger_url}"

[refusal]
upgrade_url = "{UPGRADE_URL}"

[log]
level = "{log_level}"

{more}
"#
        );
        let routes = [
            route("/openai", mock::url(), OPENAI, ""),
            route("/scripted", scripted(), OPENAI, ""),
            route("/small", scripted(), OPENAI, "max_body_bytes = 1000"),
            route("/unpriced", scripted(), OPENAI, "unpriced = \"free\""),
            route("/open", scripted(), OPENAI, "unknown_paths = \"free\""),
            route("/brief", scripted(), OPENAI, "assume_output_tokens = 7"),
            route(
                "/impatient",
                scripted(),
                OPENAI,
                "first_byte_timeout_ms = 300\nidle_timeout_ms = 300",
            ),
            route("/brief-body", scripted(), OPENAI, "body_timeout_ms = 700"),
            route("/gone", NOBODY, OPENAI, ""),
            route("/flat", scripted(), FLAT, ""),
            route("/flat/small", scripted(), FLAT, "max_body_bytes = 1000"),
            route(
                "/flat/brief-body",
                scripted(),
                FLAT,
                "body_timeout_ms = 700",
            ),
            route("/flat/gone", NOBODY, FLAT, ""),
            route("/none", scripted(), NONE, ""),
        ];
        sections + &routes.concat()
    }
}

fn route(prefix: &str, upstream: &str, meter: &str, more: &str) -> String {
    format!(
        r#"
[[route]]
prefix = "{prefix}"
upstream = "{upstream}"
credential = {{ header = "authorization", value = "{CREDENTIAL}" }}
{meter}
{more}
"#
    )
}
