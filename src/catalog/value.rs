//! The values of a catalogue, each checked where it stands so that an error can name its line.

use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, de};
use time::Date;
use time::macros::format_description;

use crate::clock::UnixMs;
use crate::money::{Amount, MAX_BALANCE, Nanos};
use crate::quota::{Burst, CounterKey, Limit, MAX_BURST, Resource, Scope, Window};

/// A key that the contract knows and this version does not keep yet: an error, never ignored.
#[derive(Debug)]
pub(super) enum Unbuilt {}

impl<'de> Deserialize<'de> for Unbuilt {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(de::Error::custom("is not built yet"))
    }
}

/// A decimal, written as a string: a TOML float would have been rounded before it is seen here.
fn decimal(text: &str, max: Decimal) -> Result<Decimal, String> {
    let number =
        Decimal::from_str_exact(text).map_err(|_| format!("`{text}` is not a decimal number"))?;
    if number.is_sign_negative() || number > max {
        return Err(format!("`{text}` is not a number from 0 to {max}"));
    }
    Ok(number)
}

macro_rules! value {
    ($(#[$doc:meta])* $name:ident($inner:ty) = $read:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Deserialize)]
        #[serde(try_from = "String")]
        pub(super) struct $name(pub(super) $inner);

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                let read: fn(String) -> Result<$inner, String> = $read;
                read(text).map(Self)
            }
        }
    };
}

value!(
    /// USD per million tokens.
    UsdRate(Decimal) = |text| decimal(&text, Decimal::from(1_000_000))
);
value!(
    /// Percent added to a cost.
    Percent(Decimal) = |text| decimal(&text, Decimal::from(10_000))
);
value!(
    /// What a plan costs, in its currency's main unit.
    Money(Decimal) = |text| decimal(&text, Decimal::from(1_000_000_000))
);
value!(
    /// What names a plan for machines.
    PlanKey(String) = |text| {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.');
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(allowed);
        fits.then_some(text).ok_or_else(|| "use 1 to 64 of a-z, 0-9, `_`, `-` and `.`".to_owned())
    }
);
value!(
    /// A name of a provider or a model, or one for people.
    Name(String) = |text| {
        let fits = !text.trim().is_empty() && text.len() <= 256;
        fits.then_some(text).ok_or_else(|| "use 1 to 256 bytes of text".to_owned())
    }
);
value!(
    /// ISO 4217, in lower case.
    Currency(String) = |text| {
        let fits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_lowercase());
        fits.then_some(text).ok_or_else(|| "use three lower-case letters, like `usd`".to_owned())
    }
);
value!(
    /// How often a plan is paid.
    Interval(String) = |text| {
        let fits = ["day", "week", "month", "year"].contains(&text.as_str());
        fits.then_some(text).ok_or_else(|| "use day, week, month or year".to_owned())
    }
);
value!(
    /// The first day of a price, from midnight UTC on.
    From(UnixMs) = |text| {
        let date = Date::parse(&text, format_description!("[year]-[month]-[day]"));
        let date = date.map_err(|_| format!("`{text}` is not a date like 2026-01-31"))?;
        Ok(date.midnight().assume_utc().into())
    }
);

/// A number of things, or credits.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "a whole number, or credits as a string like \"20.00\""
)]
enum RawLimit {
    Count(i64),
    Credits(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBurst {
    per_second: i64,
    burst: i64,
}

/// How fast calls may come.
#[derive(Deserialize)]
#[serde(try_from = "RawBurst")]
pub(super) struct PlanBurst(pub(super) Burst);

impl TryFrom<RawBurst> for PlanBurst {
    type Error = String;

    fn try_from(raw: RawBurst) -> Result<Self, String> {
        let burst = Burst::new(raw.per_second, raw.burst);
        let problem = || format!("`per_second` and `burst` are from 1 to {MAX_BURST}");
        burst.map(Self).ok_or_else(problem)
    }
}

/// A limit of a plan, as it is written down.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Quota {
    resource: Resource,
    window: String,
    limit: RawLimit,
    #[expect(dead_code, reason = "it can have no value")]
    scope: Option<Unbuilt>,
    #[expect(dead_code, reason = "it can have no value")]
    warn_percent: Option<Unbuilt>,
}

impl Quota {
    pub(super) fn limit(self) -> Result<Limit, String> {
        let limit = match (&self.resource, self.limit) {
            (Resource::Spend, RawLimit::Credits(text)) => {
                Amount::from(Nanos::from_credits(&text).map_err(|error| error.to_string())?)
            }
            (Resource::Spend, RawLimit::Count(_)) => {
                return Err("a limit of spend is credits, as a string like \"20.00\"".to_owned());
            }
            (_, RawLimit::Count(count)) => Amount(count),
            (resource, RawLimit::Credits(_)) => {
                return Err(format!("a limit of {resource} is a whole number"));
            }
        };
        if !(0..=MAX_BALANCE).contains(&limit.0) {
            return Err(format!("a limit is from 0 to {MAX_BALANCE}"));
        }
        let window = Window::from_str(&self.window).map_err(|error| error.to_string())?;
        Ok(Limit {
            key: CounterKey {
                scope: Scope::Account,
                resource: self.resource,
                window,
            },
            limit,
        })
    }
}
