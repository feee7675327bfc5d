//! A quote: what one call may use at the most, at the least, and what it will have used, in credit and in every resource.

use rust_decimal::Decimal;

use crate::clock::UnixMs;
use crate::config;
use crate::dialect::{Estimate, Usage};
use crate::money::{Amount, MAX_AMOUNT, Nanos};
use crate::price::{self, Charge, MissingPart, PriceEntry, Rates};
use crate::quota::{Count, Line, Resource, Seen, Snapshot};

/// The price a call is held at, and what turns it into credit.
#[derive(Debug, Clone, PartialEq)]
pub struct Tariff {
    /// The ledger's number of the price; `None` where the model has none and the route lets it pass free.
    pub price: Option<i64>,
    /// USD.
    pub rates: Rates,
    /// What a credit is worth, in USD.
    pub credit_usd: Decimal,
    /// What is added to the cost.
    pub markup_percent: Decimal,
}

/// Why a call cannot be priced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unpriceable {
    /// The price lacks a part that the call needs.
    PartMissing,
    /// It comes to more than the largest amount.
    TooLarge,
}

impl Tariff {
    /// The tariff of a model without a price on a route that lets it pass: everything is free.
    pub fn free(credit_usd: Decimal) -> Self {
        Self {
            price: None,
            rates: Rates::default(),
            credit_usd,
            markup_percent: Decimal::ZERO,
        }
    }

    /// The same conversion with another model's price.
    pub fn with_price(&self, price: &PriceEntry) -> Self {
        Self {
            price: Some(price.id),
            rates: price.rates.clone(),
            credit_usd: self.credit_usd,
            markup_percent: self.markup_percent,
        }
    }

    /// What this usage costs.
    pub fn charge(&self, usage: &Usage) -> Result<Charge, Unpriceable> {
        if self.price.is_none() {
            return Ok(Charge::default());
        }
        self.convert(self.rates.cost(usage))
    }

    /// The most that any usage within these bounds costs.
    pub fn upper_bound(&self, input_tokens: i64, output_tokens: i64) -> Result<Nanos, Unpriceable> {
        if self.price.is_none() {
            return Ok(Nanos::ZERO);
        }
        let bound = self.convert(self.rates.upper_bound(input_tokens, output_tokens))?;
        Ok(bound.charge)
    }

    fn convert(&self, usd: Result<Decimal, MissingPart>) -> Result<Charge, Unpriceable> {
        let usd = usd.map_err(|_| Unpriceable::PartMissing)?;
        let charge = price::charge(usd, self.credit_usd, self.markup_percent);
        charge.ok_or(Unpriceable::TooLarge)
    }
}

/// What a call claims of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Claim {
    /// Set aside: the most it may use.
    pub hold: i64,
    /// Charged when it was forwarded and nothing more is known: its input.
    pub floor: i64,
    /// The least with which it would make sense: its input and one token of output.
    pub minimum: i64,
}

impl Claim {
    /// A claim that is the same however the call goes.
    pub fn fixed(amount: i64) -> Self {
        Self {
            hold: amount,
            floor: amount,
            minimum: amount,
        }
    }
}

/// What a call asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Demand {
    /// Tokens of a model.
    Tokens {
        /// With the output that is held where the caller names no maximum filled in.
        estimate: Estimate,
        /// Whether it is a chat call, which counts as a message.
        is_message: bool,
    },
    /// A fixed charge.
    Flat(config::Charge),
}

/// One call's claims, priced.
#[derive(Debug, Clone, PartialEq)]
pub struct Quote {
    /// How it is priced.
    pub tariff: Tariff,
    /// What it asks for.
    pub demand: Demand,
    /// The claims on the account's limits.
    pub lines: Vec<Line>,
    credit: Claim,
    tokens: Claim,
}

