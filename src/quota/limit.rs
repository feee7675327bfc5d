//! Limits: a resource, a window, and how much of it an account may use.
//!
//! Windows are half-open and decided once, at reserve; all of them are in UTC (rule 12).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use time::{Date, Duration, Month, OffsetDateTime, Time};

use crate::clock::UnixMs;
use crate::money::Amount;

/// What a quota counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Resource {
    /// Input and output tokens.
    Tokens,
    /// Chat calls.
    Messages,
    /// Agents.
    Agents,
    /// Bots.
    Bots,
    /// Boards.
    Boards,
    /// Companions.
    Companions,
    /// Files.
    Files,
    /// Bytes stored.
    Storage,
    /// Research runs.
    ResearchRuns,
    /// Tool calls.
    ToolCalls,
    /// Seconds of media processed.
    MediaProcessing,
    /// Nanos charged.
    Spend,
    /// Calls.
    Requests,
    /// A name of the operator's own.
    Custom(Arc<str>),
}

const NAMED: [(&str, Resource); 13] = [
    ("tokens", Resource::Tokens),
    ("messages", Resource::Messages),
    ("agents", Resource::Agents),
    ("bots", Resource::Bots),
    ("boards", Resource::Boards),
    ("companions", Resource::Companions),
    ("files", Resource::Files),
    ("storage", Resource::Storage),
    ("research_runs", Resource::ResearchRuns),
    ("tool_calls", Resource::ToolCalls),
    ("media_processing", Resource::MediaProcessing),
    ("spend", Resource::Spend),
    ("requests", Resource::Requests),
];

const MAX_RESOURCE_NAME_BYTES: usize = 64;

/// The text is not a resource, a window or a counter's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: {hint}")]
pub struct NameError {
    what: &'static str,
    text: String,
    hint: &'static str,
}

impl FromStr for Resource {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some((_, resource)) = NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(resource.clone());
        }
        let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if text.is_empty() || text.len() > MAX_RESOURCE_NAME_BYTES || !text.bytes().all(lower) {
            let hint = "use 1 to 64 of a-z, 0-9 and _";
            return Err(NameError {
                what: "resource",
                text: text.chars().take(80).collect(),
                hint,
            });
        }
        Ok(Self::Custom(text.into()))
    }
}

impl Resource {
    /// Its name.
    pub fn name(&self) -> &str {
        if let Self::Custom(name) = self {
            return name;
        }
        let named = NAMED.iter().find(|(_, resource)| resource == self);
        named.expect("every resource but a custom one is named").0
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Over what time a quota counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// A day.
    Day,
    /// An ISO week, from Monday.
    Week,
    /// A calendar month, or one anchored on the billing date.
    Month,
    /// For ever.
    Overall,
    /// A standing count that goes down when things are deleted.
    Cumulative,
}

const WINDOWS: [(&str, Window); 5] = [
    ("day", Window::Day),
    ("week", Window::Week),
    ("month", Window::Month),
    ("overall", Window::Overall),
    ("cumulative", Window::Cumulative),
];

impl FromStr for Window {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let found = WINDOWS.iter().find(|(name, _)| *name == text);
        let hint = "use day, week, month, overall or cumulative";
        found.map(|(_, window)| *window).ok_or_else(|| NameError {
            what: "window",
            text: text.into(),
            hint,
        })
    }
}

impl Window {
    /// Its name.
    pub fn name(self) -> &'static str {
        let named = WINDOWS.iter().find(|(_, window)| *window == self);
        named.expect("every window is named").0
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One span of a window: from `start` up to, and without, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The first moment inside.
    pub start: UnixMs,
    /// The first moment after.
    pub end: UnixMs,
}

impl Span {
    /// The span of a window that never resets. Its end is far beyond any clock, and exact in a double.
    pub const EVER: Self = Self {
        start: UnixMs(0),
        end: UnixMs(253_402_300_799_000),
    };
}

impl Window {
    /// The span of this window that holds `at`; months start on the anchor's day and time where there is one.
    pub fn span(self, at: UnixMs, anchor: Option<UnixMs>) -> Span {
        let midnight = at.to_utc().replace_time(Time::MIDNIGHT);
        match self {
            Self::Day => Span {
                start: midnight.into(),
                end: (midnight + Duration::DAY).into(),
            },
            Self::Week => {
                let days = i64::from(midnight.weekday().number_days_from_monday());
                let monday = midnight - Duration::days(days);
                Span {
                    start: monday.into(),
                    end: (monday + Duration::WEEK).into(),
                }
            }
            Self::Month => month_span(at, anchor),
            Self::Overall | Self::Cumulative => Span::EVER,
        }
    }

