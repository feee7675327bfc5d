//! `apply`: a catalogue of plans, prices and markup, put into the ledger.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{Output, counted};
use super::place::Place;
use super::{arguments, catch_up};
use crate::catalog::{Catalog, Plan};
use crate::ledger::admin::Difference;
use crate::price::PriceEntry;
use crate::quota::{Burst, Limit, Throttle};

/// How often long work says how far it is.
const SAY_EACH: Duration = Duration::from_secs(2);

pub(super) const EXAMPLES: &str = "\
Look before you leap:
  tollgate apply catalog.toml --dry-run
  tollgate apply catalog.toml

A catalogue:
  [[plan]]
  key = \"project\"
  name = \"Project\"
  quotas = [{ resource = \"tokens\", window = \"month\", limit = 5_000_000 }]

  [markup]
  percent = \"20\"

A plan that is left out stays, with its accounts. A price that is left out is retired, and a markup is 0.
config/catalog.toml shows more.";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The catalogue, in TOML.
    pub(super) catalog: PathBuf,
    /// Print what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(
    place: &Place,
    arguments: &Arguments,
    text: &str,
    output: &Output,
) -> Result<(), Failure> {
    let file = arguments.catalog.display();
    let catalog =
        Catalog::parse(text).map_err(|error| Failure::Usage(format!("{file}: {error}")))?;
    let admin = place.admin().await?;
    if arguments.dry_run {
        let differences = admin.compare_catalog(&catalog).await?;
        return say(&differences, "would change", output);
    }
    say(&admin.write_catalog(&catalog).await?, "changed", output)?;

    let mut said_at = Instant::now();
    let followed = admin
        .move_accounts(|followed| {
            if said_at.elapsed() >= SAY_EACH {
                said_at = Instant::now();
                output.note(&followed_by(followed.accounts));
            }
        })
        .await?;
    let accounts = followed.accounts;
    if accounts == 0 {
        return Ok(());
    }
    let told = catch_up::shards(place, followed.shards).await;
    let value = json!({ "change": "followed", "accounts": accounts, "pending": told.is_pending() });
    output.answer(&value, &told.say(&followed_by(accounts)))
}

fn number_of(accounts: i64) -> String {
    format!(
        "{accounts} {}",
        if accounts == 1 { "account" } else { "accounts" }
    )
}

fn followed_by(accounts: usize) -> String {
    counted(
        accounts,
        "account follows its plan",
        "accounts follow their plans",
    )
}

fn say(differences: &[Difference], verb: &str, output: &Output) -> Result<(), Failure> {
    for difference in differences {
        output.answer(&value(difference), &line(difference))?;
    }
    let count = differences.iter().filter(|d| d.changes_something()).count();
    match count {
        0 => output.people(&format!("Nothing {verb}.")),
        1 => output.people(&format!("One thing {verb}.")),
        _ => output.people(&format!("{count} things {verb}.")),
    }
}

fn value(difference: &Difference) -> Value {
    match difference {
        Difference::PlanAdded(plan) => json!({ "plan": plan.key, "change": "added" }),
        Difference::PlanChanged {
            before,
            after,
            accounts,
        } => json!({
            "plan": after.key, "change": "changed", "accounts": accounts, "before": before, "after": after,
        }),
        Difference::PlanKept { key, accounts } => {
            json!({ "plan": key, "change": "kept", "accounts": accounts })
        }
        Difference::PriceAdded(price) => json!({ "price": price, "change": "added" }),
        Difference::PriceRetired(price) => json!({ "price": price, "change": "retired" }),
        Difference::PricesReordered => json!({ "prices": "reordered", "change": "changed" }),
        Difference::Markup { before, after } => {
            json!({ "markup_percent": after, "change": "changed", "before": before })
        }
    }
}

fn line(difference: &Difference) -> String {
    match difference {
        Difference::PlanAdded(plan) => {
            let quotas = plan.quotas.iter();
            let quotas = quotas.map(|quota| format!("{} {}", quota.key, limit(quota)));
            with_parts(format!("+ plan {}", plan.key), quotas)
        }
        Difference::PlanChanged {
            before,
            after,
            accounts,
        } => with_parts(
            format!("~ plan {}, with {} on it", after.key, number_of(*accounts)),
            plan_parts(before, after),
        ),
        Difference::PlanKept { key, accounts } => {
            format!(
                "= plan {key} is not in the catalogue; it stays, with {} on it",
                number_of(*accounts)
            )
        }
        Difference::PriceAdded(price) => format!("+ price {}", price_line(price)),
        Difference::PriceRetired(price) => format!("- price {}", price_line(price)),
        Difference::PricesReordered => "~ prices are in another order".into(),
        Difference::Markup { before, after } => format!("~ markup {before} % -> {after} %"),
    }
}

/// A line, and one under it for each of its parts.
fn with_parts(line: String, parts: impl IntoIterator<Item = String>) -> String {
    let lines: Vec<String> = [line].into_iter().chain(parts).collect();
    lines.join("\n    ")
}

/// The parts of a plan that read differently.
fn plan_parts(before: &Plan, after: &Plan) -> Vec<String> {
    let mut parts: BTreeMap<String, [String; 2]> = BTreeMap::new();
    for (side, plan) in [before, after].into_iter().enumerate() {
        let mut part = |name: String, value: String| parts.entry(name).or_default()[side] = value;
        part("name".into(), plan.name.clone());
        part("description".into(), plan.description.clone());
        if let Some(price) = &plan.price {
            let text = format!("{} {} a {}", price.amount, price.currency, price.interval);
            part("price".into(), text);
            part(
                "stripe_price".into(),
                price.stripe_price.clone().unwrap_or_default(),
            );
        }
        if let Some(markup) = plan.markup_percent {
            part("markup_percent".into(), markup.to_string());
        }
        if let Some(throttle) = plan.throttle {
            part("throttle".into(), throttled(throttle));
        }
        for quota in &plan.quotas {
            part(quota.key.to_string(), limit(quota));
        }
    }
    let differing = parts.iter().filter(|(_, [before, after])| before != after);
    let word = |text: &String| {
        if text.is_empty() {
            "none".into()
        } else {
            text.clone()
        }
    };
    differing
        .map(|(name, [before, after])| format!("{name}: {} -> {}", word(before), word(after)))
        .collect()
}

/// A throttle that names nothing is one all the same: the configuration's is off.
fn throttled(throttle: Throttle) -> String {
    let of = |whose: &str, burst: Option<Burst>| {
        burst.map_or_else(
            || format!("{whose} off"),
            |burst| {
                let Burst { per_second, burst } = burst;
                format!("{whose} {per_second} a second and {burst} at once")
            },
        )
    };
    [of("account", throttle.account), of("key", throttle.key)].join(", ")
}

fn limit(quota: &Limit) -> String {
    arguments::amount(&quota.key.resource, quota.limit)
}

fn price_line(price: &PriceEntry) -> String {
    let rate = |rate: &Option<crate::price::Rate>| {
        rate.as_ref()
            .map_or("-".into(), |rate| rate.base.to_string())
    };
    let from = price.from.map(arguments::shown);
    format!(
        "{}/{}: input {}, output {} USD a million tokens{}",
        price.provider,
        price.model,
        rate(&price.rates.input),
        rate(&price.rates.output),
        from.map_or_else(String::new, |from| format!(", from {from}")),
    )
}
