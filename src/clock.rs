//! The clock, as a parameter: the only place that asks the machine for the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMs(pub i64);

impl UnixMs {
    /// The moment `ms` milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The same moment as a calendar time in UTC; far-off moments are clamped to the calendar's ends.
    pub fn to_utc(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).unwrap_or(
            if self.0 < 0 {
                time::PrimitiveDateTime::MIN.assume_utc()
            } else {
                time::PrimitiveDateTime::MAX.assume_utc()
            },
        )
    }

    /// The same moment as RFC 3339 writes it.
    pub fn to_rfc3339(self) -> String {
        let text = self.to_utc().format(&Rfc3339);
        text.unwrap_or_else(|_| "beyond the calendar".to_owned())
    }
}

impl From<OffsetDateTime> for UnixMs {
    fn from(at: OffsetDateTime) -> Self {
        Self(
            i64::try_from(at.unix_timestamp_nanos() / 1_000_000)
                .expect("a calendar time is within i64 milliseconds"),
        )
    }
}

/// Serializes a moment as RFC 3339 writes it, for answers that people read too.
pub fn rfc3339<S: Serializer>(at: &UnixMs, serializer: S) -> Result<S::Ok, S::Error> {
    time::serde::rfc3339::serialize(&at.to_utc(), serializer)
}

/// Where the time comes from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's.
    #[default]
    System,
    /// A hand-moved one, for tests.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The present moment.
    pub fn now(&self) -> UnixMs {
        match self {
            Self::System => OffsetDateTime::now_utc().into(),
            Self::Manual(ms) => UnixMs(ms.load(Ordering::Relaxed)),
        }
    }
}
