//! The seed: the price catalogue of pydantic/genai-prices, shipped with the program.
//!
//! Its numbers are JSON numbers; they are read as the decimals they are written as and never pass through a float.

use std::collections::HashSet;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;
use time::Date;
use time::format_description::FormatItem;
use time::macros::format_description;

use super::{ModelMatch, PriceEntry, PriceSource, Rate, Rates};
use crate::clock::UnixMs;

const SHIPPED: &str = include_str!("../../config/prices.json");
const DATE: &[FormatItem<'_>] = format_description!("[year]-[month]-[day]");
const TIME: &[FormatItem<'_>] = format_description!("[hour]:[minute]:[second]Z");

/// No token costs more, by the million, than this many USD; a number beyond it is a misplaced point.
const MAX_RATE: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// Why a catalogue of prices cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct SeedError {
    place: String,
    problem: String,
}

/// The prices that the program is shipped with, in the order of their source.
pub fn seed() -> Vec<PriceEntry> {
    read_seed(SHIPPED).expect("the shipped catalogue is read by a test")
}

/// Reads a catalogue in the format of genai-prices.
pub fn read_seed(text: &str) -> Result<Vec<PriceEntry>, SeedError> {
    let providers: Vec<SeedProvider> =
        serde_json::from_str(text).map_err(|error| problem("the file", &error))?;
    let mut entries = Vec::new();
    for provider in &providers {
        let mut own = HashSet::new();
        for model in &provider.models {
            own.insert((&model.id, format!("{:?}", model.matches)));
            model.read(&provider.id, &mut entries)?;
        }
        // Who sells other providers' models at their prices lists them; a model of its own wins by coming first.
        for other in &provider.fallback_model_providers {
            let other = providers
                .iter()
                .find(|provider| provider.id == *other)
                .ok_or_else(|| problem(&provider.id, &"falls back on an unknown provider"))?;
            for model in &other.models {
                if own.insert((&model.id, format!("{:?}", model.matches))) {
                    model.read(&provider.id, &mut entries)?;
                }
            }
        }
    }
    Ok(entries)
}

fn problem(place: &str, problem: &dyn ToString) -> SeedError {
    SeedError {
        place: place.to_owned(),
        problem: problem.to_string(),
    }
}

#[derive(Deserialize)]
struct SeedProvider<'a> {
    id: String,
    #[serde(default)]
    fallback_model_providers: Vec<String>,
    #[serde(borrow)]
    models: Vec<SeedModel<'a>>,
}

#[derive(Deserialize)]
struct SeedModel<'a> {
    id: String,
    #[serde(rename = "match")]
    matches: ModelMatch,
    context_window: Option<i64>,
    /// One set of prices, or a list of them with conditions.
    #[serde(borrow)]
    prices: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Conditional<'a> {
    constraint: Option<Constraint>,
    #[serde(borrow)]
    prices: SeedRates<'a>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Constraint {
    start_date: Option<String>,
    start_time: Option<String>,
    end_time: Option<String>,
}

/// A unit that is not known here must not be free: unknown fields are errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedRates<'a> {
    #[serde(borrow)]
    input_mtok: Option<&'a RawValue>,
    #[serde(borrow)]
    output_mtok: Option<&'a RawValue>,
    #[serde(borrow)]
    cache_read_mtok: Option<&'a RawValue>,
    #[serde(borrow)]
    cache_write_mtok: Option<&'a RawValue>,
    #[serde(borrow)]
    input_audio_mtok: Option<&'a RawValue>,
    #[serde(borrow)]
    output_audio_mtok: Option<&'a RawValue>,
    #[serde(borrow)]
    cache_audio_read_mtok: Option<&'a RawValue>,
    #[serde(borrow)]
    requests_kcount: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedRate<'a> {
    #[serde(borrow)]
    base: &'a RawValue,
    #[serde(borrow)]
    tiers: Vec<SeedTier<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SeedTier<'a> {
    start: i64,
    #[serde(borrow)]
    price: &'a RawValue,
}

impl SeedModel<'_> {
    fn read(&self, provider: &str, entries: &mut Vec<PriceEntry>) -> Result<(), SeedError> {
        let place = format!("{provider}/{}", self.id);
        let at_place = |error: serde_json::Error| problem(&place, &error);
        let prices = self.prices.get();
        let conditional: Vec<Conditional<'_>> = if prices.starts_with('[') {
            serde_json::from_str(prices).map_err(at_place)?
        } else {
            vec![Conditional {
                constraint: None,
                prices: serde_json::from_str(prices).map_err(at_place)?,
            }]
        };
        for Conditional { constraint, prices } in conditional {
            let read = |constraint: Constraint| constraint.read();
            let condition = constraint.map(read).transpose();
            let (from, daily) = condition
                .map_err(|e| problem(&place, &e))?
                .unwrap_or_default();
            entries.push(PriceEntry {
                id: 0,
                provider: provider.to_owned(),
                model: self.id.clone(),
                source: PriceSource::Seed,
                matches: self.matches.clone(),
                context_window: self.context_window,
                from,
                daily,
                rates: prices.read().map_err(|e| problem(&place, &e))?,
            });
        }
        Ok(())
    }
}

