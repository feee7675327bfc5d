//! The configuration as it is typed: every key that is understood, and nothing about what it means.
//!
//! Unknown keys are errors. The defaults are where the values are made usable.

use std::fmt;

use serde::de::{self, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub(super) listen: RawListen,
    pub(super) store: RawStore,
    pub(super) ledger: RawLedger,
    pub(super) credit: RawCredit,
    pub(super) identify: RawIdentify,
    pub(super) throttle: RawThrottle,
    pub(super) shed: RawShed,
    pub(super) refusal: RawRefusal,
    pub(super) log: RawLog,
    pub(super) trace: RawTrace,
    pub(super) route: Vec<RawRoute>,
    pub(super) companion: Option<IgnoredAny>,
    pub(super) jwt: Option<IgnoredAny>,
    pub(super) stripe: Option<IgnoredAny>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawListen {
    pub(super) proxy: Option<String>,
    pub(super) control: Option<String>,
    pub(super) health: Option<String>,
    pub(super) control_token: Option<String>,
    pub(super) threads: Option<Whole>,
    pub(super) drain_s: Option<Whole>,
    pub(super) write_timeout_s: Option<Whole>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawStore {
    pub(super) url: Option<String>,
    pub(super) prefix: Option<String>,
    pub(super) deadline_s: Option<Whole>,
    pub(super) max_age_s: Option<Whole>,
    pub(super) response_timeout_ms: Option<Whole>,
    pub(super) connections: Option<Whole>,
    pub(super) outbox_bound: Option<Whole>,
    pub(super) sweep_interval_ms: Option<Whole>,
    pub(super) on_store_down: Option<String>,
    pub(super) bounded_credits: Option<String>,
    pub(super) bounded_journal: Option<String>,
    pub(super) durability: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLedger {
    pub(super) url: Option<String>,
    pub(super) audit_interval_s: Option<Whole>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCredit {
    pub(super) usd: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawIdentify {
    pub(super) trust_header: Option<Switch>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawThrottle {
    pub(super) account: Option<RawBurst>,
    pub(super) key: Option<RawBurst>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBurst {
    pub(super) per_second: Whole,
    pub(super) burst: Whole,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawShed {
    pub(super) max_in_flight: Option<Whole>,
    pub(super) max_buffered_bytes: Option<Whole>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRefusal {
    pub(super) exhausted_status: Option<Whole>,
    pub(super) upgrade_url: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub(super) format: Option<String>,
    pub(super) level: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTrace {
    pub(super) otlp_url: Option<String>,
    pub(super) account: Option<Switch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRoute {
    pub(super) prefix: String,
    pub(super) upstream: String,
    pub(super) meter: String,
    pub(super) provider: Option<String>,
    pub(super) credential: Option<RawCredential>,
    pub(super) charge: Option<RawCharge>,
    pub(super) unpriced: Option<String>,
    pub(super) on_short: Option<String>,
    pub(super) on_store_down: Option<String>,
    pub(super) bounded_credits: Option<String>,
    pub(super) unknown_paths: Option<String>,
    pub(super) assume_output_tokens: Option<Whole>,
    pub(super) markup_percent: Option<String>,
    pub(super) max_body_bytes: Option<Whole>,
    pub(super) connect_timeout_ms: Option<Whole>,
    pub(super) first_byte_timeout_ms: Option<Whole>,
    pub(super) idle_timeout_ms: Option<Whole>,
    pub(super) body_timeout_ms: Option<Whole>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCredential {
    pub(super) header: String,
    pub(super) value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCharge {
    pub(super) credits: String,
    pub(super) resource: Option<String>,
}

/// A whole number, or one in quotes: what comes from the environment is always text.
#[derive(Clone, Copy)]
pub(super) struct Whole(pub(super) i64);

/// `true` or `false`, or one of them in quotes.
#[derive(Clone, Copy)]
pub(super) struct Switch(pub(super) bool);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeVisitor;
        impl Visitor<'_> for WholeVisitor {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Whole, E> {
                Ok(Whole(number))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Whole, E> {
                let number = text.trim().parse();
                number
                    .map(Whole)
                    .map_err(|_| E::custom("expected a whole number"))
            }
        }
        deserializer.deserialize_any(WholeVisitor)
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SwitchVisitor;
        impl Visitor<'_> for SwitchVisitor {
            type Value = Switch;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false")
            }
            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Switch, E> {
                Ok(Switch(truth))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Switch, E> {
                let truth = text.trim().parse();
                truth
                    .map(Switch)
                    .map_err(|_| E::custom("expected true or false"))
            }
        }
        deserializer.deserialize_any(SwitchVisitor)
    }
}