impl Quote {
    /// Prices a demand.
    pub fn new(tariff: Tariff, demand: Demand) -> Result<Self, Unpriceable> {
        let (credit, tokens) = match &demand {
            Demand::Flat(charge) => (Claim::fixed(charge.credits.0), Claim::default()),
            Demand::Tokens { estimate, .. } => {
                let input = estimate.input_tokens;
                let output = estimate.most_output();
                let least_output = output.min(1);
                let bound = |output| tariff.upper_bound(input, output).map(|nanos| nanos.0);
                let credit = Claim {
                    hold: bound(output)?,
                    floor: tariff.charge(&Usage::of_input(input))?.charge.0,
                    minimum: bound(least_output)?,
                };
                let tokens = Claim {
                    hold: input + output,
                    floor: input,
                    minimum: input + least_output,
                };
                (credit, tokens)
            }
        };
        Ok(Self {
            tariff,
            demand,
            lines: Vec::new(),
            credit,
            tokens,
        })
    }

    /// Charges nothing and holds nothing: what is used is only recorded.
    pub fn charge_nothing(&mut self) {
        self.credit = Claim::default();
        self.lines.clear();
    }

    /// The claim on the wallet.
    pub fn charge_claim(&self) -> Claim {
        self.credit
    }

    /// The claim on a resource; `None` where the call uses nothing of it.
    pub fn claim_on(&self, resource: &Resource) -> Option<Claim> {
        match (resource, &self.demand) {
            (Resource::Spend, _) => Some(self.credit),
            (Resource::Requests, _) => Some(Claim::fixed(1)),
            (Resource::Tokens, Demand::Tokens { .. }) => Some(self.tokens),
            (Resource::Messages, Demand::Tokens { is_message, .. }) => {
                is_message.then(|| Claim::fixed(1))
            }
            (resource, Demand::Flat(charge)) if charge.resource.as_ref() == Some(resource) => {
                Some(Claim::fixed(1))
            }
            _ => None,
        }
    }

    /// Builds the lines for an account's limits, in the windows that hold `at` (rules 12, 13).
    pub fn claim_lines(&mut self, snapshot: &Snapshot, at: UnixMs) {
        let line = |limit: &crate::quota::Limit| {
            let claim = self.claim_on(&limit.key.resource)?;
            Some(Line {
                key: limit.key.clone(),
                span: limit.key.window.span(at, snapshot.anchor_at),
                amount: Amount(claim.hold),
                floor: Amount(claim.floor),
                limit: limit.limit,
            })
        };
        self.lines = snapshot.limits.iter().filter_map(line).collect();
    }

    /// What each line counts when the call has used this much.
    pub fn counts(&self, usage: &Usage, charge: Nanos) -> Vec<Count> {
        let tokens = usage.input_tokens.saturating_add(usage.output_tokens);
        let count = |line: &Line| Count {
            key: line.key.clone(),
            start: line.span.start,
            amount: Amount(match line.key.resource {
                Resource::Spend => charge.0,
                Resource::Tokens => tokens.clamp(0, MAX_AMOUNT),
                _ => 1,
            }),
        };
        self.lines.iter().map(count).collect()
    }

    /// The largest `max_tokens` with which the call would fit what is left, calls in flight not counted.
    pub fn largest_max_tokens(&self, overage: Nanos, seen: &Seen) -> Option<i64> {
        let Demand::Tokens { estimate, .. } = &self.demand else {
            return None;
        };
        let fits = |max_tokens: i64| {
            let smaller = Estimate {
                output_tokens: Some(max_tokens),
                ..*estimate
            };
            let demand = Demand::Tokens {
                estimate: smaller,
                is_message: true,
            };
            let Ok(quote) = Self::new(self.tariff.clone(), demand) else {
                return false;
            };
            let credit = (seen.balance + seen.held + overage).0;
            quote.credit.hold <= credit
                && self.lines.iter().zip(&seen.lines).all(|(line, state)| {
                    let claim = quote.claim_on(&line.key.resource);
                    claim.is_none_or(|claim| claim.hold <= line.limit.0 - state.used.0)
                })
        };
        // What fits is everything up to some number, so halving finds it.
        let (mut fitting, mut too_many) = (0, estimate.output_tokens? + 1);
        while too_many - fitting > 1 {
            let middle = fitting + (too_many - fitting) / 2;
            if fits(middle) {
                fitting = middle;
            } else {
                too_many = middle;
            }
        }
        (fitting > 0).then_some(fitting)
    }
}
