//! How arguments are read: a word, a moment, a text, each refused with a sentence that says what is expected.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::clock::UnixMs;
use crate::ledger::usage::By;
use crate::money::{Amount, Nanos};
use crate::quota::{LotId, Mode, Resource};

const MAX_TEXT_BYTES: usize = 200;
const NANOS_PER_MS: u32 = 1_000_000;

/// `enforce`, `monitor` or `off`.
pub(super) fn mode() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(["enforce", "monitor", "off"]).map(|word| match word.as_str() {
        "monitor" => Mode::Monitor,
        "off" => Mode::Off,
        _ => Mode::Enforce,
    })
}

/// A moment. Finer than a millisecond is refused, because the store would round it away.
pub(super) fn moment(text: &str) -> Result<UnixMs, String> {
    let at = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "expected a moment of RFC 3339, as in 2027-01-31T00:00:00Z".to_owned())?;
    if at.nanosecond() % NANOS_PER_MS != 0 {
        return Err("expected a moment no finer than a millisecond".into());
    }
    Ok(at.into())
}

/// A moment, or a day, which stands for its first moment in UTC.
pub(super) fn day_or_moment(text: &str) -> Result<UnixMs, String> {
    let day = Date::parse(text, format_description!("[year]-[month]-[day]"));
    match day {
        Ok(day) => Ok(day.midnight().assume_utc().into()),
        Err(_) => moment(text).map_err(|_| {
            "expected a day, as in 2027-01-31, or a moment of RFC 3339, as in 2027-01-31T00:00:00Z".to_owned()
        }),
    }
}

/// `day`, `model`, `route`, `project`, `key` or `user`.
pub(super) fn by() -> impl TypedValueParser<Value = By> {
    PossibleValuesParser::new(By::ALL.map(By::as_str)).map(|word| {
        let by = By::ALL.into_iter().find(|by| by.as_str() == word);
        by.expect("no other word is possible")
    })
}

/// A name or a reference: something, but not too much, and nothing that would garble a terminal.
pub(super) fn label(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_TEXT_BYTES || text.chars().any(char::is_control) {
        return Err(format!(
            "expected 1 to {MAX_TEXT_BYTES} bytes of text in one line"
        ));
    }
    Ok(text.to_owned())
}

/// The id of a key. Its secret, which people have at hand, is not shown again.
pub(super) fn key_id(text: &str) -> Result<Uuid, String> {
    let expected = "expected the key's id, as `tollgate key list` shows it, and not its secret";
    text.parse().map_err(|_| expected.to_owned())
}

/// The number of a lot.
pub(super) fn lot(text: &str) -> Result<LotId, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number
        .map(LotId)
        .ok_or_else(|| "expected a lot's number, as `tollgate account show` lists them".to_owned())
}

/// Which lots come first.
pub(super) fn priority(text: &str) -> Result<i32, String> {
    let expected = || format!("expected a whole number from {} to {}", i32::MIN, i32::MAX);
    text.parse().map_err(|_| expected())
}

/// A moment as answers show it.
pub(super) fn shown(at: UnixMs) -> String {
    at.to_utc()
        .format(&Rfc3339)
        .expect("a calendar time of four-digit years has a form in RFC 3339")
}

/// An amount of a resource as people read it: money in credits, the rest as it is counted.
pub(super) fn amount(of: &Resource, amount: Amount) -> String {
    match of {
        Resource::Spend => Nanos(amount.0).to_string(),
        _ => amount.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_exactly_or_refused() {
        assert_eq!(moment("1970-01-01T00:00:00.250Z"), Ok(UnixMs(250)));
        assert!(moment("1970-01-01T00:00:00.2505Z").is_err());
        assert!(moment("tomorrow").is_err());
        assert_eq!(day_or_moment("1970-01-02"), Ok(UnixMs(86_400_000)));
        assert_eq!(
            day_or_moment("1970-01-02T00:00:00.5Z"),
            Ok(UnixMs(86_400_500))
        );
        assert!(day_or_moment("1970-13-01").is_err());
        assert_eq!(shown(UnixMs(250)), "1970-01-01T00:00:00.25Z");
    }
}
