//! The meter of one call: it watches what is used and can say at any time how the reservation would end (rule 8).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::quote::{Demand, Quote, Tariff, Unpriceable};
use crate::clock::UnixMs;
use crate::dialect::{Answered, Usage};
use crate::ledger::RecordDetail;
use crate::money::{MAX_AMOUNT, Nanos};
use crate::price::{Charge, PriceBook};
use crate::quota::{Detail, Ending, Metered, Mode, Outcome};

/// Why a call's use was counted here.
pub const UNSAID: &str = "the answer did not say its usage";
const UNREAD: &str = "a part of the answer could not be read, and it did not say its usage";

/// What the record says of a call beside what it used.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The route's prefix.
    pub route: Arc<str>,
    /// Whose prices.
    pub provider: Arc<str>,
    /// The model that was asked for; empty where a call has none.
    pub model: String,
    /// Who called.
    pub api_key_id: uuid::Uuid,
    /// What the caller says of itself.
    pub scopes: CallerScopes,
    /// How strictly the account was held.
    pub mode: Mode,
    /// When the call was admitted: its price is of this moment.
    pub at: UnixMs,
}

/// What a caller says of itself, for reports; never what identifies it (invariant 10).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CallerScopes {
    /// `X-Tollgate-User`.
    pub user: Option<String>,
    /// `X-Tollgate-Project`.
    pub project: Option<String>,
    /// `X-Tollgate-Tags`.
    pub tags: BTreeMap<String, String>,
}

/// How far the call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing has left this process, or the upstream refused or never began to answer: nothing is charged.
    NotServed,
    /// It was forwarded: from now on at least its input is charged.
    Forwarded,
}

/// What has been seen of the call.
#[derive(Debug)]
struct Watched {
    stage: Stage,
    /// What has been read of the answer.
    answered: Answered,
    /// Why the usage had to be counted here, where the answer ended without saying it.
    unmetered: Option<&'static str>,
    /// What monitor mode would have refused the call with.
    would_refuse: Option<&'static str>,
    /// Whether it went on without the store.
    bounded: bool,
}

/// One call's meter.
pub struct Meter {
    facts: Facts,
    quote: Quote,
    prices: Arc<PriceBook>,
    /// A plain mutex: it is held for a few instructions, by the call and now and then by a heartbeat, never across
    /// an await.
    watched: Mutex<Watched>,
}

impl Meter {
    /// A meter for a call that has not been forwarded yet.
    pub fn new(facts: Facts, quote: Quote, prices: Arc<PriceBook>) -> Self {
        let watched = Mutex::new(Watched {
            stage: Stage::NotServed,
            answered: Answered::default(),
            unmetered: None,
            would_refuse: None,
            bounded: false,
        });
        Self {
            facts,
            quote,
            prices,
            watched,
        }
    }

    /// The call leaves this process now.
    pub fn forwarded(&self) {
        self.watched.lock().stage = Stage::Forwarded;
    }

    /// The upstream refused, or never began to answer.
    pub fn not_served(&self) {
        self.watched.lock().stage = Stage::NotServed;
    }

    /// So much of the answer has been read by now. What was seen before is never taken back.
    pub fn saw(&self, answered: &Answered) {
        let mut now = answered.clone();
        if answered.oversized_events > 0 {
            // What went by unread may have been anything that was allowed.
            now.output_seen = now.output_seen.max(self.most_output());
        }
        let mut watched = self.watched.lock();
        now.output_seen = now.output_seen.max(watched.answered.output_seen);
        watched.answered = now;
        if answered.oversized_events > 0 || answered.unread_events > 0 {
            watched.unmetered.get_or_insert(UNREAD);
        }
    }

    /// The answer is over; if it did not say what was used, the count of what went by is charged.
    pub fn ended(&self) {
        self.watched.lock().unmetered.get_or_insert(UNSAID);
    }

