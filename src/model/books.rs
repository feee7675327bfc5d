//! The books at rest: every call that ended has its one record with the right charge (invariants 3 and 4), and store,
//! ledger, postings and records say the same to the last nano (invariant 6).

use std::collections::BTreeMap;

use super::cast::{self, ACCOUNTS};
use super::world::{State, World};
use super::wrong::{Broken, Wrong};
use crate::ledger::posting::Book;
use crate::money::{Amount, Nanos};
use crate::quota::LotId;

impl World {
    /// Whether all of it is right, at rest.
    pub fn books(&self) -> Result<(), Wrong> {
        for call in 0..self.calls.len() {
            self.check_call(call)?;
        }
        for account in 0..ACCOUNTS {
            self.check_account(account)?;
            self.check_sums(account)?;
        }
        self.check_withdrawals()
    }

    /// Its one record, with the right charge.
    fn check_call(&self, call: usize) -> Result<(), Wrong> {
        let known = &self.calls[call];
        let id = cast::id(call).0;
        let of =
            |record: &&crate::ledger::UsageRecord| record.id == id || record.corrects == Some(id);
        let records: Vec<_> = self.truth.records.iter().filter(of).collect();
        let firsts = records
            .iter()
            .filter(|record| record.corrects.is_none())
            .count();
        let corrections = records.len() - firsts;
        if firsts > 1 || corrections > firsts {
            return Err(Broken::NeverTwice.since(format!(
                "{firsts} records, {corrections} corrections of {call}"
            )));
        }
        let charged: i64 = records.iter().map(|record| record.charged.0).sum();
        if known.orphan {
            return self.check_orphan(call, firsts > 0, charged);
        }
        match known.state {
            State::Done if firsts == 0 => {
                Err(Broken::NeverLost.since(format!("no record of {call}")))
            }
            State::Done if charged != known.charge => {
                Err(Broken::Exact
                    .since(format!("{call} was charged {charged} of {}", known.charge)))
            }
            State::Idle if charged != 0 => {
                Err(Broken::Exact.since(format!("{call} was charged {charged}")))
            }
            _ => Ok(()),
        }
    }

    /// Of a call whose sidecar died, the store knows what it was told; if it forgot that too, it is gone.
    fn check_orphan(&self, call: usize, recorded: bool, charged: i64) -> Result<(), Wrong> {
        let known = &self.calls[call];
        if !recorded && known.was_held && self.happened.losses == 0 {
            return Err(Broken::NeverLost.since(format!("no record of orphaned {call}")));
        }
        let lapsed = cast::FLOOR <= charged && charged <= known.metered.max(cast::FLOOR);
        let settled = known.settles && charged == known.charge;
        if recorded && !lapsed && !settled {
            return Err(Broken::Exact.since(format!("orphaned {call} was charged {charged}")));
        }
        Ok(())
    }

    /// Store and ledger agree, lot by lot.
    fn check_account(&self, account: usize) -> Result<(), Wrong> {
        let id = cast::account(account);
        let image = self.truth.image(&id).expect("it exists");
        let engine = self.current.engine.as_ref().expect("it is at rest");
        let view = engine.account(&id).expect("it is at rest");
        let ledger: BTreeMap<LotId, Nanos> = image.lots.iter().map(|(l, n)| (l.id, *n)).collect();
        let lots = view.lots.iter().map(|(lot, state)| (*lot, state.left));
        let store: BTreeMap<LotId, Nanos> = lots.collect();
        if store != ledger || view.debt.left != image.debt {
            return Err(Broken::Exact.since(format!(
                "{id} has {store:?} and debt {:?} in the store, {ledger:?} and {:?} in the ledger",
                view.debt.left, image.debt
            )));
        }
        let counted: Amount = view.counters.iter().map(|counter| counter.used).sum();
        let in_ledger: Amount = image.counters.iter().map(|counter| counter.used).sum();
        if counted != in_ledger {
            return Err(Broken::Exact.since(format!(
                "{id} counts {counted:?} in the store, {in_ledger:?}"
            )));
        }
        let untouched = self.happened.losses == 0 && self.happened.ages == 0;
        if untouched && ledger.values().any(|left| *left < Nanos::ZERO) {
            return Err(Broken::NeverOversold.since(format!("{id} has {ledger:?}")));
        }
        Ok(())
    }

    /// The postings sum to zero, and to what the ledger and its records say.
    fn check_sums(&self, account: usize) -> Result<(), Wrong> {
        let id = cast::account(account);
        let image = self.truth.image(&id).expect("it exists");
        let mut books = self.truth.books.iter().filter(|((of, _), _)| *of == id);
        let sum: Nanos = books.clone().map(|(_, nanos)| *nanos).sum();
        let book = |book: Book| {
            self.truth
                .books
                .get(&(id.clone(), book))
                .copied()
                .unwrap_or_default()
        };
        let records = self
            .truth
            .records
            .iter()
            .filter(|record| record.account == id);
        let charged: Nanos = records.map(|record| record.charged).sum();
        let of_lots = books.all(|((_, book), nanos)| {
            let lot = book.lot().map(|lot| {
                let found = image.lots.iter().find(|(known, _)| known.id == lot);
                found.map_or(Nanos::ZERO, |(_, left)| *left)
            });
            lot.is_none_or(|left| left == *nanos)
        });
        if sum != Nanos::ZERO
            || book(Book::Used) != charged
            || !of_lots
            || book(Book::Debt) != -image.debt
        {
            return Err(Broken::Exact.since(format!(
                "{id} has {:?}, charged {charged:?}",
                self.truth.books
            )));
        }
        Ok(())
    }

    /// No withdrawal has taken more than it asked for.
    fn check_withdrawals(&self) -> Result<(), Wrong> {
        for account in 0..ACCOUNTS {
            let id = cast::account(account);
            let book = |book| {
                self.truth
                    .books
                    .get(&(id.clone(), book))
                    .map_or(0, |nanos| nanos.0)
            };
            let taken = book(Book::Voided) + book(Book::Refunded);
            let asked = self
                .happened
                .withdrawals
                .iter()
                .filter(|(of, _)| *of == account);
            let asked: i64 = asked.map(|(_, nanos)| *nanos).sum();
            if taken > asked {
                return Err(Broken::NeverTwice.since(format!("{taken} of {asked}")));
            }
        }
        Ok(())
    }
}
