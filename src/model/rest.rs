//! The end of every run: faults cease, what is under way comes to its end, and then the books must be right.
//!
//! At rest nothing is held and nothing is on its way; every call that ended has its one record with the right charge
//! (invariants 2, 3 and 4), and store, ledger and records say the same to the last nano (invariant 6).

use std::collections::BTreeMap;

use super::action::{Action, Fate, Verb};
use super::cast::{self, ACCOUNTS, SHARD};
use super::world::{State, World};
use crate::ledger::posting::Book;
use crate::money::{Amount, Nanos};
use crate::quota::{AccountView, LotId};

/// More rounds than anything takes to come to rest.
const ROUNDS: usize = 12;

impl World {
    /// Comes to rest and reckons. An error says what is wrong, in words that begin with its kind.
    pub fn reckon(mut self) -> Result<(), String> {
        self.calm();
        for _ in 0..ROUNDS {
            self.round();
            if self.wrong.is_some() || self.is_at_rest() {
                break;
            }
        }
        match self.wrong.take() {
            Some(wrong) => Err(wrong),
            None => self.books(),
        }
    }

    /// No faults any more: what was on its way is lost, the server before is gone, somebody is there.
    fn calm(&mut self) {
        for side in 0..self.sides.len() {
            self.step(Action::FlushStop(side));
            self.step(Action::CheckStop(side));
        }
        self.net.clear();
        self.late.clear();
        self.old = None;
        self.flights = usize::MAX;
        self.budget.heartbeats = u8::MAX;
        self.budget.ticks = u8::MAX;
        if self.sides.iter().all(|side| !side.alive) {
            let side = &mut self.sides[0];
            side.alive = true;
            side.suspects = false;
            side.drained = None;
            side.server = self.current.name;
        }
    }

    fn round(&mut self) {
        for side in 0..self.sides.len() {
            self.leave_lost(side);
            self.settle_in(side);
            self.flush_all(side);
            self.settle_in(side);
        }
        for call in 0..self.calls.len() {
            if !self.calls[call].orphan {
                self.finish(call);
            }
        }
        self.step(Action::Tick);
        for side in 0..self.sides.len() {
            for call in 0..self.calls.len() {
                self.step(Action::Sweep(side, call));
                self.at_once(side, Verb::Lapse(call));
            }
            self.step(Action::Expire(side));
            self.at_once(side, Verb::Expire);
            self.flush_all(side);
            self.apply_all(side);
        }
        for call in 0..self.calls.len() {
            self.step(Action::See(call));
            self.step(Action::Drop(call));
        }
    }

    /// A sidecar whose server is gone, or has another epoch than it knows, notices that by itself.
    fn leave_lost(&mut self, side: usize) {
        if self.sides[side].server != self.current.name || self.home(side).is_none() {
            self.sides[side].server = self.current.name;
            self.sides[side].adopted = None;
        }
    }

    fn at_once(&mut self, side: usize, verb: Verb) {
        self.step(Action::Arrive(side, verb, Fate::Heard));
    }

    fn finish(&mut self, call: usize) {
        let side = self.owner(call);
        let metered = self.calls[call].metered;
        self.step(Action::GiveUp(call));
        if self.step(Action::Progress(call, metered)) {
            self.at_once(side, Verb::Progress(call, metered));
            self.at_once(side, Verb::Again(call));
        }
        self.step(Action::End(call, metered.max(cast::FLOOR)));
        if self.step(Action::Settle(call)) {
            self.at_once(side, Verb::Settle(call, self.calls[call].charge));
        }
    }

    fn flush_all(&mut self, side: usize) {
        while self.step(Action::FlushRead(side, usize::MAX)) {
            self.step(Action::FlushCommit(side));
            if !self.step(Action::FlushForget(side)) {
                self.step(Action::FlushStop(side));
                break;
            }
        }
    }

    fn apply_all(&mut self, side: usize) {
        while self.step(Action::Apply(side)) {
            let applied = self.net.last().map(|command| command.verb);
            self.at_once(side, applied.expect("it was just sent"));
        }
    }

    fn is_at_rest(&self) -> bool {
        let Some(engine) = self.current.engine.as_ref() else {
            return false;
        };
        let row = self.truth.row(SHARD);
        let views: Vec<_> = self.views().collect();
        let ended = |call: &super::world::Call| {
            call.orphan || matches!(call.state, State::Idle | State::Done) && call.kept.is_none()
        };
        engine.outbox_len() == 0
            && engine.header().applied_seq == row.last_change
            && self.truth.pending.is_empty()
            && self.truth.expired(SHARD, self.now, 1).is_empty()
            && views.len() == ACCOUNTS
            && views.iter().all(|view| view.holds.is_empty())
            && self.calls.iter().all(ended)
    }

