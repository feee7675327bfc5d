//! The headers of an answer that was served: what was held, what was charged, what is left.

use std::fmt::Write as _;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::admit::Admitted;
use crate::clock::UnixMs;
use crate::money::Nanos;
use crate::quota::{Line, LineState, Resource};

const RESERVATION: HeaderName = HeaderName::from_static("x-tollgate-reservation");
const CHARGE: HeaderName = HeaderName::from_static("x-tollgate-charge");
const BALANCE: HeaderName = HeaderName::from_static("x-tollgate-balance");
const WOULD_REFUSE: HeaderName = HeaderName::from_static("x-tollgate-would-refuse");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The OpenAI headers of the two resources that have any: limit, remaining, reset.
const OPENAI: [(Resource, [HeaderName; 3]); 2] = [
    (
        Resource::Requests,
        [
            HeaderName::from_static("x-ratelimit-limit-requests"),
            HeaderName::from_static("x-ratelimit-remaining-requests"),
            HeaderName::from_static("x-ratelimit-reset-requests"),
        ],
    ),
    (
        Resource::Tokens,
        [
            HeaderName::from_static("x-ratelimit-limit-tokens"),
            HeaderName::from_static("x-ratelimit-remaining-tokens"),
            HeaderName::from_static("x-ratelimit-reset-tokens"),
        ],
    ),
];

/// Sets the headers on an answer; ours take the place of the upstream's. `charge` is what the call came to, where that
/// is known before the answer's head must go.
pub fn add_headers(
    headers: &mut HeaderMap,
    admitted: &Admitted,
    charge: Option<Nanos>,
    now: UnixMs,
) {
    // What the upstream says of its limits speaks of the operator's account there, not of the caller's here.
    // So does what another Tollgate there says, where this one has nothing to say in its place.
    let ours = [CHARGE, BALANCE, WOULD_REFUSE];
    for name in OPENAI.iter().flat_map(|(_, names)| names).chain(&ours) {
        headers.remove(name);
    }
    set(headers, RESERVATION, &admitted.id.to_string());
    let taken = charge.unwrap_or(Nanos(admitted.meter.quote().charge_claim().hold));
    if let Some(seen) = &admitted.seen {
        set(headers, BALANCE, &(seen.balance - taken).to_string());
    }
    if let Some(charge) = charge {
        set(headers, CHARGE, &charge.to_string());
    }
    if let Some(code) = admitted.would_refuse {
        set(headers, WOULD_REFUSE, code);
    }
    let lines = &admitted.meter.quote().lines;
    let seen = admitted.seen.iter().flat_map(|seen| &seen.lines);
    let states: Vec<_> = lines.iter().zip(seen).collect();
    add_rate_limits(headers, &states, now);
    for (resource, names) in OPENAI {
        // Of several windows, the one that is nearest to its limit.
        let of_it = states
            .iter()
            .filter(|(line, _)| line.key.resource == resource);
        if let Some((line, state)) = of_it.min_by_key(|(line, state)| left(line, state)) {
            let [limit, remaining, reset] = names;
            set(headers, limit, &line.limit.to_string());
            set(headers, remaining, &left(line, state).to_string());
            set(headers, reset, &format!("{}s", seconds_to(line, now)));
        }
    }
}

/// What the line leaves when this call is counted, never below nothing.
fn left(line: &Line, state: &LineState) -> i64 {
    (line.limit.0 - state.used.0 - state.held.0 - line.amount.0).max(0)
}

fn seconds_to(line: &Line, now: UnixMs) -> i64 {
    (line.span.end.0.saturating_sub(now.0).max(0) + 999) / 1000
}

/// `RateLimit` and `RateLimit-Policy`, as in draft-ietf-httpapi-ratelimit-headers-11.
fn add_rate_limits(headers: &mut HeaderMap, states: &[(&Line, &LineState)], now: UnixMs) {
    let (mut policies, mut limits) = (String::new(), String::new());
    for (line, state) in states {
        if !policies.is_empty() {
            policies.push_str(", ");
            limits.push_str(", ");
        }
        let name = format!("{}-{}", line.key.resource, line.key.window);
        let _ = write!(policies, "\"{name}\";q={}", line.limit);
        let _ = write!(limits, "\"{name}\";r={}", left(line, state));
        if line.key.window.resets() {
            let whole = (line.span.end.0 - line.span.start.0) / 1000;
            let _ = write!(policies, ";w={whole}");
            let _ = write!(limits, ";t={}", seconds_to(line, now));
        }
    }
    headers.remove(RATE_LIMIT_POLICY);
    headers.remove(RATE_LIMIT);
    if !policies.is_empty() {
        set(headers, RATE_LIMIT_POLICY, &policies);
        set(headers, RATE_LIMIT, &limits);
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Everything written here is made of digits, names of resources and fixed words.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
