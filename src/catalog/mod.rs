//! The catalogue an operator writes: plans, prices, markup.
//!
//! It decides what customers pay, so nothing in it is skipped: a key that is unknown, or known and not built yet, is an
//! error that names the key and its line.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::price::PriceEntry;
use crate::quota::{Limit, Throttle};

mod parse;
mod value;

/// What is wrong with a catalogue, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, `{key}`: {problem}")]
pub struct CatalogError {
    /// Counted from one.
    pub line: usize,
    /// The path of the key: `plan[0].quotas[1].limit`; a dot where it is the whole text.
    pub key: String,
    /// In words.
    pub problem: String,
}

/// A whole catalogue, read and validated.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Catalog {
    /// The plans, by key.
    pub plans: Vec<Plan>,
    /// The operator's prices, which win over the seeded ones.
    pub prices: Vec<PriceEntry>,
    /// What is added to the cost, in percent.
    pub markup_percent: Decimal,
}

/// What an account can be on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Its name for machines.
    pub key: String,
    /// Its name for people.
    pub name: String,
    /// In a sentence.
    #[serde(default)]
    pub description: String,
    /// What it costs; `None`: nothing.
    #[serde(default)]
    pub price: Option<PlanPrice>,
    /// One limit a counter, the lowest where the catalogue names several.
    #[serde(default)]
    pub quotas: Vec<Limit>,
    /// Its own markup, in place of the catalogue's.
    #[serde(default)]
    pub markup_percent: Option<Decimal>,
    /// Its own throttle, in place of the configuration's.
    #[serde(default)]
    pub throttle: Option<Throttle>,
}

/// What a plan costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanPrice {
    /// In the currency's main unit.
    pub amount: Decimal,
    /// ISO 4217, in lower case.
    pub currency: String,
    /// `day`, `week`, `month` or `year`.
    pub interval: String,
    /// The price at Stripe that collects it.
    #[serde(default)]
    pub stripe_price: Option<String>,
}
