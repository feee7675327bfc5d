//! What a sidecar does for its calls: the heartbeats, the endings, and what it keeps of them (rules 5 and 23).

use std::rc::Rc;

use super::action::{Fate, Verb};
use super::cast;
use super::rules::Rule;
use super::server::{Answer, Carries, Command};
use super::world::{Kept, State, World};
use crate::quota::{Epoch, Progressed, Reserved, SettleAnswer};

impl World {
    pub fn reserve(&mut self, call: usize) -> bool {
        let idle = self.calls[call].state == State::Idle;
        let sent = idle && self.send(self.owner(call), Verb::Reserve(call), Carries::Nothing);
        if sent {
            self.calls[call].state = State::Reserving;
        }
        sent
    }

    /// A reserve that timed out may have held something: it is released.
    pub fn give_up(&mut self, call: usize) -> bool {
        let waits = self.calls[call].state == State::Reserving;
        let may = waits && self.sides[self.owner(call)].alive;
        if may {
            self.calls[call].state = State::Ending;
            self.calls[call].settles = true;
        }
        may
    }

    pub fn progress(&mut self, call: usize, metered: i64) -> bool {
        let known = &self.calls[call];
        if known.state != State::Admitted || metered < known.metered || self.budget.heartbeats == 0
        {
            return false;
        }
        let verb = Verb::Progress(call, metered);
        let sent = self.send(self.owner(call), verb, Carries::Nothing);
        if sent {
            self.budget.heartbeats -= 1;
            self.calls[call].metered = metered;
        }
        sent
    }

    pub fn end(&mut self, call: usize, charge: i64) -> bool {
        let may = self.calls[call].state == State::Admitted && self.sides[self.owner(call)].alive;
        if may {
            let call = &mut self.calls[call];
            call.state = State::Ending;
            call.charge = charge;
            call.settles = true;
        }
        may
    }

    pub fn settle(&mut self, call: usize) -> bool {
        let known = &self.calls[call];
        let verb = Verb::Settle(call, known.charge);
        known.state == State::Ending && self.send(self.owner(call), verb, Carries::Nothing)
    }

    /// Its ending was in the store already: the ledger has it once it has all that is in the outbox now.
    pub fn see(&mut self, call: usize) -> bool {
        let home = self.home(self.owner(call));
        let seen = home.map(|(epoch, engine)| (epoch, engine.header().out_seq));
        let kept = &mut self.calls[call].kept;
        match (seen, kept) {
            (Some((epoch, seq)), Some(kept)) if kept.seq.is_none() && kept.epoch == epoch => {
                kept.seq = Some(seq);
                true
            }
            _ => false,
        }
    }

    /// The ledger has it: it need not be kept any more.
    pub fn drop_kept(&mut self, call: usize) -> bool {
        let done = self.calls[call].state == State::Done;
        let Some(Kept {
            epoch,
            seq: Some(seq),
        }) = self.calls[call].kept.filter(|_| done)
        else {
            return false;
        };
        let row = self.truth.row(cast::SHARD);
        let Some(home) = &row.home else { return false };
        let now = home.epoch;
        let side = self.owner(call);
        if self.sides[side].adopted != Some(now) && !self.sides[side].suspects {
            // The shard has left for another epoch than this sidecar knows.
            self.sides[side].suspects = true;
            return true;
        }
        let same = now == epoch;
        let may =
            row.flushed_seq >= seq && (same || !self.rules.hold(Rule::KeptUntilThatEpochFlushed));
        if may {
            self.calls[call].kept = None;
        }
        may
    }

