//! What each action does; where it is not possible, it does nothing and says so.

use uuid::Uuid;

use super::action::Action;
use super::cast::{self, SHARD};
use super::rules::Rule;
use super::server::Server;
use super::world::{Check, State, World};
use crate::money::Nanos;
use crate::quota::{LotId, Withdrawal, WithdrawalReason};

/// Copies that are remembered at once.
const COPIES: usize = 2;

impl World {
    /// Takes a step if it is possible, and says whether it was.
    pub fn step(&mut self, action: Action) -> bool {
        match action {
            Action::Reserve(call) => self.reserve(call),
            Action::GiveUp(call) => self.give_up(call),
            Action::Progress(call, metered) => self.progress(call, metered),
            Action::End(call, charge) => self.end(call, charge),
            Action::Settle(call) => self.settle(call),
            Action::See(call) => self.see(call),
            Action::Drop(call) => self.drop_kept(call),
            Action::Arrive(side, verb, fate) => self.arrive(side, verb, fate),
            Action::Hear(side, verb) => self.hear_late(side, verb),
            Action::AskDrained(side) => self.ask_drained(side),
            Action::Load(side, account) => self.load(side, account),
            Action::Sweep(side, call) => self.sweep(side, call),
            Action::Expire(side) => self.expire(side),
            Action::Apply(side) => self.apply(side),
            Action::FlushRead(side, most) => self.flush_read(side, most),
            Action::FlushCommit(side) => self.flush_commit(side),
            Action::FlushForget(side) => self.flush_forget(side),
            Action::FlushStop(side) => self.sides[side].flush.take().is_some(),
            Action::CheckRead(side) => self.check_read(side, false),
            Action::Rebuild(side) => self.rebuild(side),
            Action::CheckSave(side) => self.check_save(side),
            Action::CheckOpen(side) => self.check_open(side),
            Action::CheckStop(side) => self.check_stop(side),
            Action::Disconnect(side) => self.disconnect(side),
            Action::Crash(side) => self.crash(side),
            Action::Tick
            | Action::Age
            | Action::Grant(_)
            | Action::Adjust(..)
            | Action::Withdraw(_)
            | Action::Copy
            | Action::FailOver(..)
            | Action::ComeBack
            | Action::Wipe(_)
            | Action::OldGone => self.fate(action),
        }
    }

    /// What no sidecar does.
    fn fate(&mut self, action: Action) -> bool {
        match action {
            Action::Tick => {
                let may = take(&mut self.budget.ticks);
                if may {
                    self.now = self.now.plus_ms(cast::DEADLINE_MS);
                }
                may
            }
            Action::Age => self.age(),
            Action::Grant(account) => self.grant(account),
            Action::Adjust(account, credit) => self.adjust(account, credit),
            Action::Withdraw(account) => self.withdraw(account),
            Action::Copy => {
                let room = self.copies.len() < COPIES;
                if room {
                    self.copies.push(self.current.engine.clone());
                }
                room
            }
            Action::FailOver(copy, name) => match self.copies.get(copy).cloned() {
                Some(engine) => self.lose(Server { name, engine }),
                None => false,
            },
            Action::ComeBack => self.come_back(),
            Action::Wipe(name) => self.lose(Server { name, engine: None }),
            Action::OldGone => self.old.take().is_some(),
            _ => unreachable!("a sidecar does that"),
        }
    }

    /// Another server takes over, with whatever is on it.
    fn lose(&mut self, server: Server) -> bool {
        // A server that goes back without a break of its connections can be noticed only where it is empty.
        let in_place = server.name == self.current.name;
        if in_place && server.engine.is_some() || !in_place && self.is_unmissed(server.name) {
            return false;
        }
        if !take(&mut self.budget.losses) {
            return false;
        }
        self.happened.losses += 1;
        if !in_place {
            self.hang_up(server.name);
        }
        let before = std::mem::replace(&mut self.current, server);
        self.old = (!in_place).then_some(before);
        true
    }

    /// The server before takes over again. Whoever stayed with it may go on as if nothing had been.
    fn come_back(&mut self) -> bool {
        if self.old.is_none() || !take(&mut self.budget.losses) {
            return false;
        }
        self.happened.losses += 1;
        if let Some(old) = self.old.take() {
            self.old = Some(std::mem::replace(&mut self.current, old));
        }
        true
    }

