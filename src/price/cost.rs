//! From usage to cost, in USD and unrounded, as genai-prices computes it.
//!
//! One thing differs: a part that was used and has no rate is an error here, where genai-prices makes it free.

use rust_decimal::Decimal;

use super::{Rate, Rates};
use crate::dialect::Usage;

/// USD, unrounded, by what it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// All input.
    pub input: Decimal,
    /// All output.
    pub output: Decimal,
    /// The call itself.
    pub request: Decimal,
}

/// A part that the call needs and the price lacks: the model is not priced for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MissingPart {
    /// Input, or an empty price.
    #[error("the price has no rate for input")]
    Input,
    /// Output, as with an embedding model that is asked to chat.
    #[error("the price has no rate for output")]
    Output,
}

impl Cost {
    /// All of it.
    pub fn total(&self) -> Decimal {
        self.input
            .saturating_add(self.output)
            .saturating_add(self.request)
    }
}

impl Rate {
    /// The rate of a call with so much input in all. A tier begins *beyond* its start, and is a cliff: it then applies
    /// to the whole call.
    fn at(&self, input_tokens: i64) -> Decimal {
        let mut reached = self.tiers.iter().rev();
        reached
            .find(|(start, _)| input_tokens > *start)
            .map_or(self.base, |(_, price)| *price)
    }
}

/// USD for so many tokens at a rate by the million. Saturates, so that absurd numbers from outside become an amount
/// that [`charge`](super::charge) refuses.
fn price_of(tokens: i64, rate: Decimal) -> Decimal {
    Decimal::from(tokens).saturating_mul(rate) / Decimal::from(1_000_000)
}

impl Rates {
    /// What a call with this usage costs in all.
    pub fn cost(&self, usage: &Usage) -> Result<Decimal, MissingPart> {
        self.parts(usage).map(|cost| cost.total())
    }

    /// What a call with this usage costs, by part.
    ///
    /// A special part without a rate of its own is what it is a part of: cached audio is cached input, else audio, else
    /// input.
    pub fn parts(&self, usage: &Usage) -> Result<Cost, MissingPart> {
        if *self == Self::default() {
            return Err(MissingPart::Input);
        }
        let rate = |rates: &[&Option<Rate>]| {
            let first = rates.iter().find_map(|rate| rate.as_ref());
            first.map(|rate| rate.at(usage.input_tokens))
        };
        let of = |tokens: i64, rates: &[&Option<Rate>], missing: MissingPart| {
            if tokens <= 0 {
                return Ok(Decimal::ZERO);
            }
            Ok(price_of(tokens, rate(rates).ok_or(missing)?))
        };

        let cached_audio = usage.cache_audio_read_tokens;
        let cached = usage.cache_read_tokens.saturating_sub(cached_audio);
        let audio = usage.input_audio_tokens.saturating_sub(cached_audio);
        let special = [
            cached_audio,
            cached.max(0),
            audio.max(0),
            usage.cache_write_tokens,
        ];
        // Below zero only where the provider contradicts itself; each part it names is charged all the same.
        let plain = special
            .iter()
            .fold(usage.input_tokens, |left, part| left.saturating_sub(*part));

        let (input, cache_read) = (&self.input, &self.cache_read);
        let cached_audio_rates = [&self.cache_audio_read, cache_read, &self.input_audio, input];
        let input = [
            of(plain, &[input], MissingPart::Input)?,
            of(cached, &[cache_read, input], MissingPart::Input)?,
            of(
                usage.cache_write_tokens,
                &[&self.cache_write, input],
                MissingPart::Input,
            )?,
            of(audio, &[&self.input_audio, input], MissingPart::Input)?,
            of(cached_audio, &cached_audio_rates, MissingPart::Input)?,
        ];
        let audio = usage.output_audio_tokens;
        let text = usage.output_tokens.saturating_sub(audio);
        let output = [
            of(text, &[&self.output], MissingPart::Output)?,
            of(
                audio,
                &[&self.output_audio, &self.output],
                MissingPart::Output,
            )?,
        ];
        let sum = |parts: &[Decimal]| {
            let add = |sum: Decimal, part: &Decimal| sum.saturating_add(*part);
            parts.iter().fold(Decimal::ZERO, add)
        };
        Ok(Cost {
            input: sum(&input),
            output: sum(&output),
            request: self.request(),
        })
    }

