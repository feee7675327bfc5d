//! From TOML to a catalogue: what the operator typed is one type, what the program needs is another.

use std::collections::HashSet;
use std::ops::Range;

use rust_decimal::Decimal;
use serde::Deserialize;
use toml::Spanned;

use super::value::{
    Currency, From, Interval, Money, Name, Percent, PlanBurst, PlanKey, Quota, Unbuilt, UsdRate,
};
use super::{Catalog, CatalogError, Plan, PlanPrice};
use crate::price::{ModelMatch, PriceEntry, PriceSource, Rate, Rates};
use crate::quota::{Limit, MAX_LINES, Throttle};

/// The longest catalogue that is read.
const MAX_BYTES: usize = 8 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCatalog {
    #[serde(default)]
    plan: Vec<RawPlan>,
    #[serde(default)]
    price: Vec<Spanned<RawPrice>>,
    markup: Option<RawMarkup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMarkup {
    percent: Percent,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlan {
    key: Spanned<PlanKey>,
    name: Name,
    #[serde(default)]
    description: String,
    price: Option<RawPlanPrice>,
    #[serde(default)]
    quotas: Vec<Spanned<Quota>>,
    markup: Option<RawMarkup>,
    throttle: Option<RawThrottle>,
    #[expect(dead_code, reason = "it can have no value")]
    trial_days: Option<Unbuilt>,
    #[expect(dead_code, reason = "it can have no value")]
    priority: Option<Unbuilt>,
    #[expect(dead_code, reason = "it can have no value")]
    grants: Option<Unbuilt>,
    #[expect(dead_code, reason = "it can have no value")]
    features: Option<Unbuilt>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawThrottle {
    account: Option<PlanBurst>,
    key: Option<PlanBurst>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlanPrice {
    amount: Money,
    currency: Currency,
    interval: Interval,
    stripe_price: Option<Name>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPrice {
    provider: Name,
    model: Name,
    input: UsdRate,
    output: Option<UsdRate>,
    cache_read: Option<UsdRate>,
    cache_write: Option<UsdRate>,
    from: Option<From>,
    context_window: Option<u32>,
}

/// The text, to turn places in it into lines.
struct Source<'a>(&'a str);

impl Source<'_> {
    fn error(&self, at: Option<Range<usize>>, key: String, problem: String) -> CatalogError {
        let before = at.and_then(|at| self.0.get(..at.start)).unwrap_or("");
        CatalogError {
            line: 1 + before.bytes().filter(|byte| *byte == b'\n').count(),
            key,
            problem,
        }
    }
}

impl Catalog {
    /// Reads a whole catalogue, or says what is wrong with it and where.
    pub fn parse(text: &str) -> Result<Self, CatalogError> {
        let source = Source(text);
        if text.len() > MAX_BYTES {
            let problem = format!("is longer than {MAX_BYTES} bytes");
            return Err(source.error(None, ".".to_owned(), problem));
        }
        let raw = read(&source)?;
        Ok(Self {
            plans: plans(raw.plan, &source)?,
            prices: prices(raw.price, &source)?,
            markup_percent: raw.markup.map_or(Decimal::ZERO, |markup| markup.percent.0),
        })
    }
}

fn read(source: &Source<'_>) -> Result<RawCatalog, CatalogError> {
    let of_toml = |error: &toml::de::Error, key: String| {
        let message = error.message().replace("unknown field", "unknown key");
        let problem = message.split(", expected one of").next().unwrap_or("");
        source.error(error.span(), key, problem.to_owned())
    };
    let document =
        toml::Deserializer::parse(source.0).map_err(|error| of_toml(&error, ".".to_owned()))?;
    serde_path_to_error::deserialize(document)
        .map_err(|error| of_toml(error.inner(), key_of(error.path())))
}

/// The path of a key, as the operator wrote it: without the field in which `Spanned` hides a value.
fn key_of(path: &serde_path_to_error::Path) -> String {
    path.to_string()
        .replace(".$__serde_spanned_private_value", "")
}

fn plans(raw: Vec<RawPlan>, source: &Source<'_>) -> Result<Vec<Plan>, CatalogError> {
    let mut keys = HashSet::new();
    let mut plans = Vec::with_capacity(raw.len());
    for (index, plan) in raw.into_iter().enumerate() {
        let at = plan.key.span();
        let key = plan.key.into_inner().0;
        if !keys.insert(key.clone()) {
            let problem = format!("`{key}` is the key of an earlier plan, too");
            return Err(source.error(Some(at), format!("plan[{index}].key"), problem));
        }
        let quotas = limits(plan.quotas, index, source)?;
        if quotas.len() > MAX_LINES {
            let problem = format!("has more than {MAX_LINES} limits");
            return Err(source.error(Some(at), format!("plan[{index}].quotas"), problem));
        }
        plans.push(Plan {
            key,
            name: plan.name.0,
            description: plan.description,
            price: plan.price.map(|price| PlanPrice {
                amount: price.amount.0,
                currency: price.currency.0,
                interval: price.interval.0,
                stripe_price: price.stripe_price.map(|name| name.0),
            }),
            quotas,
            markup_percent: plan.markup.map(|markup| markup.percent.0),
            throttle: plan.throttle.map(|throttle| Throttle {
                account: throttle.account.map(|burst| burst.0),
                key: throttle.key.map(|burst| burst.0),
            }),
        });
    }
    Ok(plans)
}

/// One limit a counter: who writes down two means both, so the lowest holds.
fn limits(
    quotas: Vec<Spanned<Quota>>,
    plan: usize,
    source: &Source<'_>,
) -> Result<Vec<Limit>, CatalogError> {
    let mut limits: Vec<Limit> = Vec::new();
    for (index, quota) in quotas.into_iter().enumerate() {
        let at = quota.span();
        let quota = quota.into_inner().limit().map_err(|problem| {
            source.error(Some(at), format!("plan[{plan}].quotas[{index}]"), problem)
        })?;
        match limits.iter_mut().find(|limit| limit.key == quota.key) {
            Some(limit) => limit.limit = limit.limit.min(quota.limit),
            None => limits.push(quota),
        }
    }
    Ok(limits)
}

fn prices(
    raw: Vec<Spanned<RawPrice>>,
    source: &Source<'_>,
) -> Result<Vec<PriceEntry>, CatalogError> {
    let mut seen = HashSet::new();
    let mut prices = Vec::with_capacity(raw.len());
    for (index, price) in raw.into_iter().enumerate() {
        let at = price.span();
        let price = price.into_inner();
        let from = price.from.map(|from| from.0);
        let name = (
            price.provider.0.to_lowercase(),
            price.model.0.to_lowercase(),
        );
        if !seen.insert((name, from)) {
            let problem = "there is an earlier price of this model from the same day".to_owned();
            return Err(source.error(Some(at), format!("price[{index}]"), problem));
        }
        let rate = |rate: UsdRate| Rate {
            base: rate.0,
            tiers: Vec::new(),
        };
        prices.push(PriceEntry {
            id: 0,
            provider: price.provider.0,
            matches: ModelMatch::Equals(price.model.0.clone()),
            model: price.model.0,
            source: PriceSource::Catalog,
            context_window: price.context_window.map(i64::from),
            from,
            daily: None,
            rates: Rates {
                input: Some(rate(price.input)),
                output: price.output.map(rate),
                cache_read: price.cache_read.map(rate),
                cache_write: price.cache_write.map(rate),
                ..Rates::default()
            },
        });
    }
    Ok(prices)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Amount;
    use crate::quota::Burst;

    #[test]
    fn the_example_is_a_catalogue() {
        let catalog = Catalog::parse(include_str!("../../config/catalog.toml")).unwrap();
        let project = catalog.plans.iter().find(|plan| plan.key == "project");
        let limit = |key: &str| {
            let limits = &project.unwrap().quotas;
            let limit = limits.iter().find(|limit| limit.key.to_string() == key);
            limit.map(|limit| limit.limit)
        };
        assert_eq!(limit("account/tokens/month"), Some(Amount(5_000_000)));
        assert_eq!(limit("account/spend/day"), Some(Amount(20_000_000_000)));
        assert_eq!(catalog.markup_percent, Decimal::from(20));
        let price = &catalog.prices[0];
        assert_eq!(
            price.rates.cache_read.as_ref().unwrap().base.to_string(),
            "0.075"
        );
        assert!(price.rates.cache_write.is_none());
    }

    #[test]
    fn several_limits_on_one_counter_are_merged_to_the_lowest() {
        let catalog = Catalog::parse(
            r#"
            [[plan]]
            key = "p"
            name = "P"
            markup = { percent = "7.5" }
            quotas = [
              { resource = "gpu_hours", window = "week", limit = 9 },
              { resource = "gpu_hours", window = "week", limit = 3 },
              { resource = "gpu_hours", window = "day", limit = 4 },
            ]
            "#,
        );
        let plan = catalog.unwrap().plans.remove(0);
        let limits: Vec<i64> = plan.quotas.iter().map(|limit| limit.limit.0).collect();
        assert_eq!(limits, [3, 4]);
        assert_eq!(plan.markup_percent.unwrap().to_string(), "7.5");
    }

    #[test]
    fn a_plan_may_have_a_throttle_and_one_that_names_nothing_is_one() {
        let plan = |throttle: &str| {
            let text = format!("[[plan]]\nkey = \"p\"\nname = \"P\"\n{throttle}");
            Catalog::parse(&text).unwrap().plans.remove(0).throttle
        };
        let key = Throttle {
            account: None,
            key: Burst::new(5, 20),
        };
        assert_eq!(
            plan("throttle = { key = { per_second = 5, burst = 20 } }"),
            Some(key)
        );
        assert_eq!(plan("throttle = {}"), Some(Throttle::default()));
        assert_eq!(plan(""), None);
    }

    /// The line of the error, and whether its text names the key and says why.
    fn refused(text: &str, line: usize, key: &str, why: &str) {
        let error = Catalog::parse(text).unwrap_err();
        let shown = error.to_string();
        assert_eq!(error.line, line, "{shown}");
        assert!(shown.contains(key) && shown.contains(why), "{shown}");
    }

    #[test]
    fn what_is_not_built_yet_is_an_error_never_ignored() {
        let plan = "[[plan]]\nkey = \"p\"\nname = \"P\"\n";
        for key in [
            "trial_days = 3",
            "priority = 1",
            "grants = []",
            "features = { a = true }",
        ] {
            let name = key.split(' ').next().unwrap();
            let at = format!("plan[0].{name}");
            refused(&format!("{plan}{key}\n"), 4, &at, "is not built yet");
        }
        for key in ["scope = \"project\"", "warn_percent = [80]"] {
            let name = key.split(' ').next().unwrap();
            let quota = format!(
                "quotas = [\n{{ resource = \"tokens\", window = \"day\", limit = 1, {key} }}]\n"
            );
            refused(&format!("{plan}{quota}"), 5, name, "is not built yet");
        }
    }

    #[test]
    fn errors_name_the_key_and_the_line() {
        let quota =
            |quota: &str| format!("[[plan]]\nkey = \"p\"\nname = \"P\"\nquotas = [\n{quota},\n]\n");
        let price = |line: &str| {
            format!("[[price]]\nprovider = \"p\"\nmodel = \"m\"\ninput = \"1\"\n{line}\n")
        };
        refused("[plans]\n", 1, "plans", "unknown key");
        refused(
            "\n[markup]\npercent = \"1\"\nflat = 1\n",
            4,
            "flat",
            "unknown key",
        );
        refused("[markup]\npercent = 20\n", 2, "markup.percent", "string");
        refused("[markup]\npercent = \"-1\"\n", 2, "markup.percent", "-1");
        refused(&price("output = 0.6"), 5, "price[0].output", "string");
        refused(&price("output = \"x\""), 5, "price[0].output", "decimal");
        refused(&price("from = \"soon\""), 5, "price[0].from", "date");
        refused(&price("tiers = 1"), 5, "tiers", "unknown key");
        refused(
            "[[price]]\nprovider = \"p\"\nmodel = \"m\"\n",
            1,
            "price[0]",
            "input",
        );
        refused(
            &quota("{ resource = \"spend\", window = \"day\", limit = 20 }"),
            5,
            "quotas[0]",
            "credits",
        );
        refused(
            &quota("{ resource = \"tokens\", window = \"day\", limit = \"20\" }"),
            5,
            "quotas[0]",
            "whole",
        );
        refused(
            &quota("{ resource = \"tokens\", window = \"hour\", limit = 1 }"),
            5,
            "quotas[0]",
            "hour",
        );
        refused(
            &quota("{ resource = \"tokens\", window = \"day\", limit = -1 }"),
            5,
            "quotas[0]",
            "from 0",
        );
        refused(
            &quota("{ resource = \"spend\", window = \"day\", limit = \"9000000.1\" }"),
            5,
            "quotas[0]",
            "largest amount",
        );
        let throttle =
            |of: &str| format!("[[plan]]\nkey = \"p\"\nname = \"P\"\nthrottle = {{ {of} }}\n");
        refused(
            &throttle("key = { per_second = 0, burst = 1 }"),
            4,
            "throttle.key",
            "from 1",
        );
        refused(&throttle("user = {}"), 4, "throttle.user", "unknown key");
        let twice = "[[plan]]\nkey = \"p\"\nname = \"P\"\n";
        refused(&format!("{twice}{twice}"), 5, "plan[1].key", "earlier plan");
        refused(&price("").repeat(2), 6, "price[1]", "earlier price");
        refused("a = [", 1, "`.`", "array");
    }
}
