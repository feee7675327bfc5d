//! The ledger decides (rule 24): what an outbox entry means, given what is recorded of its reservation already.
//!
//! A pure function, so that every ledger takes the same decision and the store can follow any of them. Whatever the
//! store did and the ledger did not take becomes [`Decision::rest`], a change on its way back: ledger and store are
//! one again once it is applied, in any order of duplicates, crashes and late settles.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::UnixMs;
use crate::money::{Amount, Nanos};
use crate::quota::{Count, CounterKey, EndedEntry, LotId, Moved, Outcome, ReservationId};

/// What a reservation took: from which lots, in the order they were drawn, as debt, and of which counters.
///
/// Of a correction it is the difference, so any part may be negative.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Taken {
    /// From lots.
    pub lots: Vec<(LotId, Nanos)>,
    /// As debt.
    pub debt: Nanos,
    /// Of counters.
    pub counts: Vec<Count>,
}

/// What the ledger has recorded of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// How its record says it ended.
    pub outcome: Outcome,
    /// Whether a correction followed.
    pub corrected: bool,
    /// What was taken in all: P.
    pub taken: Taken,
}

/// Which line an entry adds to the usage records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// None: it was recorded before.
    Nothing,
    /// The reservation's one record.
    Record,
    /// The one correction of a lapse.
    Correction,
}

/// What an entry means.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What is recorded.
    pub line: Line,
    /// What that line takes: N − P.
    pub taken: Taken,
    /// How the store must still move, to be where the ledger is.
    pub rest: Moved,
}

/// Decides what an ended entry means. `moved` is what the store moved for it.
// holds: 4, never twice; 6, exact
pub fn decide(ended: &EndedEntry, moved: &Moved, recorded: Option<&Recorded>) -> Decision {
    let line = match recorded {
        None => Line::Record,
        Some(known)
            if known.outcome == Outcome::Lapsed
                && !known.corrected
                && ended.outcome != Outcome::Lapsed =>
        {
            Line::Correction
        }
        Some(_) => Line::Nothing,
    };
    let nothing = Taken::default();
    let before = recorded.map_or(&nothing, |known| &known.taken);
    let mut taken = match line {
        Line::Nothing => Taken::default(),
        Line::Record | Line::Correction => {
            let due = ended.charge - before.charge();
            if due == -moved.wallet() {
                Taken::as_moved(moved)
            } else {
                Taken::allocated(due, moved, before)
            }
        }
    };
    if line != Line::Nothing {
        taken.counts = less(&ended.counts, &before.counts);
    }
    let rest = taken.rest(moved);
    Decision { line, taken, rest }
}

/// The id of a reservation's correction. It keeps the reservation's time bits and so lies in the same partition
/// (rule 25); the rest follows from the reservation's, so that it cannot be made twice.
pub fn correction_id(id: ReservationId) -> Uuid {
    let mut bytes = Uuid::new_v5(&id.0, b"correction").into_bytes();
    bytes[..6].copy_from_slice(&id.0.as_bytes()[..6]);
    bytes[6] = (bytes[6] & 0x0f) | 0x70;
    Uuid::from_bytes(bytes)
}

impl Taken {
    /// What it comes to for the wallet.
    pub fn charge(&self) -> Nanos {
        self.lots.iter().map(|(_, nanos)| *nanos).sum::<Nanos>() + self.debt
    }

    /// The movement that takes it.
    pub fn movement(&self) -> Moved {
        let negated = |(lot, nanos): &(LotId, Nanos)| (*lot, -*nanos);
        Moved {
            lots: self.lots.iter().map(negated).collect(),
            debt: self.debt,
            counters: self.counts.clone(),
        }
    }

    /// The sum of both: P, once a correction has followed.
    #[must_use]
    pub fn and(mut self, later: &Self) -> Self {
        for (lot, nanos) in &later.lots {
            add_lot(&mut self.lots, *lot, *nanos);
        }
        self.lots.retain(|(_, nanos)| *nanos != Nanos::ZERO);
        self.debt += later.debt;
        for count in &later.counts {
            add_count(&mut self.counts, &count.key, count.start, count.amount);
        }
        self.counts.retain(|count| count.amount != Amount(0));
        self
    }

    /// Exactly what the store moved of the wallet.
    fn as_moved(moved: &Moved) -> Self {
        let negated = |(lot, nanos): &(LotId, Nanos)| (*lot, -*nanos);
        Self {
            lots: moved.lots.iter().map(negated).collect(),
            debt: moved.debt,
            counts: Vec::new(),
        }
    }

    /// What is due, where that is not what the store moved: more from the lots it drew, in their order, and the rest
    /// as debt; less by giving back what was taken last first.
    fn allocated(due: Nanos, moved: &Moved, before: &Self) -> Self {
        let mut taken = Self::default();
        let mut left = due;
        if due > Nanos::ZERO {
            for (lot, nanos) in &moved.lots {
                let part = left.min(-*nanos);
                if part > Nanos::ZERO {
                    taken.lots.push((*lot, part));
                    left -= part;
                }
            }
        } else {
            let of_debt = left.max(-before.debt).min(Nanos::ZERO);
            left -= of_debt;
            for (lot, nanos) in before.lots.iter().rev() {
                let part = left.max(-*nanos);
                if part < Nanos::ZERO {
                    taken.lots.push((*lot, part));
                    left -= part;
                }
            }
            taken.debt = of_debt;
        }
        taken.debt += left;
        taken
    }