    /// The most that any usage within these bounds can cost.
    ///
    /// Any of the input may turn out cached, written to a cache or audio, and a call just below a tier may cost more
    /// than one beyond it, so the dearest rate counts at the end of every tier that is within reach.
    pub fn upper_bound(
        &self,
        input_tokens: i64,
        output_tokens: i64,
    ) -> Result<Decimal, MissingPart> {
        if *self == Self::default() || (input_tokens > 0 && self.input.is_none()) {
            return Err(MissingPart::Input);
        }
        if output_tokens > 0 && self.output.is_none() {
            return Err(MissingPart::Output);
        }
        let input_rates = [
            &self.input,
            &self.cache_read,
            &self.cache_write,
            &self.input_audio,
            &self.cache_audio_read,
        ];
        let output_rates = [&self.output, &self.output_audio];
        let dearest = |rates: &[&Option<Rate>], tokens: i64| {
            let rates = rates.iter().filter_map(|rate| rate.as_ref());
            rates.map(|rate| rate.at(tokens)).max().unwrap_or_default()
        };
        let tier_ends = input_rates
            .iter()
            .chain(&output_rates)
            .filter_map(|rate| rate.as_ref())
            .flat_map(|rate| rate.tiers.iter().map(|(start, _)| *start))
            .filter(|start| *start < input_tokens);
        let worst = tier_ends
            .chain([input_tokens])
            .map(|tokens| {
                price_of(tokens, dearest(&input_rates, tokens))
                    .saturating_add(price_of(output_tokens, dearest(&output_rates, tokens)))
            })
            .max();
        Ok(worst.unwrap_or_default().saturating_add(self.request()))
    }

