//! What is wrong at once, and not only in the end: looks over the store's shoulder at each command.
//!
//! What rule 23 relaxes is not looked for: between a loss and the holds made again, invariant 1 is bounded and not exact.

use super::action::Verb;
use super::cast;
use super::server::{Answer, Command};
use super::world::{Call, State, World};
use super::wrong::Broken;
use crate::clock::UnixMs;
use crate::quota::{LapseAnswer, Progressed, Reserved, SettleAnswer};

impl World {
    /// What a server says of the call of a command.
    pub fn takes(&self, command: &Command) -> Option<i64> {
        let call = call_of(command.verb)?;
        let engine = self.server(command.server)?.engine.as_ref()?;
        Some(engine.takes(cast::id(call))?.0)
    }

    /// Looks at what a command has done. `before` is what its server said of the call until then.
    pub fn witness(&mut self, command: &Command, answer: &Answer, before: Option<i64>) {
        let Some(call) = call_of(command.verb) else {
            return;
        };
        let at_current = command.server == self.current.name;
        let takes = self.takes(command).filter(|_| at_current);
        if let Some(takes) = takes {
            self.happened.takes[call] = takes;
        }
        let whole = self.happened.losses == 0 && self.happened.ages == 0;
        match answer {
            Answer::Reserve(reserved) if before.is_none() && is_held(reserved) => {
                self.calls[call].was_held = true;
                if matches!(command.verb, Verb::Reserve(_)) {
                    self.witness_hold(command, call, whole);
                }
            }
            Answer::Settle(SettleAnswer::Ended(_)) if whole => self.witness_end(call),
            Answer::Lapse(LapseAnswer::Lapsed(_)) => {
                self.calls[call].was_held = true;
                // A server that went back may not know of the last heartbeat.
                if self.happened.losses == 0 {
                    self.witness_lapse(call);
                }
            }
            _ => {}
        }
    }

    /// A call has a new hold.
    fn witness_hold(&mut self, command: &Command, call: usize, whole: bool) {
        let account = cast::account_of(call);
        if whole && self.calls[call].ended_in_store > 0 {
            self.complain(|| Broken::NeverLeaked.since(format!("{call} is held after its end")));
        }
        let taken: i64 = self.calls_of(account).map(|c| self.happened.takes[c]).sum();
        let granted = self.happened.granted[account];
        if whole && taken > granted {
            let why = format!("{taken} of {granted} with call {call}");
            self.complain(|| Broken::NeverOversold.since(why));
        }
        let unheld = self.calls_of(account).find(|other| {
            let told = self.calls[*other].held_in == Some(command.epoch);
            let live = self.calls[*other].state == State::Admitted && !self.calls[*other].orphan;
            told && live && self.held_at(command, *other).is_none()
        });
        if let Some(other) = unheld.filter(|_| self.happened.ages == 0) {
            let why = format!("nothing is set aside for {other}, and {call} is admitted");
            self.complain(|| Broken::NeverOversold.since(why));
        }
    }

    fn held_at(&self, command: &Command, call: usize) -> Option<i64> {
        let engine = self.server(command.server)?.engine.as_ref()?;
        Some(engine.takes(cast::id(call))?.0)
    }

    /// The store has ended a call, and charged it. It does so again only to correct a lapse.
    fn witness_end(&mut self, call: usize) {
        let known = &mut self.calls[call];
        known.ended_in_store += 1;
        if known.ended_in_store > 1 {
            self.complain(|| Broken::NeverTwice.since(format!("the store has ended {call} again")));
        }
    }

    /// A hold has lapsed. Its sidecar was told until when it has it.
    fn witness_lapse(&mut self, call: usize) {
        let now = self.now;
        let Call { held_until, .. } = self.calls[call];
        if now < held_until {
            let why = format!("{call} lapsed at {now:?} and was promised {held_until:?}");
            self.complain(|| Broken::NeverOversold.since(why));
        }
    }

    /// A sidecar hears until when a call is held, and believes it.
    pub fn promised(&mut self, command: &Command, until: UnixMs) {
        if let Some(call) = call_of(command.verb) {
            let call = &mut self.calls[call];
            call.held_until = call.held_until.max(until);
            call.held_in = Some(command.epoch);
        }
    }

    /// What an answer promises.
    pub fn promise(answer: &Answer) -> Option<UnixMs> {
        match answer {
            Answer::Reserve(reserved) => match **reserved {
                Reserved::Held { deadline, .. } => Some(deadline),
                _ => None,
            },
            Answer::Progress(Progressed::Held(deadline)) => Some(*deadline),
            _ => None,
        }
    }
}

fn is_held(reserved: &Reserved) -> bool {
    matches!(reserved, Reserved::Held { .. })
}

pub fn call_of(verb: Verb) -> Option<usize> {
    match verb {
        Verb::Reserve(call)
        | Verb::Again(call)
        | Verb::Progress(call, _)
        | Verb::Settle(call, _)
        | Verb::Lapse(call) => Some(call),
        Verb::Expire | Verb::Load(_) | Verb::Apply(_) => None,
    }
}