type Condition = (Option<UnixMs>, Option<(u32, u32)>);

impl Constraint {
    fn read(self) -> Result<Condition, String> {
        let from = self.start_date.map(|text| {
            let date = Date::parse(&text, DATE).map_err(|_| format!("`{text}` is not a date"))?;
            Ok::<_, String>(UnixMs::from(date.midnight().assume_utc()))
        });
        let second = |text: String| {
            let time = time::Time::parse(&text, TIME)
                .map_err(|_| format!("`{text}` is not a UTC time"))?;
            let (hour, minute, second) = time.as_hms();
            Ok::<_, String>(u32::from(hour) * 3600 + u32::from(minute) * 60 + u32::from(second))
        };
        let daily = match (self.start_time, self.end_time) {
            (Some(start), Some(end)) => Some((second(start)?, second(end)?)),
            (None, None) => None,
            _ => return Err("a daily price needs a start and an end".to_owned()),
        };
        Ok((from.transpose()?, daily))
    }
}

impl SeedRates<'_> {
    fn read(&self) -> Result<Rates, String> {
        let rate = |raw: Option<&RawValue>| raw.map(read_rate).transpose();
        Ok(Rates {
            input: rate(self.input_mtok)?,
            output: rate(self.output_mtok)?,
            cache_read: rate(self.cache_read_mtok)?,
            cache_write: rate(self.cache_write_mtok)?,
            input_audio: rate(self.input_audio_mtok)?,
            output_audio: rate(self.output_audio_mtok)?,
            cache_audio_read: rate(self.cache_audio_read_mtok)?,
            requests_k: self.requests_kcount.map(read_decimal).transpose()?,
        })
    }
}

fn read_rate(raw: &RawValue) -> Result<Rate, String> {
    if !raw.get().starts_with('{') {
        return Ok(Rate {
            base: read_decimal(raw)?,
            tiers: Vec::new(),
        });
    }
    let rate: SeedRate<'_> = serde_json::from_str(raw.get()).map_err(|error| error.to_string())?;
    let tier = |tier: &SeedTier<'_>| Ok::<_, String>((tier.start, read_decimal(tier.price)?));
    let mut tiers = rate.tiers.iter().map(tier).collect::<Result<Vec<_>, _>>()?;
    tiers.sort_by_key(|(start, _)| *start);
    Ok(Rate {
        base: read_decimal(rate.base)?,
        tiers,
    })
}

/// A JSON number, as the decimal it is written as.
fn read_decimal(raw: &RawValue) -> Result<Decimal, String> {
    let text = raw.get();
    let read = if text.contains(['e', 'E']) {
        Decimal::from_scientific(text)
    } else {
        Decimal::from_str_exact(text)
    };
    let number = read.map_err(|_| format!("`{text}` is not a decimal number"))?;
    if number.is_sign_negative() || number > MAX_RATE {
        return Err(format!("`{text}` is not a price from 0 to {MAX_RATE}"));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_catalogue_is_read_whole() {
        let entries = seed();
        let read: HashSet<(&str, &str)> = entries
            .iter()
            .map(|entry| (entry.provider.as_str(), entry.model.as_str()))
            .collect();
        let source: Vec<serde_json::Value> = serde_json::from_str(SHIPPED).unwrap();
        assert_eq!(source.len(), 34);
        for provider in &source {
            for model in provider["models"].as_array().unwrap() {
                let (provider, model) = (provider["id"].as_str(), model["id"].as_str());
                assert!(
                    read.contains(&(provider.unwrap(), model.unwrap())),
                    "{model:?}"
                );
            }
        }
        assert!(
            read.contains(&("azure", "gpt-4o-mini"))
                && read.contains(&("azure", "claude-sonnet-5"))
        );
        let by_hour = entries
            .iter()
            .filter(|entry| entry.daily == Some((1800, 59400)));
        assert_eq!(by_hour.count(), 2);
    }

    #[test]
    fn numbers_are_the_decimals_they_are_written_as() {
        let read = |number: &str| {
            let text = format!(
                r#"[{{"id": "p", "models": [{{"id": "m", "match": {{"equals": "m"}}, "prices": {{"input_mtok": {number}}}}}]}}]"#
            );
            read_seed(&text)
                .map(|entries| entries[0].rates.input.as_ref().unwrap().base.to_string())
        };
        assert_eq!(read("0.1").unwrap(), "0.1");
        assert_eq!(read("0.30000000000000004").unwrap(), "0.30000000000000004");
        assert_eq!(read("2e-2").unwrap(), "0.02");
        assert!(read("-1").is_err());
        assert!(read("1e9").is_err());
    }

    #[test]
    fn a_unit_that_is_not_known_is_an_error_that_names_the_model() {
        let text = r#"[{"id": "p", "models": [{"id": "m", "match": {"equals": "m"}, "prices": {"per_image": 1}}]}]"#;
        let error = read_seed(text).unwrap_err().to_string();
        assert!(
            error.contains("p/m") && error.contains("per_image"),
            "{error}"
        );
    }
}
