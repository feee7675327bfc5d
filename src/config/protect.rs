//! What protects a sidecar, and its accounts from each other: how fast calls may come, and how many at once.

use super::error::Problem;
use super::number;
use super::raw::{RawBurst, RawShed, RawThrottle};
use super::route::{Meter, Route};
use crate::quota::{Burst, MAX_BURST, Throttle};

/// Callers' connections, each with one call at a time; the next ones wait.
pub const MAX_CONNECTIONS: usize = 10_000;

/// What a sidecar takes upon itself at once; what is beyond is refused at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shed {
    /// Calls, each from its key to the end of its answer.
    pub max_in_flight: usize,
    /// Bodies that are kept whole, in bytes.
    pub max_buffered_bytes: usize,
}

pub(super) fn throttle(raw: &RawThrottle) -> Result<Throttle, Problem> {
    Ok(Throttle {
        account: burst("throttle.account", raw.account.as_ref())?,
        key: burst("throttle.key", raw.key.as_ref())?,
    })
}

fn burst(key: &str, raw: Option<&RawBurst>) -> Result<Option<Burst>, Problem> {
    let Some(raw) = raw else {
        return Ok(None);
    };
    let bounds = 1..=i64::from(MAX_BURST);
    let at = |name: &str| format!("{key}.{name}");
    let per_second = number(&at("per_second"), Some(raw.per_second), 1, bounds.clone())?;
    let burst = number(&at("burst"), Some(raw.burst), 1, bounds)?;
    Ok(Burst::new(per_second, burst))
}

impl Shed {
    pub(super) fn usable(raw: &RawShed, routes: &[Route]) -> Result<Self, Problem> {
        let key = "shed.max_in_flight";
        let most = i64::try_from(MAX_CONNECTIONS).expect("it is within i64");
        let max_in_flight = number(key, raw.max_in_flight, 8192, 1..=most)?;
        let key = "shed.max_buffered_bytes";
        let bounds = 1..=1_099_511_627_776;
        let max_buffered_bytes = number(key, raw.max_buffered_bytes, 268_435_456, bounds)?;
        let usize = |number| usize::try_from(number).expect("the bounds are within usize");
        let shed = Self {
            max_in_flight: usize(max_in_flight),
            max_buffered_bytes: usize(max_buffered_bytes),
        };
        if !routes.iter().all(|route| shed.takes(route)) {
            let message = "it is less than the `max_body_bytes` of a route, so that such a body would never be taken";
            return Err(Problem::new(key, message));
        }
        Ok(shed)
    }

    /// Whether there is room for the largest body of a route; only those that are measured by tokens are kept whole.
    pub fn takes(&self, route: &Route) -> bool {
        route.meter != Meter::OpenAi || route.max_body_bytes <= self.max_buffered_bytes
    }
}
