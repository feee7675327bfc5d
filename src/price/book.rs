//! The book: which price applies to a model of a provider at a moment.
//!
//! Every call asks it twice, so names are looked up in a map and only what the map does not know is matched by rule.

use std::borrow::Cow;
use std::collections::HashMap;

use super::matcher::Matcher;
use super::{PriceEntry, PriceError, PriceSource};
use crate::clock::UnixMs;

/// Every price there is, ready to be asked.
#[derive(Debug, Default)]
pub struct PriceBook {
    entries: Vec<PriceEntry>,
    providers: HashMap<String, Provider>,
}

/// One provider's models; those of the operator's catalogue win.
#[derive(Debug, Default)]
struct Provider {
    catalog: Models,
    seed: Models,
}

/// Models in the order they were made, which is the order in which their rules are tried.
#[derive(Debug, Default)]
struct Models {
    all: Vec<Model>,
    /// Which model each name that a rule spells out belongs to, earlier patterns taken into account.
    exact: HashMap<String, usize>,
    /// The models that match more than the names they spell out.
    patterns: Vec<usize>,
}

/// One model: its rule, and the positions of its prices in the order in which the last active one wins.
#[derive(Debug)]
struct Model {
    id: String,
    matcher: Matcher,
    entries: Vec<usize>,
}

impl PriceBook {
    /// Makes the entries ready; their order is the order in which match rules are tried.
    pub fn new(entries: Vec<PriceEntry>) -> Result<Self, PriceError> {
        let mut providers: HashMap<String, Provider> = HashMap::new();
        let mut groups: HashMap<String, usize> = HashMap::new();
        for (position, entry) in entries.iter().enumerate() {
            let provider = providers
                .entry(lower(&entry.provider).into_owned())
                .or_default();
            let models = match entry.source {
                PriceSource::Seed => &mut provider.seed.all,
                PriceSource::Catalog => &mut provider.catalog.all,
            };
            let group = format!(
                "{:?} {} {} {:?}",
                entry.source, entry.provider, entry.model, entry.matches
            );
            let known = groups.get(&group).copied();
            if let Some(model) = known.and_then(|index| models.get_mut(index)) {
                model.entries.push(position);
                continue;
            }
            groups.insert(group, models.len());
            models.push(Model {
                id: entry.model.to_lowercase(),
                matcher: Matcher::new(&entry.matches).map_err(|error| PriceError::Match {
                    provider: entry.provider.clone(),
                    model: entry.model.clone(),
                    reason: error.to_string(),
                })?,
                entries: vec![position],
            });
        }
        for provider in providers.values_mut() {
            // The operator may write prices down in any order; a later date is what makes one newer. The seed's order
            // has a meaning of its own.
            for model in &mut provider.catalog.all {
                model
                    .entries
                    .sort_by_key(|position| entries[*position].from);
            }
            provider.catalog.index();
            provider.seed.index();
        }
        Ok(Self { entries, providers })
    }

    /// The price of a model, by any of its names, at a moment; `None` where there is none.
    ///
    /// A price of the catalogue also applies to the other names by which the seed knows its model: who prices
    /// `gpt-4o-mini` means the `gpt-4o-mini-2024-07-18` that answers, too.
    pub fn find(&self, provider: &str, model: &str, at: UnixMs) -> Option<&PriceEntry> {
        let provider = self.providers.get(lower(provider.trim()).as_ref())?;
        let name = lower(model);
        let seeded = provider.seed.named(&name);
        let from_catalog = provider
            .catalog
            .named(&name)
            .and_then(|model| self.active(model, at))
            .or_else(|| {
                let by_id = provider.catalog.named(&seeded?.id)?;
                self.active(by_id, at)
            });
        from_catalog.or_else(|| {
            let seeded = seeded?;
            // As in genai-prices: where no condition holds, the first price does.
            self.active(seeded, at)
                .or_else(|| self.entries.get(*seeded.entries.first()?))
        })
    }

    fn active(&self, model: &Model, at: UnixMs) -> Option<&PriceEntry> {
        let entries = model.entries.iter().rev();
        entries
            .map(|position| &self.entries[*position])
            .find(|entry| entry.is_active(at))
    }
}

impl PriceEntry {
    /// Whether its date has come and its time of day is now.
    fn is_active(&self, at: UnixMs) -> bool {
        let in_daily = |(start, end): (u32, u32)| {
            let time = at.to_utc().time();
            let (hour, minute, second) = time.as_hms();
            let now = u32::from(hour) * 3600 + u32::from(minute) * 60 + u32::from(second);
            if start <= end {
                start <= now && now < end
            } else {
                start <= now || now < end
            }
        };
        self.from.is_none_or(|from| from <= at) && self.daily.is_none_or(in_daily)
    }
}