    fn views(&self) -> impl Iterator<Item = AccountView> {
        let engine = self.current.engine.iter();
        engine.flat_map(|engine| (0..ACCOUNTS).filter_map(|a| engine.account(&cast::account(a))))
    }

    fn books(&self) -> Result<(), String> {
        if !self.is_at_rest() {
            return Err(self.unrest());
        }
        for call in 0..self.calls.len() {
            self.check_call(call)?;
        }
        for account in 0..ACCOUNTS {
            self.check_account(account)?;
            self.check_sums(account)?;
        }
        self.check_withdrawals()
    }

    fn unrest(&self) -> String {
        let engine = self.current.engine.as_ref();
        let views = self
            .views()
            .map(|view| view.holds.len())
            .collect::<Vec<_>>();
        format!(
            "unrest: outbox {:?}, header {:?}, row {:?}, holds {views:?}, pending {:?}, calls {:?}",
            engine.map(|engine| engine.outbox_len()),
            self.current.header(),
            self.truth.row(SHARD),
            self.truth.pending,
            self.calls,
        )
    }

    /// Its one record, with the right charge.
    fn check_call(&self, call: usize) -> Result<(), String> {
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
            return Err(format!(
                "twice: {firsts} records, {corrections} corrections of {call}"
            ));
        }
        let charged: i64 = records.iter().map(|record| record.charged.0).sum();
        if known.orphan {
            return self.check_orphan(call, firsts > 0, charged);
        }
        match known.state {
            State::Done if firsts == 0 => Err(format!("lost: no record of {call}")),
            State::Done if charged != known.charge => Err(format!(
                "wrong: {call} was charged {charged} of {}",
                known.charge
            )),
            State::Idle if charged != 0 => Err(format!("wrong: {call} was charged {charged}")),
            _ => Ok(()),
        }
    }

    /// Of a call whose sidecar died, the store knows what it was told; if it forgot that too, it is gone.
    fn check_orphan(&self, call: usize, recorded: bool, charged: i64) -> Result<(), String> {
        let known = &self.calls[call];
        if !recorded && known.was_held && self.happened.losses == 0 {
            return Err(format!("lost: no record of orphaned {call}"));
        }
        let lapsed = cast::FLOOR <= charged && charged <= known.metered.max(cast::FLOOR);
        let settled = known.settles && charged == known.charge;
        if recorded && !lapsed && !settled {
            return Err(format!("wrong: orphaned {call} was charged {charged}"));
        }
        Ok(())
    }

    /// Store and ledger agree, lot by lot.
    fn check_account(&self, account: usize) -> Result<(), String> {
        let id = cast::account(account);
        let image = self.truth.image(&id).expect("it exists");
        let engine = self.current.engine.as_ref().expect("it is at rest");
        let view = engine.account(&id).expect("it is at rest");
        let ledger: BTreeMap<LotId, Nanos> = image.lots.iter().map(|(l, n)| (l.id, *n)).collect();
        let lots = view.lots.iter().map(|(lot, state)| (*lot, state.left));
        let store: BTreeMap<LotId, Nanos> = lots.collect();
        if store != ledger || view.debt.left != image.debt {
            return Err(format!(
                "drift: {id} has {store:?} and debt {:?} in the store, {ledger:?} and {:?} in the ledger",
                view.debt.left, image.debt
            ));
        }
        let counted: Amount = view.counters.iter().map(|counter| counter.used).sum();
        let in_ledger: Amount = image.counters.iter().map(|counter| counter.used).sum();
        if counted != in_ledger {
            return Err(format!(
                "drift: {id} counts {counted:?} in the store, {in_ledger:?}"
            ));
        }
        let untouched = self.happened.losses == 0 && self.happened.ages == 0;
        if untouched && ledger.values().any(|left| *left < Nanos::ZERO) {
            return Err(format!("below: {id} has {ledger:?}"));
        }
        Ok(())
    }

    /// The postings sum to zero, and to what the ledger and its records say.
    fn check_sums(&self, account: usize) -> Result<(), String> {
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
            return Err(format!(
                "sums: {id} has {:?}, charged {charged:?}",
                self.truth.books
            ));
        }
        Ok(())
    }

    /// No withdrawal has taken more than it asked for.
    fn check_withdrawals(&self) -> Result<(), String> {
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
                return Err(format!("withdrawn: {taken} of {asked}"));
            }
        }
        Ok(())
    }
}
