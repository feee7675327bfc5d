//! The end of every run: faults cease, what is under way comes to its end, and then the books must be right.
//!
//! At rest nothing is held and nothing is on its way; every call that ended has its one record with the right charge
//! (invariants 2, 3 and 4), and store, ledger and records say the same to the last nano (invariant 6).

use super::action::{Action, Fate, Verb};
use super::cast::{self, ACCOUNTS, SHARD};
use super::world::{State, World};
use super::wrong::{Broken, Wrong};
use crate::quota::AccountView;

/// More rounds than anything takes to come to rest.
const ROUNDS: usize = 12;

impl World {
    /// Comes to rest and reckons. An error says what is wrong, in words that begin with its kind.
    pub fn reckon(mut self) -> Result<(), Wrong> {
        self.calm();
        for _ in 0..ROUNDS {
            self.round();
            if self.wrong.is_some() || self.is_at_rest() {
                break;
            }
        }
        match self.wrong.take() {
            Some(wrong) => Err(wrong),
            None if self.is_at_rest() => self.books(),
            None => Err(self.unrest()),
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

    fn unrest(&self) -> Wrong {
        let engine = self.current.engine.as_ref();
        let views = self
            .views()
            .map(|view| view.holds.len())
            .collect::<Vec<_>>();
        Broken::NeverLeaked.since(format!(
            "outbox {:?}, header {:?}, row {:?}, holds {views:?}, pending {:?}, calls {:?}",
            engine.map(|engine| engine.outbox_len()),
            self.current.header(),
            self.truth.row(SHARD),
            self.truth.pending,
            self.calls,
        ))
    }
}