    /// Whether nobody would notice if a server came back under this name: the ledger has not heard of another one since.
    fn is_unmissed(&self, name: u8) -> bool {
        let home = self.truth.row(SHARD).home.as_ref();
        home.is_some_and(|home| home.run_id.0 == name.to_string())
    }

    /// A server that takes over another's data has closed its connections, with all that was on them.
    fn hang_up(&mut self, name: u8) {
        self.net.retain(|command| command.server != name);
        self.late.retain(|(command, _)| command.server != name);
        for side in 0..self.sides.len() {
            if self.sides[side].server == name {
                self.lose_connection(side);
            }
        }
    }

    /// What was agreed on counts no more; nor does what is about to be (rule 21).
    fn lose_connection(&mut self, side: usize) {
        self.sides[side].adopted = None;
        if self.rules.hold(Rule::AgreedForOneConnection) {
            self.check_stop(side);
        }
    }

    fn age(&mut self) -> bool {
        if !take(&mut self.budget.ages) {
            return false;
        }
        self.happened.ages += 1;
        self.current.age();
        // Marks are kept for longer than any command or answer is on its way.
        self.net.clear();
        self.late.clear();
        true
    }

    fn grant(&mut self, account: usize) -> bool {
        if self.lock.is_some() || !take(&mut self.budget.grants) {
            return false;
        }
        let granted = self
            .truth_mut()
            .grant(&cast::account(account), &cast::grant(2, None));
        granted.expect("a small grant to an account that exists");
        self.happened.granted[account] += 2;
        true
    }

    fn adjust(&mut self, account: usize, credit: i64) -> bool {
        if self.lock.is_some() || !take(&mut self.budget.adjustments) {
            return false;
        }
        let of = Uuid::from_u128(u128::from(self.budget.adjustments));
        let adjusted = self
            .truth_mut()
            .adjust(&cast::account(account), of, Nanos(credit));
        adjusted.expect("a small adjustment of an account that exists");
        self.happened.granted[account] += credit.max(0);
        true
    }

    fn withdraw(&mut self, account: usize) -> bool {
        if self.lock.is_some() || !take(&mut self.budget.withdrawals) {
            return false;
        }
        let of = self.happened.withdrawals.len();
        let withdrawal = Withdrawal {
            id: Uuid::from_u128(of as u128),
            lot: LotId([2, 3][account]),
            reason: [WithdrawalReason::Void, WithdrawalReason::Refund][account],
            amount: Nanos(2),
        };
        self.happened.withdrawals.push((account, 2));
        let truth = self.truth_mut();
        truth.withdraw(&cast::account(account), withdrawal);
        self.happened.asked = self
            .truth
            .pending
            .clone()
            .into_iter()
            .chain(self.happened.asked.clone())
            .collect();
        true
    }

    fn rebuild(&mut self, side: usize) -> bool {
        if self.budget.rebuilds == 0 || !self.check_read(side, true) {
            return false;
        }
        self.budget.rebuilds -= 1;
        self.happened.rebuilds += 1;
        true
    }

    fn disconnect(&mut self, side: usize) -> bool {
        let name = self.current.name;
        let sidecar = &mut self.sides[side];
        let useless = sidecar.adopted.is_none() && sidecar.server == name;
        if !sidecar.alive || useless || !take(&mut self.budget.disconnects) {
            return false;
        }
        sidecar.server = name;
        self.lose_connection(side);
        true
    }

    /// A sidecar dies, and all that it knows with it. What it has sent may still arrive.
    fn crash(&mut self, side: usize) -> bool {
        if !self.sides[side].alive || !take(&mut self.budget.crashes) {
            return false;
        }
        self.check_stop(side);
        let sidecar = &mut self.sides[side];
        sidecar.alive = false;
        sidecar.adopted = None;
        sidecar.flush = None;
        self.late.retain(|(command, _)| command.side != side);
        for call in 0..self.calls.len() {
            if self.owner(call) == side {
                let call = &mut self.calls[call];
                call.orphan = call.state != State::Idle;
                call.kept = None;
            }
        }
        true
    }

    /// A check ends without a result; what it had locked is free again.
    pub fn check_stop(&mut self, side: usize) -> bool {
        if self.lock == Some(side) {
            self.lock = None;
        }
        let check = std::mem::replace(&mut self.sides[side].check, Check::Idle);
        !matches!(check, Check::Idle)
    }
}

fn take(budget: &mut u8) -> bool {
    let may = *budget > 0;
    *budget = budget.saturating_sub(1);
    may
}