    /// How a store that moved `moved` must still move.
    pub(super) fn rest(&self, moved: &Moved) -> Moved {
        let mut rest = self.movement();
        for (lot, nanos) in &moved.lots {
            add_lot(&mut rest.lots, *lot, -*nanos);
        }
        rest.lots.retain(|(_, nanos)| *nanos != Nanos::ZERO);
        rest.debt -= moved.debt;
        rest.counters = less(&self.counts, &moved.counters);
        rest
    }
}

/// What is in `counts` and not in `others`, without zeros.
fn less(counts: &[Count], others: &[Count]) -> Vec<Count> {
    let mut difference = Vec::new();
    for count in counts {
        add_count(&mut difference, &count.key, count.start, count.amount);
    }
    for count in others {
        add_count(&mut difference, &count.key, count.start, -count.amount);
    }
    difference.retain(|count| count.amount != Amount(0));
    difference
}

fn add_lot(lots: &mut Vec<(LotId, Nanos)>, lot: LotId, nanos: Nanos) {
    match lots.iter_mut().find(|(id, _)| *id == lot) {
        Some((_, sum)) => *sum += nanos,
        None => lots.push((lot, nanos)),
    }
}

fn add_count(counts: &mut Vec<Count>, key: &CounterKey, start: UnixMs, amount: Amount) {
    let same = |count: &&mut Count| count.key == *key && count.start == start;
    match counts.iter_mut().find(same) {
        Some(count) => count.amount += amount,
        None => counts.push(Count {
            key: key.clone(),
            start,
            amount,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::quota::Cut;

    const ONE: LotId = LotId(1);
    const TWO: LotId = LotId(2);

    fn tokens(amount: i64) -> Count {
        Count {
            key: "account/tokens/month".parse().unwrap(),
            start: UnixMs(0),
            amount: Amount(amount),
        }
    }

    fn entry(outcome: Outcome, charge: i64, count: i64) -> EndedEntry {
        EndedEntry {
            id: ReservationId(Uuid::nil()),
            outcome,
            overrun: false,
            reserved: Nanos(10),
            charge: Nanos(charge),
            counts: vec![tokens(count)],
            detail: "{}".into(),
            cut: Cut::default(),
        }
    }

    fn moved(lots: &[(LotId, i64)], debt: i64, count: i64) -> Moved {
        Moved {
            lots: lots.iter().map(|(lot, n)| (*lot, Nanos(*n))).collect(),
            debt: Nanos(debt),
            counters: vec![tokens(count)],
        }
    }

    fn recorded(outcome: Outcome, lots: &[(LotId, i64)], debt: i64, count: i64) -> Recorded {
        Recorded {
            outcome,
            corrected: false,
            taken: Taken {
                lots: lots.iter().map(|(lot, n)| (*lot, Nanos(*n))).collect(),
                debt: Nanos(debt),
                counts: vec![tokens(count)],
            },
        }
    }

    #[test]
    fn the_first_ending_is_recorded_as_the_store_moved_it() {
        let store = moved(&[(ONE, -5), (TWO, -2)], 1, 7);
        let decision = decide(&entry(Outcome::Settled, 8, 7), &store, None);
        assert_eq!(decision.line, Line::Record);
        assert_eq!(decision.taken.movement(), store);
        assert_eq!(decision.rest, Moved::default());
    }

    #[test]
    fn a_duplicate_is_undone_in_the_store() {
        let known = recorded(Outcome::Settled, &[(ONE, 5)], 0, 7);
        let store = moved(&[(TWO, -5)], 0, 7);
        let decision = decide(&entry(Outcome::Settled, 5, 7), &store, Some(&known));
        assert_eq!(decision.line, Line::Nothing);
        assert_eq!(decision.taken, Taken::default());
        assert_eq!(decision.rest, moved(&[(TWO, 5)], 0, -7));
    }

    #[test]
    fn a_settle_after_a_lapse_is_one_correction() {
        let mut known = recorded(Outcome::Lapsed, &[(ONE, 5)], 0, 3);
        let store = moved(&[(ONE, -3)], 0, 4);
        let settle = entry(Outcome::Settled, 8, 7);
        let decision = decide(&settle, &store, Some(&known));
        assert_eq!(decision.line, Line::Correction);
        assert_eq!(decision.taken.charge(), Nanos(3));
        assert_eq!(decision.rest, Moved::default());

        known.taken = known.taken.and(&decision.taken);
        known.corrected = true;
        assert_eq!(known.taken.charge(), Nanos(8));
        assert_eq!(decide(&settle, &store, Some(&known)).line, Line::Nothing);
    }

    #[test]
    fn a_store_that_charged_the_whole_again_gets_back_what_the_lapse_had_taken() {
        // The store knew the id no more, so it charged all 8; the ledger had recorded a lapse of 5.
        let known = recorded(Outcome::Lapsed, &[(ONE, 5)], 0, 3);
        let store = moved(&[(ONE, -2), (TWO, -6)], 0, 7);
        let decision = decide(&entry(Outcome::Settled, 8, 7), &store, Some(&known));
        assert_eq!(decision.taken.lots, [(ONE, Nanos(2)), (TWO, Nanos(1))]);
        assert_eq!(decision.rest, moved(&[(TWO, 5)], 0, -3));
    }

    #[test]
    fn what_is_given_back_goes_to_the_debt_first_and_then_to_the_last_lot() {
        let known = recorded(Outcome::Lapsed, &[(ONE, 5), (TWO, 3)], 2, 3);
        let decision = decide(
            &entry(Outcome::Released, 0, 0),
            &Moved::default(),
            Some(&known),
        );
        assert_eq!(decision.taken.lots, [(TWO, Nanos(-3)), (ONE, Nanos(-5))]);
        assert_eq!(decision.taken.debt, Nanos(-2));
        let partly = decide(
            &entry(Outcome::Settled, 6, 3),
            &Moved::default(),
            Some(&known),
        );
        assert_eq!(partly.taken.lots, [(TWO, Nanos(-2))]);
        assert_eq!(partly.taken.debt, Nanos(-2));
        assert_eq!(
            partly.rest,
            Moved {
                counters: Vec::new(),
                ..moved(&[(TWO, 2)], -2, 0)
            }
        );
    }

    #[test]
    fn a_correction_lies_beside_what_it_corrects() {
        let id = ReservationId::new();
        let correction = correction_id(id);
        assert_eq!(correction, correction_id(id));
        assert_ne!(correction, id.0);
        assert_eq!(correction.as_bytes()[..6], id.0.as_bytes()[..6]);
        assert_eq!(correction.get_version_num(), 7);
    }

    /// Balances of both sides, with debt as the balance of lot 0 the other way round.
    #[derive(Default)]
    struct Balances {
        lots: HashMap<LotId, i64>,
        debt: i64,
        tokens: i64,
    }

    impl Balances {
        fn apply(&mut self, moved: &Moved) {
            for (lot, nanos) in &moved.lots {
                *self.lots.entry(*lot).or_default() += nanos.0;
            }
            self.debt += moved.debt.0;
            self.tokens += moved.counters.iter().map(|c| c.amount.0).sum::<i64>();
        }
    }

    prop_compose! {
        /// One ending, with whatever the store may have moved for it.
        fn ending()(
            id in 0..3_u128,
            outcome in prop_oneof![Just(Outcome::Settled), Just(Outcome::Released), Just(Outcome::Lapsed)],
            (charge, count) in (0..20_i64, 0..20_i64),
            (one, two, debt) in (-10..10_i64, -10..10_i64, -10..10_i64),
            store_count in -20..20_i64,
            exact in any::<bool>(),
        ) -> (EndedEntry, Moved) {
            let (charge, count) = if outcome == Outcome::Released { (0, 0) } else { (charge, count) };
            let mut ended = entry(outcome, charge, count);
            ended.id = ReservationId(Uuid::from_u128(id));
            let debt = if exact { charge + one + two } else { debt };
            (ended, moved(&[(ONE, one), (TWO, two)], debt, store_count))
        }
    }

    proptest! {
        #[test]
        fn the_ledger_and_its_changes_are_always_where_the_store_is(
            endings in prop::collection::vec(ending(), 1..40)
        ) {
            let (mut ledger, mut store) = (Balances::default(), Balances::default());
            let mut known: HashMap<ReservationId, Recorded> = HashMap::new();
            let mut recorded_charge = 0;
            for (ended, moved) in endings {
                store.apply(&moved);
                let before = known.get(&ended.id);
                let decision = decide(&ended, &moved, before);
                ledger.apply(&decision.taken.movement());
                store.apply(&decision.rest);

                for lot in [ONE, TWO] {
                    let balance = |side: &Balances| side.lots.get(&lot).copied().unwrap_or(0);
                    prop_assert_eq!(balance(&ledger), balance(&store));
                }
                prop_assert_eq!(ledger.debt, store.debt);
                prop_assert_eq!(ledger.tokens, store.tokens);

                recorded_charge += decision.taken.charge().0;
                let now = match (decision.line, before) {
                    (Line::Record, None) => Recorded {
                        outcome: ended.outcome,
                        corrected: false,
                        taken: decision.taken,
                    },
                    (Line::Correction, Some(before)) => Recorded {
                        corrected: true,
                        taken: before.taken.clone().and(&decision.taken),
                        ..before.clone()
                    },
                    (Line::Nothing, Some(before)) => {
                        prop_assert_eq!(decision.taken, Taken::default());
                        before.clone()
                    }
                    odd => panic!("{odd:?}"),
                };
                if decision.line != Line::Nothing {
                    prop_assert_eq!(now.taken.charge(), ended.charge);
                }
                known.insert(ended.id, now);
            }
            let wallet = ledger.lots.values().sum::<i64>() - ledger.debt;
            prop_assert_eq!(wallet, -recorded_charge);
        }
    }
}