    /// A command runs at the server that goes by that name now.
    pub fn arrive(&mut self, side: usize, verb: Verb, fate: Fate) -> bool {
        let same = |flight: &Command| flight.side == side && flight.verb == verb;
        let Some(at) = self.net.iter().position(same) else {
            return false;
        };
        let may = match fate {
            Fate::Heard => true,
            // What moves something twice: a sidecar repeats what it has no answer to.
            Fate::Twice => !matches!(verb, Verb::Load(_)),
            Fate::Lost => self.sides[side].alive,
            Fate::Late => self.sides[side].alive && self.late.len() < self.flights,
        };
        if !may {
            return false;
        }
        let command = match fate {
            Fate::Twice => self.net[at].clone(),
            _ => self.net.remove(at),
        };
        let (rules, now) = (self.rules, self.now);
        let known = self.takes(&command);
        let Some(server) = self.server_mut(command.server) else {
            return fate != Fate::Twice;
        };
        let answer = server.run(rules, now, &command);
        self.witness(&command, &answer, known);
        match fate {
            Fate::Heard => self.hear(&command, &answer),
            Fate::Late => self.late.push((command, answer)),
            Fate::Lost | Fate::Twice => {}
        }
        true
    }

    pub fn hear_late(&mut self, side: usize, verb: Verb) -> bool {
        let same = |(command, _): &(Command, Answer)| command.side == side && command.verb == verb;
        let Some(at) = self.late.iter().position(same) else {
            return false;
        };
        let (command, answer) = self.late.remove(at);
        self.hear(&command, &answer);
        true
    }

    fn hear(&mut self, command: &Command, answer: &Answer) {
        let side = &mut self.sides[command.side];
        if !side.alive {
            return;
        }
        let same_epoch = side.adopted == Some(command.epoch);
        if matches!(answer, Answer::Lost) && same_epoch {
            side.adopted = None;
        }
        if let Some(until) = Self::promise(answer).filter(|_| same_epoch) {
            self.promised(command, until);
        }
        match (command.verb, answer) {
            (Verb::Reserve(call), Answer::Reserve(reserved)) => self.reserved(call, reserved),
            (Verb::Progress(call, _), Answer::Progress(Progressed::Unknown)) => {
                let live = self.calls[call].state == State::Admitted;
                if live && self.rules.hold(Rule::HeldAgain) {
                    self.send(command.side, Verb::Again(call), Carries::Nothing);
                } else if live && same_epoch {
                    self.promised(command, self.now);
                }
            }
            (Verb::Settle(call, _), Answer::Settle(answer)) => {
                let epoch = self.sides[command.side].adopted;
                let counts = same_epoch || !self.rules.hold(Rule::AnswersOfThisEpoch);
                if let Some(epoch) = epoch.filter(|_| counts) {
                    self.settled(call, epoch, *answer);
                }
            }
            _ => {}
        }
    }

    fn reserved(&mut self, call: usize, reserved: &Rc<Reserved>) {
        let call = &mut self.calls[call];
        if call.state == State::Reserving {
            match **reserved {
                Reserved::Held { .. } => call.state = State::Admitted,
                // It has lapsed already: it is not forwarded, and so it is released.
                Reserved::Ended(_) => {
                    call.state = State::Ending;
                    call.settles = true;
                }
                _ => call.state = State::Idle,
            }
        }
    }

    fn settled(&mut self, call: usize, epoch: Epoch, answer: SettleAnswer) {
        let seq = match answer {
            SettleAnswer::Ended(seq) => Some(seq),
            SettleAnswer::Already(_) => None,
            SettleAnswer::BelowZero | SettleAnswer::Cold => return,
        };
        let keeps = self.rules.hold(Rule::EndingsAreKept)
            && (seq.is_some() || self.rules.hold(Rule::KeptWhereAlreadyEnded));
        let call = &mut self.calls[call];
        if call.state == State::Ending {
            call.state = State::Done;
            call.kept = keeps.then_some(Kept { epoch, seq });
        }
    }

    /// A shard begins another epoch for a sidecar: what it acknowledged before is settled again.
    pub fn adopt(&mut self, side: usize, epoch: Epoch) {
        let sidecar = &mut self.sides[side];
        sidecar.adopted = Some(epoch);
        for call in 0..self.calls.len() {
            let outlived = self.calls[call]
                .kept
                .is_some_and(|kept| kept.epoch != epoch);
            if self.owner(call) == side && outlived {
                self.calls[call].state = State::Ending;
                self.calls[call].kept = None;
            }
        }
    }
}
