//! Why a claim does not fit: from what the decision saw to the code, the numbers and what to do.
//!
//! The store only says that it does not fit. Whether a smaller call would, or a later one, is decided here, once.

use std::fmt;

use serde::{Serialize, Serializer};

use super::quote::{Claim, Quote};
use crate::clock::UnixMs;
use crate::money::Nanos;
use crate::quota::{AccountId, Resource, Seen, Snapshot};

/// One limit that does not hold the call: everything a caller, or an agent, needs to know of it (invariant 7).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Violation {
    /// Whose limit.
    pub account: AccountId,
    /// Which part of the account.
    pub scope: &'static str,
    /// Of what; `credit` is the wallet.
    pub resource: String,
    /// Over what time; the wallet has none.
    pub window: Option<&'static str>,
    /// In units of the resource; nanos of a credit for `credit` and `spend`.
    pub limit: i64,
    /// Settled.
    pub used: i64,
    /// Held by calls in flight.
    pub held: i64,
    /// What this call would hold.
    pub requested: i64,
    /// When the window ends.
    #[serde(serialize_with = "as_rfc3339")]
    pub resets_at: Option<UnixMs>,
    /// How hard it is.
    #[serde(skip)]
    pub kind: Kind,
}

/// Ordered by how hard it is: the hardest decides the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It would fit, but calls in flight hold the rest.
    InFlight,
    /// Nothing is left until the window ends.
    WindowExhausted,
    /// This call can never fit, a smaller one would.
    TooBig,
    /// Nothing is left.
    Exhausted,
}

/// A claim that did not fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Shortage {
    /// All the limits it does not fit, the wallet first.
    pub violations: Vec<Violation>,
    /// The hardest of them.
    pub kind: Kind,
    /// The largest `max_tokens` that would fit, where a smaller one would.
    pub max_tokens: Option<i64>,
}

impl Shortage {
    /// Explains why `quote` does not fit what the decision saw; `None` if it does.
    pub fn explain(snapshot: &Snapshot, quote: &Quote, seen: &Seen) -> Option<Self> {
        let Snapshot {
            account, overage, ..
        } = snapshot;
        let wallet = Room {
            limit: seen.balance.0 + seen.held.0 + overage.0,
            used: 0,
            held: seen.held.0,
        };
        let credit = quote.charge_claim();
        let wallet = wallet.violation(credit).map(|kind| Violation {
            account: account.clone(),
            scope: "account",
            resource: "credit".to_owned(),
            window: None,
            limit: wallet.limit,
            used: wallet.used,
            held: wallet.held,
            requested: credit.hold,
            resets_at: None,
            kind,
        });
        let lines = quote
            .lines
            .iter()
            .zip(&seen.lines)
            .filter_map(|(line, state)| {
                let room = Room {
                    limit: line.limit.0,
                    used: state.used.0,
                    held: state.held.0,
                };
                let claim = quote.claim_on(&line.key.resource)?;
                let mut kind = room.violation(claim)?;
                let resets = line.key.window.resets() && line.key.resource != Resource::Spend;
                if kind == Kind::Exhausted && resets && claim.minimum <= room.limit {
                    kind = Kind::WindowExhausted;
                }
                Some(Violation {
                    account: account.clone(),
                    scope: "account",
                    resource: line.key.resource.to_string(),
                    window: Some(line.key.window.name()),
                    limit: room.limit,
                    used: room.used,
                    held: room.held,
                    requested: claim.hold,
                    resets_at: line.key.window.resets().then_some(line.span.end),
                    kind,
                })
            });
        let violations: Vec<_> = wallet.into_iter().chain(lines).collect();
        let kind = violations.iter().map(|violation| violation.kind).max()?;
        let max_tokens = (kind == Kind::TooBig)
            .then(|| quote.largest_max_tokens(*overage, seen))
            .flatten();
        Some(Self {
            violations,
            kind,
            max_tokens,
        })
    }

    /// When the last of the exhausted windows ends.
    pub fn resets_at(&self) -> Option<UnixMs> {
        self.violations
            .iter()
            .filter_map(|violation| violation.resets_at)
            .max()
    }

    /// Whether the call asks for more than a limit in all, so that it would not fit into an empty window either.
    pub fn exceeds_a_limit(&self) -> bool {
        let mut violations = self.violations.iter();
        violations.any(|violation| violation.requested > violation.limit)
    }

    /// What helps where nothing is left: no credit raises a limit, and no wait makes a call fit that is above one.
    pub fn way_out(&self) -> &'static str {
        let exhausted = |violation: &&Violation| violation.kind == Kind::Exhausted;
        let exhausted: Vec<_> = self.violations.iter().filter(exhausted).collect();
        let of_wallet = |violation: &&Violation| violation.window.is_none();
        let ends = |violation: &&Violation| {
            violation.resets_at.is_some() && violation.requested <= violation.limit
        };
        if exhausted.iter().all(of_wallet) {
            "buy credit"
        } else if exhausted.iter().any(of_wallet) {
            "buy credit and raise the limit"
        } else if exhausted.iter().all(ends) {
            "wait for the window to end, or raise the limit"
        } else {
            "raise the limit"
        }
    }
}

#[expect(
    clippy::ref_option,
    reason = "serde hands over a reference to the field"
)]
fn as_rfc3339<S: Serializer>(at: &Option<UnixMs>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(UnixMs::to_rfc3339).serialize(serializer)
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Credit is shown as credits, everything else as it is counted.
        let shown = |amount: i64| match self.resource.as_str() {
            "credit" | "spend" => Nanos(amount).to_string(),
            _ => amount.to_string(),
        };
        write!(f, "account `{}`, {}", self.account, self.resource)?;
        if let Some(window) = self.window {
            write!(f, " per {window}")?;
        }
        let (limit, used, held) = (shown(self.limit), shown(self.used), shown(self.held));
        let requested = shown(self.requested);
        write!(
            f,
            ": limit {limit}, used {used}, held {held}, asked for {requested}"
        )?;
        if let Some(resets_at) = self.resets_at {
            write!(f, ", resets at {}", resets_at.to_rfc3339())?;
        }
        Ok(())
    }
}

struct Room {
    limit: i64,
    used: i64,
    held: i64,
}

impl Room {
    fn violation(&self, claim: Claim) -> Option<Kind> {
        let left = self.limit - self.used;
        if claim.hold == 0 || claim.hold <= left - self.held {
            None
        } else if claim.hold <= left {
            Some(Kind::InFlight)
        } else if claim.minimum <= left && claim.minimum < claim.hold {
            Some(Kind::TooBig)
        } else {
            Some(Kind::Exhausted)
        }
    }
}
