//! The headers of an answer that was served: what was held, what was charged, what is left.

use std::fmt::{self, Write as _};
use std::ops::Range;

use bytes::Bytes;
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

/// How many headers there are at the most, and how long their values usually are together.
const MOST_FIELDS: usize = 12;
const TEXT_BYTES: usize = 384;

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
    let ours = [CHARGE, BALANCE, WOULD_REFUSE, RATE_LIMIT, RATE_LIMIT_POLICY];
    for name in OPENAI.iter().flat_map(|(_, names)| names).chain(&ours) {
        headers.remove(name);
    }
    let mut fields = Fields::default();
    fields.add(RESERVATION, format_args!("{}", admitted.id));
    let taken = charge.unwrap_or(Nanos(admitted.meter.quote().charge_claim().hold));
    if let Some(seen) = &admitted.seen {
        fields.add(BALANCE, format_args!("{}", seen.balance - taken));
    }
    if let Some(charge) = charge {
        fields.add(CHARGE, format_args!("{charge}"));
    }
    if let Some(code) = admitted.would_refuse {
        fields.add(WOULD_REFUSE, format_args!("{code}"));
    }
    let lines = &admitted.meter.quote().lines;
    let seen = admitted.seen.iter().flat_map(|seen| &seen.lines);
    let states: Vec<_> = lines.iter().zip(seen).collect();
    if !states.is_empty() {
        fields.add(RATE_LIMIT_POLICY, format_args!("{}", Policies(&states)));
        fields.add(RATE_LIMIT, format_args!("{}", Limits(&states, now)));
    }
    for (resource, names) in OPENAI {
        // Of several windows, the one that is nearest to its limit.
        let of_it = states
            .iter()
            .filter(|(line, _)| line.key.resource == resource);
        if let Some((line, state)) = of_it.min_by_key(|(line, state)| left(line, state)) {
            let [limit, remaining, reset] = names;
            fields.add(limit, format_args!("{}", line.limit));
            fields.add(remaining, format_args!("{}", left(line, state)));
            fields.add(reset, format_args!("{}s", seconds_to(line, now)));
        }
    }
    fields.set(headers);
}

/// What the line leaves when this call is counted, never below nothing.
fn left(line: &Line, state: &LineState) -> i64 {
    (line.limit.0 - state.used.0 - state.held.0 - line.amount.0).max(0)
}

fn seconds_to(line: &Line, now: UnixMs) -> i64 {
    (line.span.end.0.saturating_sub(now.0).max(0) + 999) / 1000
}

/// `RateLimit-Policy`, as in draft-ietf-httpapi-ratelimit-headers-11.
struct Policies<'a>(&'a [(&'a Line, &'a LineState)]);

/// `RateLimit` of the same draft, at a moment.
struct Limits<'a>(&'a [(&'a Line, &'a LineState)], UnixMs);

impl fmt::Display for Policies<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (line, _)) in self.0.iter().enumerate() {
            write_name(f, place, line)?;
            write!(f, ";q={}", line.limit)?;
            if line.key.window.resets() {
                write!(f, ";w={}", (line.span.end.0 - line.span.start.0) / 1000)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Limits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(states, now) = self;
        for (place, (line, state)) in states.iter().enumerate() {
            write_name(f, place, line)?;
            write!(f, ";r={}", left(line, state))?;
            if line.key.window.resets() {
                write!(f, ";t={}", seconds_to(line, *now))?;
            }
        }
        Ok(())
    }
}

/// A line's name in both of them, behind what came before it.
fn write_name(f: &mut fmt::Formatter<'_>, place: usize, line: &Line) -> fmt::Result {
    let comma = if place > 0 { ", " } else { "" };
    write!(f, "{comma}\"{}-{}\"", line.key.resource, line.key.window)
}

/// Headers on their way to an answer. Their values are written one after the other into one text that they share: an
/// allocation, or two, for each of a dozen headers was a tenth of all that a call makes.
#[derive(Default)]
struct Fields {
    text: String,
    places: Vec<(HeaderName, Range<usize>)>,
}

impl Fields {
    fn add(&mut self, name: HeaderName, value: fmt::Arguments<'_>) {
        if self.places.is_empty() {
            self.text.reserve(TEXT_BYTES);
            self.places.reserve(MOST_FIELDS);
        }
        let start = self.text.len();
        self.text
            .write_fmt(value)
            .expect("a text takes whatever is written to it");
        self.places.push((name, start..self.text.len()));
    }

    fn set(self, headers: &mut HeaderMap) {
        let text = Bytes::from(self.text);
        headers.reserve(self.places.len());
        for (name, place) in self.places {
            // Everything written here is made of digits, names of resources and fixed words.
            if let Ok(value) = HeaderValue::from_maybe_shared(text.slice(place)) {
                headers.insert(name, value);
            }
        }
    }
}