    /// The model that was asked for.
    pub fn model(&self) -> &str {
        &self.facts.model
    }

    /// Nothing of the answer can be read: all the output that was held is charged, and said so (invariant 5).
    pub fn unreadable(&self, why: &'static str) {
        let output_tokens = self.most_output();
        let mut watched = self.watched.lock();
        watched.unmetered.get_or_insert(why);
        watched.answered.output_seen = watched.answered.output_seen.max(output_tokens);
    }

    /// The most output the call may have.
    pub fn most_output(&self) -> i64 {
        match &self.quote.demand {
            Demand::Tokens { estimate, .. } => estimate.most_output(),
            Demand::Flat(_) => 0,
        }
    }

    /// What monitor mode would have refused the call with.
    pub fn would_refuse(&self, code: Option<&'static str>) {
        self.watched.lock().would_refuse = code;
    }

    /// The call goes on without the store (rule 31).
    pub fn bounded(&self) {
        self.watched.lock().bounded = true;
    }

    /// What was held.
    pub fn quote(&self) -> &Quote {
        &self.quote
    }

    /// The record if the hold lapses before any heartbeat: a lapse assumes that the call was forwarded (rule 6).
    pub fn detail_if_lapsed(&self) -> Detail {
        let mut watched = self.watched.lock();
        let stage = std::mem::replace(&mut watched.stage, Stage::Forwarded);
        let detail = self.detail(&watched, &self.assess(&watched));
        watched.stage = stage;
        detail
    }

    /// What the call would be charged if it ended now.
    pub fn charged(&self) -> Nanos {
        self.assess(&self.watched.lock()).charged.charge
    }

    fn assess(&self, watched: &Watched) -> Assessment {
        if watched.stage == Stage::NotServed {
            return Assessment::nothing(&self.quote.tariff);
        }
        let answered = &watched.answered;
        let mut assessment = match answered.usage.map(|usage| self.price(watched, usage)) {
            Some(reported) if !answered.usage_is_behind => reported,
            // What went by counts, unless a usage that came before the last of it is more already.
            reported => {
                let seen = self.price_seen(watched);
                let reported = reported.filter(|it| it.charged.charge > seen.charged.charge);
                reported.unwrap_or(seen)
            }
        };
        if self.facts.mode == Mode::Off {
            assessment.charged.charge = Nanos::ZERO;
        }
        assessment
    }

    /// Charges the input and the output that was seen, and never less than the floor.
    fn price_seen(&self, watched: &Watched) -> Assessment {
        let seen = Usage {
            output_tokens: watched.answered.output_seen,
            ..Usage::of_input(self.input_estimate())
        };
        let mut assessment = self.price(watched, seen);
        let floor = Nanos(self.quote.charge_claim().floor);
        assessment.charged.charge = assessment.charged.charge.max(floor);
        assessment
    }

    /// Charges by the price of the model that answered, or, if it has none, by the one that was held (rule 9).
    fn price(&self, watched: &Watched, usage: Usage) -> Assessment {
        let held = &self.quote.tariff;
        if let Demand::Flat(flat) = &self.quote.demand {
            let charged = Charge {
                cost: Nanos::ZERO,
                charge: flat.credits,
            };
            return Assessment::new(charged, usage, held.price, None);
        }
        let answered = watched
            .answered
            .model
            .as_deref()
            .filter(|model| held.price.is_some() && *model != self.facts.model);
        let Some(model) = answered else {
            return Assessment::held(held, usage, None);
        };
        let price = self.prices.find(&self.facts.provider, model, self.facts.at);
        let tariff = price.map(|price| held.with_price(price));
        match tariff.and_then(|tariff| Some((tariff.charge(&usage).ok()?, tariff.price))) {
            Some((charged, price)) => Assessment::new(charged, usage, price, None),
            None => Assessment::held(held, usage, Some("the model that answered has no price")),
        }
    }

