//! Prices: dated, tiered, matched by provider and model; from usage to cost, exactly.
//!
//! The rules are those of pydantic/genai-prices, whose data is the seed: [`book`] finds the price, [`cost`] applies it,
//! [`charge`] turns it into credits, once rounded.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;

mod book;
mod charge;
mod cost;
mod matcher;
mod seed;

pub use book::PriceBook;
pub use charge::{Charge, charge};
pub use cost::{Cost, MissingPart};
pub use seed::{SeedError, read_seed, seed};

/// Why prices cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// A match rule is no regular expression, or too large a one.
    #[error("the price of `{model}` at `{provider}` has an unusable match rule: {reason}")]
    Match {
        /// Whose model.
        provider: String,
        /// Which.
        model: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// One dated price of one model, as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PriceEntry {
    /// The ledger's number; usage records name it as `price_id`. Zero until it is stored.
    #[serde(default)]
    pub id: i64,
    /// Whose model.
    pub provider: String,
    /// The model's own name in the catalogue.
    pub model: String,
    /// Where it comes from; the catalogue wins over the seed.
    pub source: PriceSource,
    /// Which names of models it is for.
    pub matches: ModelMatch,
    /// The most tokens of input and output together, where known.
    pub context_window: Option<i64>,
    /// From when on; `None`: ever since.
    pub from: Option<UnixMs>,
    /// Only at this time of each day, in seconds of the UTC day, half-open, wrapping over midnight.
    pub daily: Option<(u32, u32)>,
    /// USD.
    pub rates: Rates,
}

/// Where a price comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PriceSource {
    /// Shipped with the program.
    Seed,
    /// The operator's `[[price]]`.
    Catalog,
}

/// Which names of models a price is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelMatch {
    /// This name.
    Equals(String),
    /// Names that begin so.
    StartsWith(String),
    /// Names that end so.
    EndsWith(String),
    /// Names with this in them.
    Contains(String),
    /// Names in which this regular expression is found.
    Regex(String),
    /// Any of these.
    Or(Vec<ModelMatch>),
    /// All of these.
    And(Vec<ModelMatch>),
}

/// USD per million tokens of each part; `None`: the price has no such part.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Input tokens that are nothing more special.
    pub input: Option<Rate>,
    /// Output tokens.
    pub output: Option<Rate>,
    /// Input tokens read from a cache.
    pub cache_read: Option<Rate>,
    /// Input tokens written to a cache.
    pub cache_write: Option<Rate>,
    /// Audio among the input.
    pub input_audio: Option<Rate>,
    /// Audio among the output.
    pub output_audio: Option<Rate>,
    /// Audio among what was read from a cache.
    pub cache_audio_read: Option<Rate>,
    /// USD per thousand calls.
    pub requests_k: Option<Decimal>,
}

/// A price, and what it becomes for the whole call once its input passes a tier's start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Below the first tier.
    pub base: Decimal,
    /// (more input tokens than this, price), ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<(i64, Decimal)>,
}
