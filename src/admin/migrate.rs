//! `migrate`: the ledger's schema, its shards, and the prices the program brings along.

use clap::value_parser;
use serde_json::json;

use super::failure::Failure;
use super::output::Output;
use super::place::Place;
use crate::price::seed;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Into how many slices the accounts are cut, for ever; counts the first time only [default: 64].
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=16384))]
    pub(super) shards: Option<u16>,
}

pub(super) async fn run(
    place: &Place,
    arguments: &Arguments,
    output: &Output,
) -> Result<(), Failure> {
    let (installation, version) = place.migrate(arguments.shards).await?;
    let admin = place.admin().await?;
    let prices = admin.seed_prices(&seed()).await?;
    let value = json!({
        "installation": installation.id,
        "schema": version,
        "shards": installation.shards,
        "prices_added": prices.added.len(),
        "prices_retired": prices.retired.len(),
    });
    let text = format!(
        "The ledger is at schema {version}: installation {}, {} shards.\nPrices: {} added, {} retired.",
        installation.id,
        installation.shards,
        prices.added.len(),
        prices.retired.len(),
    );
    output.answer(&value, &text)
}