    fn detail(&self, watched: &Watched, assessment: &Assessment) -> Detail {
        let (facts, answered) = (&self.facts, &watched.answered);
        let usage = &assessment.usage;
        let notes = [
            // It only matters where no usage came in spite of it.
            (
                "unmetered",
                watched.unmetered.filter(|_| answered.usage.is_none()),
            ),
            ("price", assessment.price_note),
            ("would_refuse", watched.would_refuse),
            ("mode", (facts.mode == Mode::Off).then_some("off")),
            (
                "unpriced",
                assessment
                    .price
                    .is_none()
                    .then_some("the model has no price"),
            ),
        ];
        let is_flat = matches!(self.quote.demand, Demand::Flat(_));
        let properties = notes
            .into_iter()
            .filter(|(name, _)| !(is_flat && *name == "unpriced"))
            .filter_map(|(name, note)| Some((name.to_owned(), note?.into())))
            .chain(watched.bounded.then(|| ("bounded".to_owned(), true.into())));
        let reported = answered.usage_json.clone();
        RecordDetail {
            route: facts.route.to_string(),
            provider: facts.provider.to_string(),
            model: answered.model.as_ref().unwrap_or(&facts.model).clone(),
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cache_read_tokens: usage.cache_read_tokens,
            cache_write_tokens: usage.cache_write_tokens,
            cost: assessment.charged.cost,
            price_id: assessment.price,
            api_key_id: Some(facts.api_key_id),
            user_ref: facts.scopes.user.clone(),
            project_ref: facts.scopes.project.clone(),
            tags: facts.scopes.tags.clone(),
            usage: reported.and_then(|json| RawValue::from_string(json).ok()),
            properties: properties.collect(),
        }
        .to_detail()
    }

    fn input_estimate(&self) -> i64 {
        match &self.quote.demand {
            Demand::Tokens { estimate, .. } => estimate.input_tokens,
            Demand::Flat(_) => 0,
        }
    }
}

/// What the call comes to.
struct Assessment {
    charged: Charge,
    usage: Usage,
    price: Option<i64>,
    /// Why the held price was used although another model answered.
    price_note: Option<&'static str>,
}

impl Assessment {
    fn new(
        charged: Charge,
        usage: Usage,
        price: Option<i64>,
        price_note: Option<&'static str>,
    ) -> Self {
        Self {
            charged,
            usage,
            price,
            price_note,
        }
    }

    fn nothing(tariff: &Tariff) -> Self {
        Self::new(Charge::default(), Usage::default(), tariff.price, None)
    }

    fn held(tariff: &Tariff, usage: Usage, note: Option<&'static str>) -> Self {
        let (charged, note) = match tariff.charge(&usage) {
            Ok(charged) => (charged, note),
            // The claim needed no such part, or it would have been refused: the provider reports what was not asked for.
            Err(Unpriceable::PartMissing) => {
                let input = tariff.charge(&Usage::of_input(usage.input_tokens));
                let note = "the price lacks a part that was used: only the input is charged";
                (input.unwrap_or_default(), Some(note))
            }
            Err(Unpriceable::TooLarge) => {
                let largest = Charge {
                    cost: Nanos(MAX_AMOUNT),
                    charge: Nanos(MAX_AMOUNT),
                };
                (largest, Some("beyond the largest amount, which is charged"))
            }
        };
        Self::new(charged, usage, tariff.price, note)
    }
}

impl Metered for Meter {
    fn ending(&self) -> Ending {
        let watched = self.watched.lock();
        let assessment = self.assess(&watched);
        let served = watched.stage == Stage::Forwarded;
        let charge = assessment.charged.charge;
        let counts = if served {
            self.quote.counts(&assessment.usage, charge)
        } else {
            Vec::new()
        };
        Ending {
            outcome: if served {
                Outcome::Settled
            } else {
                Outcome::Released
            },
            charge,
            counts,
            detail: self.detail(&watched, &assessment),
        }
    }
}
