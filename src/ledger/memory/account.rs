//! One account of a ledger in memory: its lots in the order they are drawn, its debt and its counters.

use std::collections::BTreeMap;

use super::NewGrant;
use crate::clock::UnixMs;
use crate::money::{Amount, Nanos};
use crate::quota::{CounterBalance, CounterKey, Lot, LotId, Snapshot};

#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub snapshot: Snapshot,
    /// In the order they are drawn.
    lots: Vec<(DrawOrder, Lot, Nanos)>,
    pub debt: Nanos,
    pub counters: BTreeMap<(CounterKey, UnixMs), Amount>,
}

/// priority → earliest expiry → promotional before paid → effective → created
type DrawOrder = (i32, UnixMs, bool, UnixMs, LotId);

impl Account {
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot,
            lots: Vec::new(),
            debt: Nanos::ZERO,
            counters: BTreeMap::new(),
        }
    }

    pub fn add_lot(&mut self, id: LotId, grant: &NewGrant) {
        let order = (
            grant.priority,
            grant.expires_at.unwrap_or(UnixMs(i64::MAX)),
            !grant.promotional,
            grant.effective_at,
            id,
        );
        let lot = Lot {
            id,
            effective_at: grant.effective_at,
            expires_at: grant.expires_at,
        };
        let at = self.lots.partition_point(|(other, _, _)| *other < order);
        self.lots.insert(at, (order, lot, grant.amount));
    }

    pub fn has_lot(&self, id: LotId) -> bool {
        self.lots.iter().any(|(_, lot, _)| lot.id == id)
    }

    /// Moves what is left of a lot, and says whether it rose from nothing: then it is in the order again.
    pub fn move_lot(&mut self, id: LotId, by: Nanos) -> bool {
        let mut lots = self.lots.iter_mut();
        let lot = lots.find(|(_, lot, _)| lot.id == id);
        let (_, _, left) = lot.expect("whoever moves a lot has looked whether it is there");
        let before = *left;
        *left += by;
        before <= Nanos::ZERO && *left > Nanos::ZERO
    }

    /// The lots with a balance.
    pub fn lots_left(&self) -> Vec<(Lot, Nanos)> {
        let lots = self.lots.iter().map(|(_, lot, left)| (lot.clone(), *left));
        lots.filter(|(_, left)| *left != Nanos::ZERO).collect()
    }

    /// The lots with a balance, as the store is to draw them.
    pub fn order(&self) -> Vec<Lot> {
        self.lots_left().into_iter().map(|(lot, _)| lot).collect()
    }

    /// Those with something left although their time is over, and since when.
    pub fn expired(&self, now: UnixMs) -> impl Iterator<Item = (LotId, UnixMs)> {
        self.lots.iter().filter_map(move |(_, lot, left)| {
            let expires_at = lot.expires_at.filter(|end| *end <= now)?;
            (*left > Nanos::ZERO).then_some((lot.id, expires_at))
        })
    }

    /// Each counter in its latest span.
    pub fn latest_counters(&self) -> Vec<CounterBalance> {
        let mut latest: BTreeMap<&CounterKey, (UnixMs, Amount)> = BTreeMap::new();
        for ((key, start), used) in &self.counters {
            latest.insert(key, (*start, *used));
        }
        let balance = |(key, (start, used)): (&CounterKey, (UnixMs, Amount))| CounterBalance {
            key: key.clone(),
            start,
            used,
        };
        latest.into_iter().map(balance).collect()
    }
}