    fn request(&self) -> Decimal {
        self.requests_k.unwrap_or_default() / Decimal::ONE_THOUSAND
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rate(base: i64, tiers: &[(i64, i64)]) -> Rate {
        let tiers = tiers.iter().map(|(start, price)| (*start, (*price).into()));
        Rate {
            base: base.into(),
            tiers: tiers.collect(),
        }
    }

    #[test]
    fn a_tier_is_a_cliff_that_begins_beyond_its_start() {
        let rates = Rates {
            input: Some(rate(1, &[(100, 2), (200, 5)])),
            output: Some(rate(10, &[(100, 20)])),
            ..Rates::default()
        };
        let cost = |input_tokens| {
            let usage = Usage {
                input_tokens,
                output_tokens: 1_000_000,
                ..Usage::default()
            };
            let cost = rates.parts(&usage).unwrap();
            (cost.input * Decimal::from(1_000_000), cost.output)
        };
        assert_eq!(cost(100), (100.into(), 10.into()));
        assert_eq!(cost(101), (202.into(), 20.into()));
        assert_eq!(cost(201), (1005.into(), 20.into()));
    }

    #[test]
    fn what_is_used_and_not_priced_is_never_free() {
        let embedding = Rates {
            input: Some(rate(1, &[])),
            ..Rates::default()
        };
        let usage = |input_tokens, output_tokens| Usage {
            input_tokens,
            output_tokens,
            ..Usage::default()
        };
        assert!(embedding.cost(&usage(10, 0)).is_ok());
        assert_eq!(embedding.cost(&usage(10, 1)), Err(MissingPart::Output));
        assert!(embedding.upper_bound(10, 0).is_ok());
        assert_eq!(embedding.upper_bound(10, 1), Err(MissingPart::Output));
        let empty = Rates::default();
        assert_eq!(empty.cost(&usage(0, 0)), Err(MissingPart::Input));
        assert_eq!(empty.upper_bound(0, 0), Err(MissingPart::Input));
    }

    #[test]
    fn a_part_without_a_rate_of_its_own_is_what_it_is_a_part_of() {
        let usage = Usage {
            input_tokens: 100,
            cache_read_tokens: 50,
            cache_write_tokens: 10,
            input_audio_tokens: 20,
            cache_audio_read_tokens: 5,
            output_tokens: 9,
            output_audio_tokens: 4,
        };
        let micros = |rates: &Rates| rates.cost(&usage).unwrap() * Decimal::from(1_000_000);
        let mut rates = Rates {
            input: Some(rate(1, &[])),
            output: Some(rate(1, &[])),
            ..Rates::default()
        };
        assert_eq!(micros(&rates), 109.into());
        rates.cache_read = Some(rate(2, &[]));
        assert_eq!(micros(&rates), 159.into());
        rates.cache_audio_read = Some(rate(4, &[]));
        assert_eq!(micros(&rates), 169.into());
        rates.input_audio = Some(rate(8, &[]));
        assert_eq!(micros(&rates), (169 + 15 * 7).into());
        rates.cache_write = Some(rate(3, &[]));
        rates.output_audio = Some(rate(11, &[]));
        assert_eq!(micros(&rates), (169 + 15 * 7 + 20 + 40).into());
    }

    prop_compose! {
        fn any_rate()(base in 0..50_i64, tiers in prop::collection::btree_map(1..400_i64, 0..50_i64, 0..3)) -> Rate {
            let tiers = tiers.into_iter().map(|(start, price)| (start, price.into()));
            Rate { base: base.into(), tiers: tiers.collect() }
        }
    }

    prop_compose! {
        fn any_rates()(
            input in any_rate(), output in any_rate(),
            other in prop::collection::vec(prop::option::of(any_rate()), 5),
            requests_k in prop::option::of(0..9_i64),
        ) -> Rates {
            let mut other = other.into_iter();
            let mut next = || other.next().flatten();
            Rates {
                input: Some(input), output: Some(output), cache_read: next(), cache_write: next(), input_audio: next(),
                output_audio: next(), cache_audio_read: next(), requests_k: requests_k.map(Decimal::from),
            }
        }
    }

    proptest! {
        #[test]
        fn no_usage_within_the_bounds_costs_more_than_the_bound(
            rates in any_rates(), input in 0..600_i64, spare in 0..300_i64, output in 0..600_i64,
            shares in prop::collection::vec(0..=100_i64, 4),
        ) {
            // Cuts the input into parts that do not overlap, but for audio that is cached.
            let mut left = input;
            let mut part = |percent: i64| {
                let part = left * percent / 100;
                left -= part;
                part
            };
            let (cached_audio, cached, audio, written) = (part(shares[0]), part(shares[1]), part(shares[2]), part(shares[3]));
            let usage = Usage {
                input_tokens: input,
                cache_read_tokens: cached + cached_audio,
                cache_write_tokens: written,
                input_audio_tokens: audio + cached_audio,
                cache_audio_read_tokens: cached_audio,
                output_tokens: output,
                output_audio_tokens: output / 3,
            };
            prop_assert!(rates.cost(&usage).unwrap() <= rates.upper_bound(input + spare, output + spare).unwrap());
        }

        #[test]
        fn absurd_numbers_never_panic(rates in any_rates(), a in any::<i64>(), b in any::<i64>(), c in any::<i64>()) {
            let usage = Usage { input_tokens: a, cache_read_tokens: b, output_tokens: c, output_audio_tokens: b,
                cache_audio_read_tokens: c, cache_write_tokens: a, input_audio_tokens: b };
            let _ = rates.cost(&usage);
            let _ = rates.upper_bound(a, b);
        }
    }
}
