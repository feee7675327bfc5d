//! The wallet of one account: its lots, its debt, and what calls in flight hold of both.
//!
//! All that credit can do is here, each step moving exactly as much as it takes from elsewhere (invariant 6).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::money::{MAX_DEBT, Nanos};
use crate::quota::{Lot, LotId, LotState, Moved};

/// Where an amount came from: lots in the order they were drawn, no lot twice, none with zero; the rest is debt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Drawn {
    pub lots: Vec<(LotId, Nanos)>,
    pub debt: Nanos,
}

impl Drawn {
    pub fn total(&self) -> Nanos {
        self.lots.iter().map(|(_, part)| *part).sum::<Nanos>() + self.debt
    }

    /// What an entry says of an amount that was drawn for good.
    pub fn moved(&self) -> Moved {
        Moved {
            lots: self.lots.iter().map(|(id, part)| (*id, -*part)).collect(),
            debt: self.debt,
            counters: Vec::new(),
        }
    }

    fn add_from(&mut self, id: LotId, part: Nanos) {
        if part == Nanos::ZERO {
            return;
        }
        match self.lots.iter_mut().find(|(known, _)| *known == id) {
            Some((_, sum)) => *sum += part,
            None => self.lots.push((id, part)),
        }
    }

    fn merge(&mut self, more: Self) {
        for (id, part) in more.lots {
            self.add_from(id, part);
        }
        self.debt += more.debt;
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Wallet {
    /// The lots that may be drawn, in their order.
    pub order: Vec<Lot>,
    /// Every lot that has or had a balance. `held` is what the holds' slices say, `left` is all the rest.
    pub lots: BTreeMap<LotId, LotState>,
    /// `left` is owed and settled, `held` is the overage of calls in flight. Both count up.
    ///
    /// `left` goes below zero when a correction gives back debt that a grant has paid already: that is credit.
    pub debt: LotState,
}

impl Wallet {
    /// What may be spent without overage; negative in debt.
    pub fn balance(&self, now: UnixMs) -> Nanos {
        let lots = self.live(now).map(|id| self.left(id)).sum::<Nanos>();
        lots - self.debt.left - self.debt.held
    }

    /// What calls in flight hold, of lots that expired meanwhile too.
    pub fn held(&self) -> Nanos {
        self.lots.values().map(|lot| lot.held).sum::<Nanos>() + self.debt.held
    }

    /// Sets an amount aside. Whether it fits has been decided before (invariant 1).
    pub fn hold(&mut self, now: UnixMs, charge: Nanos) -> Drawn {
        let drawn = self.draw(now, charge);
        for (id, part) in &drawn.lots {
            let lot = self.lot(*id);
            lot.left -= *part;
            lot.held += *part;
        }
        self.debt.held += drawn.debt;
        drawn
    }

    /// Charges an amount that nothing was held for; what would be owed beyond [`MAX_DEBT`] is not drawn.
    pub fn charge(&mut self, now: UnixMs, charge: Nanos) -> Drawn {
        let mut drawn = self.draw(now, charge);
        let room = Nanos(MAX_DEBT) - self.debt.left - self.debt.held;
        drawn.debt = drawn.debt.min(room.max(Nanos::ZERO));
        for (id, part) in &drawn.lots {
            self.lot(*id).left -= *part;
        }
        self.debt.left += drawn.debt;
        drawn
    }

    /// Ends a hold: what it used is charged where it was held, in order; the rest goes back to where it came from
    /// (invariant 2); what exceeds the hold is charged, too (invariant 5).
    pub fn end(&mut self, now: UnixMs, held: &Drawn, charge: Nanos) -> Drawn {
        let mut rest = charge;
        let mut drawn = Drawn::default();
        for (id, slice) in &held.lots {
            let part = rest.min(*slice);
            let lot = self.lot(*id);
            lot.held -= *slice;
            lot.left += *slice - part;
            drawn.add_from(*id, part);
            rest -= part;
        }
        let part = rest.min(held.debt);
        self.debt.held -= held.debt;
        self.debt.left += part;
        drawn.debt += part;
        rest -= part;

        drawn.merge(self.charge(now, rest));
        drawn
    }

    /// Gives back a part of what was charged: debt first, then the lots, the last drawn first.
    pub fn give_back(&mut self, drawn: &Drawn, amount: Nanos) -> Moved {
        let mut rest = amount;
        let mut moved = Moved::default();
        let part = rest.min(drawn.debt);
        self.debt.left -= part;
        moved.debt = -part;
        rest -= part;
        for (id, slice) in drawn.lots.iter().rev() {
            let part = rest.min(*slice);
            if part == Nanos::ZERO {
                break;
            }
            self.lot(*id).left += part;
            moved.lots.push((*id, part));
            rest -= part;
        }
        assert_eq!(rest, Nanos::ZERO, "no more is given back than was charged");
        moved
    }

    /// Takes out of a lot what is there, up to an amount; what is held of it stays.
    #[must_use = "what moved belongs in the outbox"]
    pub fn withdraw(&mut self, id: LotId, amount: Nanos) -> Moved {
        let part = self.left(id).max(Nanos::ZERO).min(amount);
        let mut moved = Moved::default();
        if part > Nanos::ZERO {
            self.lot(id).left -= part;
            moved.lots.push((id, -part));
        }
        moved
    }

    /// Lets live lots pay what is owed (rule 27); `None` where nothing is owed, or nothing can pay.
    #[must_use = "what moved belongs in the outbox"]
    pub fn repay(&mut self, now: UnixMs) -> Option<Moved> {
        let owed = self.debt.left.max(Nanos::ZERO);
        let paid = self.draw(now, owed).lots;
        let mut moved = Moved::default();
        for (id, part) in paid {
            self.lot(id).left -= part;
            self.debt.left -= part;
            moved.lots.push((id, -part));
            moved.debt -= part;
        }
        (!moved.lots.is_empty()).then_some(moved)
    }

    /// Takes the ledger's balances in place of its own. Of each, calls in flight hold a part already (rule 22).
    pub fn load(&mut self, lots: &[(Lot, Nanos)], debt: Nanos) {
        self.order = lots.iter().map(|(lot, _)| lot.clone()).collect();
        self.lots.retain(|_, lot| lot.held != Nanos::ZERO);
        for lot in self.lots.values_mut() {
            lot.left = -lot.held;
        }
        for (lot, balance) in lots {
            self.lot(lot.id).left += *balance;
        }
        self.debt.left = debt;
    }

    /// Takes the ledger's order of lots. One that is no longer in it is kept while it has a balance, since holds may
    /// still give back to it.
    pub fn reorder(&mut self, order: &[Lot]) {
        self.order = order.to_vec();
        self.lots.retain(|id, lot| {
            let is_empty = *lot == LotState::default();
            !is_empty || order.iter().any(|ordered| ordered.id == *id)
        });
    }

    /// Every lot with a balance, by id.
    pub fn balances(&self) -> impl Iterator<Item = (LotId, LotState)> {
        let lots = self.lots.iter().map(|(id, lot)| (*id, *lot));
        lots.filter(|(_, lot)| *lot != LotState::default())
    }

    /// Follows the ledger.
    pub fn apply(&mut self, moved: &Moved) {
        for (id, by) in &moved.lots {
            self.lot(*id).left += *by;
        }
        self.debt.left += moved.debt;
    }

    /// Where an amount would come from now. It takes nothing.
    fn draw(&self, now: UnixMs, need: Nanos) -> Drawn {
        let mut rest = need;
        let mut drawn = Drawn::default();
        for id in self.live(now) {
            let part = self.left(id).max(Nanos::ZERO).min(rest);
            drawn.add_from(id, part);
            rest -= part;
        }
        drawn.debt = rest;
        drawn
    }

    fn live(&self, now: UnixMs) -> impl Iterator<Item = LotId> {
        self.order
            .iter()
            .filter(move |lot| lot.is_live(now))
            .map(|lot| lot.id)
    }

    fn left(&self, id: LotId) -> Nanos {
        self.lots.get(&id).map_or(Nanos::ZERO, |lot| lot.left)
    }

    fn lot(&mut self, id: LotId) -> &mut LotState {
        self.lots.entry(id).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_000);

    fn wallet(lots: &[(i64, i64)], debt: i64) -> Wallet {
        let mut wallet = Wallet::default();
        let lots: Vec<_> = lots
            .iter()
            .map(|(id, left)| (lot(*id, 0, None), Nanos(*left)))
            .collect();
        wallet.load(&lots, Nanos(debt));
        wallet
    }

    fn lot(id: i64, effective_at: i64, expires_at: Option<i64>) -> Lot {
        Lot {
            id: LotId(id),
            effective_at: UnixMs(effective_at),
            expires_at: expires_at.map(UnixMs),
        }
    }

    fn state(left: i64, held: i64) -> LotState {
        LotState {
            left: Nanos(left),
            held: Nanos(held),
        }
    }

    #[test]
    fn an_overrun_continues_the_lot_it_had_drawn() {
        let mut wallet = wallet(&[(1, 10), (2, 10)], 0);
        let held = wallet.hold(NOW, Nanos(4));
        let drawn = wallet.end(NOW, &held, Nanos(13));
        assert_eq!(drawn.lots, [(LotId(1), Nanos(10)), (LotId(2), Nanos(3))]);
        assert_eq!(wallet.lots[&LotId(1)], state(0, 0));
        assert_eq!(wallet.lots[&LotId(2)], state(7, 0));
    }

    #[test]
    fn an_overrun_draws_a_lot_that_came_meanwhile_before_it_adds_debt() {
        let mut wallet = wallet(&[(1, 5)], 0);
        let held = wallet.hold(NOW, Nanos(8));
        assert_eq!((wallet.debt, held.debt), (state(0, 3), Nanos(3)));
        wallet.order.push(lot(2, 0, None));
        wallet.apply(&Moved {
            lots: vec![(LotId(2), Nanos(1))],
            ..Moved::default()
        });
        let drawn = wallet.end(NOW, &held, Nanos(11));
        assert_eq!(drawn.lots, [(LotId(1), Nanos(5)), (LotId(2), Nanos(1))]);
        assert_eq!((wallet.debt, drawn.debt), (state(5, 0), Nanos(5)));
    }

    #[test]
    fn what_is_unused_goes_back_to_the_last_slices_even_if_their_lot_expired() {
        let mut wallet = wallet(&[(1, 5), (2, 5)], 0);
        wallet.order[1] = lot(2, 0, Some(2_000));
        let held = wallet.hold(NOW, Nanos(9));
        let later = UnixMs(2_000);
        let drawn = wallet.end(later, &held, Nanos(6));
        assert_eq!(drawn.lots, [(LotId(1), Nanos(5)), (LotId(2), Nanos(1))]);
        assert_eq!(wallet.lots[&LotId(2)], state(4, 0));
        assert_eq!(
            wallet.balance(later),
            Nanos(0),
            "an expired lot pays nothing"
        );
    }

    #[test]
    fn debt_given_back_after_it_was_paid_is_credit() {
        let mut wallet = wallet(&[], 0);
        let drawn = wallet.charge(NOW, Nanos(7));
        wallet.order.push(lot(1, 0, None));
        wallet.apply(&Moved {
            lots: vec![(LotId(1), Nanos(10))],
            ..Moved::default()
        });
        let repaid = wallet.repay(NOW).expect("there is debt, and credit");
        assert_eq!(repaid.lots, [(LotId(1), Nanos(-7))]);
        assert_eq!((repaid.debt, repaid.wallet()), (Nanos(-7), Nanos(0)));

        let moved = wallet.give_back(&drawn, Nanos(7));
        assert_eq!((moved.debt, wallet.debt), (Nanos(-7), state(-7, 0)));
        assert_eq!(wallet.balance(NOW), Nanos(10));
        assert_eq!(wallet.repay(NOW), None, "credit is not repaid");
    }

    #[test]
    fn giving_back_begins_with_what_was_drawn_last() {
        let mut wallet = wallet(&[(1, 5), (2, 5)], 0);
        let drawn = wallet.charge(NOW, Nanos(12));
        let moved = wallet.give_back(&drawn, Nanos(8));
        assert_eq!(moved.lots, [(LotId(2), Nanos(5)), (LotId(1), Nanos(1))]);
        assert_eq!((moved.debt, moved.wallet()), (Nanos(-2), Nanos(8)));
    }

    #[test]
    fn a_lot_below_zero_lowers_the_balance_and_pays_nothing() {
        let mut wallet = wallet(&[(1, -3), (2, 5)], 0);
        assert_eq!(wallet.balance(NOW), Nanos(2));
        let held = wallet.hold(NOW, Nanos(5));
        assert_eq!(held.lots, [(LotId(2), Nanos(5))]);
        assert_eq!(wallet.lots[&LotId(1)], state(-3, 0));
    }

    #[test]
    fn a_load_keeps_what_is_held_even_of_a_lot_the_ledger_no_longer_lists() {
        let mut wallet = wallet(&[(1, 5), (2, 5), (3, 5)], 0);
        let held = wallet.hold(NOW, Nanos(18));
        wallet.load(&[(lot(2, 0, None), Nanos(9))], Nanos(2));
        assert_eq!(wallet.lots[&LotId(1)], state(-5, 5));
        assert_eq!(wallet.lots[&LotId(2)], state(4, 5));
        assert_eq!(wallet.debt, state(2, 3));
        wallet.end(NOW, &held, Nanos(0));
        assert_eq!(wallet.lots[&LotId(1)], state(0, 0));
        assert_eq!(wallet.balance(NOW), Nanos(7));
    }

    #[test]
    fn a_lot_is_live_from_its_first_moment_to_just_before_its_last() {
        let mut wallet = wallet(&[(1, 5)], 0);
        wallet.order[0] = lot(1, 1_000, Some(2_000));
        let at = |ms| wallet.balance(UnixMs(ms)).0;
        assert_eq!((at(999), at(1_000), at(1_999), at(2_000)), (0, 5, 5, 0));
    }
}