impl Models {
    fn index(&mut self) {
        let models = &self.all;
        self.patterns = (0..models.len())
            .filter(|index| models[*index].matcher.is_pattern())
            .collect();
        for (index, model) in models.iter().enumerate() {
            let mut names = Vec::new();
            model.matcher.exact_names(&mut names);
            for name in names {
                if self.exact.contains_key(name) {
                    continue;
                }
                let mut earlier = self.patterns.iter().take_while(|pattern| **pattern < index);
                let first = earlier.find(|pattern| models[**pattern].matcher.is_match(name));
                self.exact
                    .insert(name.to_owned(), first.copied().unwrap_or(index));
            }
        }
    }

    fn named(&self, name: &str) -> Option<&Model> {
        let matches = |index: &&usize| self.all[**index].matcher.is_match(name);
        let index = self
            .exact
            .get(name)
            .or_else(|| self.patterns.iter().find(matches));
        index.map(|index| &self.all[*index])
    }
}

fn lower(text: &str) -> Cow<'_, str> {
    if text
        .bytes()
        .any(|b| b.is_ascii_uppercase() || !b.is_ascii())
    {
        Cow::Owned(text.to_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ModelMatch, Rate, Rates};
    use super::*;
    use rust_decimal::Decimal;
    use time::macros::datetime;

    fn entry(source: PriceSource, model: &str, matches: ModelMatch, input: i64) -> PriceEntry {
        PriceEntry {
            id: input,
            provider: "openai".into(),
            model: model.into(),
            source,
            matches,
            context_window: None,
            from: None,
            daily: None,
            rates: Rates {
                input: Some(Rate {
                    base: Decimal::from(input),
                    tiers: vec![],
                }),
                ..Rates::default()
            },
        }
    }

    fn seed(model: &str, matches: ModelMatch, id: i64) -> PriceEntry {
        entry(PriceSource::Seed, model, matches, id)
    }

    fn catalog(model: &str, id: i64) -> PriceEntry {
        let matches = ModelMatch::Equals(model.into());
        entry(PriceSource::Catalog, model, matches, id)
    }

    fn found(book: &PriceBook, model: &str) -> Option<i64> {
        book.find("openai", model, datetime!(2026-06-01 12:00 UTC).into())
            .map(|entry| entry.id)
    }

    #[test]
    fn the_first_rule_that_matches_wins_whether_it_is_a_name_or_a_pattern() {
        let equals = |text: &str| ModelMatch::Equals(text.into());
        let book = PriceBook::new(vec![
            seed("a", equals("gpt-A"), 1),
            seed("b", ModelMatch::StartsWith("gpt-".into()), 2),
            seed("c", equals("gpt-c"), 3),
            seed("d", ModelMatch::Regex("^o[134]$".into()), 4),
        ])
        .unwrap();
        assert_eq!(found(&book, "GPT-a"), Some(1));
        assert_eq!(found(&book, "gpt-c"), Some(2));
        assert_eq!(found(&book, "O3"), Some(4));
        assert_eq!(found(&book, "claude"), None);
        assert!(
            book.find("nobody", "gpt-a", UnixMs(0)).is_none(),
            "another provider's price was taken"
        );
    }

    #[test]
    fn the_catalogue_wins_over_the_seed_for_every_name_of_the_model() {
        let names = ModelMatch::Or(vec![
            ModelMatch::Equals("mini".into()),
            ModelMatch::Equals("mini-2024".into()),
        ]);
        let mut later = catalog("mini", 3);
        later.from = Some(datetime!(2026-05-01 0:00 UTC).into());
        let mut future = catalog("mini", 4);
        future.from = Some(datetime!(2027-05-01 0:00 UTC).into());
        let entries = vec![future, later, catalog("mini", 2), seed("mini", names, 1)];
        let book = PriceBook::new(entries).unwrap();
        assert_eq!(found(&book, "mini"), Some(3));
        assert_eq!(found(&book, "mini-2024"), Some(3));
        let before = book.find("openai", "mini-2024", UnixMs(0)).unwrap();
        assert_eq!(before.id, 2);
    }

    #[test]
    fn a_daily_price_applies_within_its_hours_only() {
        let equals = ModelMatch::Equals("m".into());
        let mut night = seed("m", equals.clone(), 2);
        night.daily = Some((22 * 3600, 3600));
        let book = PriceBook::new(vec![seed("m", equals, 1), night]).unwrap();
        let at = |at: time::OffsetDateTime| book.find("openai", "m", at.into()).unwrap().id;
        assert_eq!(at(datetime!(2026-06-01 21:59:59 UTC)), 1);
        assert_eq!(at(datetime!(2026-06-01 22:00 UTC)), 2);
        assert_eq!(at(datetime!(2026-06-01 0:59:59 UTC)), 2);
        assert_eq!(at(datetime!(2026-06-01 1:00 UTC)), 1);
    }

    #[test]
    fn an_unusable_rule_is_an_error_that_names_its_model() {
        let broken = seed("m", ModelMatch::Regex("(".into()), 1);
        let PriceError::Match { model, .. } = PriceBook::new(vec![broken]).unwrap_err();
        assert_eq!(model, "m");
    }
}
