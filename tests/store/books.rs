//! A ledger of one page, kept from what a store says it moved: whether its balances are what its records say (invariant 6).

use std::collections::BTreeMap;

use tollgate::clock::UnixMs;
use tollgate::money::{Amount, Nanos};
use tollgate::quota::{AccountImage, AccountView, CounterKey, LotId, LotState, Moved};

#[derive(Debug, Default)]
pub struct Books {
    lots: BTreeMap<LotId, Nanos>,
    debt: Nanos,
    counters: BTreeMap<(CounterKey, UnixMs), Amount>,
}

impl Books {
    pub fn of(image: &AccountImage) -> Self {
        let counter = |c: &tollgate::quota::CounterBalance| ((c.key.clone(), c.start), c.used);
        Self {
            lots: image
                .lots
                .iter()
                .map(|(lot, left)| (lot.id, *left))
                .collect(),
            debt: image.debt,
            counters: image.counters.iter().map(counter).collect(),
        }
    }

    pub fn record(&mut self, moved: &Moved) {
        for (id, by) in &moved.lots {
            *self.lots.entry(*id).or_default() += *by;
        }
        self.debt += moved.debt;
        for count in &moved.counters {
            let counter = (count.key.clone(), count.start);
            *self.counters.entry(counter).or_default() += count.amount;
        }
    }

    /// Panics where a balance is not what the records say, to the last nano.
    pub fn check(&self, view: &AccountView) {
        let known: BTreeMap<LotId, LotState> = view.lots.iter().copied().collect();
        for id in self.lots.keys().chain(known.keys()) {
            let booked = self.lots.get(id).copied().unwrap_or_default();
            let stored = known.get(id).copied().unwrap_or_default();
            assert_eq!(
                booked - stored.held,
                stored.left,
                "lot {id} is what its records say"
            );
        }
        assert_eq!(self.debt, view.debt.left, "debt is what its records say");
        for counter in &view.counters {
            let span = (counter.key.clone(), counter.start);
            let booked = self.counters.get(&span).copied().unwrap_or_default();
            assert_eq!(
                booked, counter.used,
                "{} is what its records say",
                counter.key
            );
        }
    }
}