    /// Whether what is used comes back by itself with time.
    pub fn resets(self) -> bool {
        matches!(self, Self::Day | Self::Week | Self::Month)
    }
}

/// Months counted from the anchor: a 31st becomes the last day of a shorter month, without drifting.
fn month_span(at: UnixMs, anchor: Option<UnixMs>) -> Span {
    let at = at.to_utc();
    let (day, time) = anchor.map_or((1, Time::MIDNIGHT), |anchor| {
        (anchor.to_utc().day(), anchor.to_utc().time())
    });
    let starting_in = |year: i32, month: Month| {
        let date = Date::from_calendar_date(year, month, day.min(month.length(year)));
        OffsetDateTime::new_utc(date.expect("the day is within its month"), time)
    };
    let this = starting_in(at.year(), at.month());
    let (start, end) = if this <= at {
        let year = at.year() + i32::from(at.month() == Month::December);
        (this, starting_in(year, at.month().next()))
    } else {
        let year = at.year() - i32::from(at.month() == Month::January);
        (starting_in(year, at.month().previous()), this)
    };
    Span {
        start: start.into(),
        end: end.into(),
    }
}

/// Whose use is counted. Keys, users, projects and tags get limits of their own later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The whole account.
    Account,
}

impl Scope {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What names a counter: never the plan, so that a count survives a change of plan (rule 12).
///
/// Written `account/tokens/month`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct CounterKey {
    /// Whose use.
    pub scope: Scope,
    /// Of what.
    pub resource: Resource,
    /// Over what time.
    pub window: Window,
}

impl CounterKey {
    /// In one piece, since each call writes several.
    fn text(&self) -> String {
        [self.scope.name(), self.resource.name(), self.window.name()].join("/")
    }
}

impl fmt::Display for CounterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl Serialize for CounterKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl FromStr for CounterKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("account"), Some(resource), Some(window), None) => Ok(Self {
                scope: Scope::Account,
                resource: resource.parse()?,
                window: window.parse()?,
            }),
            _ => Err(NameError {
                what: "counter",
                text: text.into(),
                hint: "write scope/resource/window",
            }),
        }
    }
}

macro_rules! as_text {
    ($kind:ty) => {
        impl TryFrom<String> for $kind {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$kind> for String {
            fn from(value: $kind) -> Self {
                value.to_string()
            }
        }
    };
}

as_text!(Resource);
as_text!(CounterKey);

/// How much of a counter's resource may be used in one span of its window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Which counter.
    pub key: CounterKey,
    /// The most that used and held may come to; at most [`crate::money::MAX_BALANCE`].
    pub limit: Amount,
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn span(
        window: Window,
        at: OffsetDateTime,
        anchor: Option<OffsetDateTime>,
    ) -> (OffsetDateTime, OffsetDateTime) {
        let span = window.span(at.into(), anchor.map(UnixMs::from));
        (span.start.to_utc(), span.end.to_utc())
    }

    #[test]
    fn a_boundary_belongs_to_the_window_it_opens() {
        let midnight = datetime!(2026-03-02 0:00 UTC);
        assert_eq!(
            span(Window::Day, midnight, None),
            (midnight, datetime!(2026-03-03 0:00 UTC))
        );
        assert_eq!(
            span(Window::Week, midnight, None),
            (midnight, datetime!(2026-03-09 0:00 UTC))
        );
        let before = midnight - Duration::MILLISECOND;
        assert_eq!(span(Window::Week, before, None).1, midnight);
    }

    #[test]
    fn an_anchored_month_does_not_drift() {
        let anchor = Some(datetime!(2026-01-31 12:00 UTC));
        let february = (
            datetime!(2026-01-31 12:00 UTC),
            datetime!(2026-02-28 12:00 UTC),
        );
        assert_eq!(
            span(Window::Month, datetime!(2026-02-28 11:59 UTC), anchor),
            february
        );
        let march = (
            datetime!(2026-02-28 12:00 UTC),
            datetime!(2026-03-31 12:00 UTC),
        );
        assert_eq!(
            span(Window::Month, datetime!(2026-02-28 12:00 UTC), anchor),
            march
        );
        let turn = (
            datetime!(2025-12-31 12:00 UTC),
            datetime!(2026-01-31 12:00 UTC),
        );
        assert_eq!(
            span(Window::Month, datetime!(2026-01-01 0:00 UTC), anchor),
            turn
        );
    }

    #[test]
    fn names_read_back_as_written() {
        for text in [
            "account/tokens/month",
            "account/spend/day",
            "account/gpu_hours/cumulative",
        ] {
            assert_eq!(text.parse::<CounterKey>().unwrap().to_string(), text);
        }
        assert!("account/Tokens/month".parse::<CounterKey>().is_err());
        assert!("account/tokens".parse::<CounterKey>().is_err());
    }
}
