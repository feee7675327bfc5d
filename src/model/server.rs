//! A server of the store: the real engine, and a name that is no proof of what is on it.

use std::rc::Rc;

use uuid::Uuid;

use super::action::Verb;
use super::cast;
use super::rules::{Rule, Rules};
use crate::clock::UnixMs;
use crate::quota::engine::Engine;
use crate::quota::{
    AccountImage, Admission, ApplyAnswer, ChangeSeq, Epoch, ExpiredLot, Header, LapseAnswer,
    Overdue, Progressed, ReservationId, Reserved, RunId, SettleAnswer, ShardView, StoreChange,
};

#[derive(Debug, Clone)]
pub struct Server {
    pub name: u8,
    /// `None`: it is empty.
    pub engine: Option<Rc<Engine>>,
}

/// A command on its way, with what it carries.
#[derive(Debug, Clone)]
pub struct Command {
    pub side: usize,
    /// The server that the connection goes to.
    pub server: u8,
    /// The epoch that its sidecar had agreed on.
    pub epoch: Epoch,
    pub verb: Verb,
    pub carries: Carries,
}

#[derive(Debug, Clone)]
pub enum Carries {
    Nothing,
    Image(Rc<AccountImage>),
    Change(Rc<StoreChange>),
    Lot(Rc<ExpiredLot>),
}

#[derive(Debug, Clone)]
pub enum Answer {
    /// The shard is of another epoch than the sidecar knows.
    Lost,
    Reserve(Rc<Reserved>),
    Progress(Progressed),
    Settle(SettleAnswer),
    Lapse(LapseAnswer),
    /// Of a verb whose answer nobody waits for.
    Other,
}

/// How many entries the outbox takes: more than there ever are.
const OUTBOX_BOUND: u64 = 1000;
/// A moment at which every mark has been forgotten.
const LONG_AFTER: UnixMs = UnixMs(i64::MAX / 2);

impl Server {
    pub fn run_id(&self) -> RunId {
        RunId(self.name.to_string())
    }

    pub fn header(&self) -> Option<&Header> {
        self.engine.as_ref().map(|engine| engine.header())
    }

    pub fn view(&self, now: UnixMs) -> ShardView {
        ShardView {
            header: self.header().cloned(),
            run_id: self.run_id(),
            now,
            noeviction: true,
            outbox_len: self.engine.as_ref().map_or(0, |engine| engine.outbox_len()),
            oldest_epoch: self.engine.as_ref().and_then(|e| e.oldest_epoch()),
        }
    }

    pub fn engine_mut(&mut self) -> Option<&mut Engine> {
        self.engine.as_mut().map(Rc::make_mut)
    }

    /// What [`crate::quota::Store::open`] does.
    pub fn open(&mut self, rules: Rules, header: &Header) {
        let Some(engine) = self.engine_mut() else {
            self.engine = Some(Rc::new(Engine::new(header.clone(), OUTBOX_BOUND)));
            return;
        };
        let goes_up = header.epoch > engine.header().epoch;
        engine.open(header);
        let restarts = !rules.hold(Rule::OutSeqNeverRestarts) && goes_up;
        if restarts || !rules.hold(Rule::HeaderOnlyUpwards) && !goes_up {
            engine.overwrite_header(header);
        }
    }

    /// Forgets all ended marks.
    pub fn age(&mut self) {
        if let Some(engine) = self.engine_mut() {
            let mut nobody = cast::progress(0, 0);
            nobody.id = ReservationId(Uuid::nil());
            engine.progress(LONG_AFTER, &nobody);
        }
    }

    /// Runs a command, as one atomic step. `None`: it is ours no more.
    pub fn run(&mut self, rules: Rules, now: UnixMs, command: &Command) -> Answer {
        let Some(engine) = self.engine_mut() else {
            return Answer::Lost;
        };
        let expected = engine.header().epoch == command.epoch;
        if !expected && rules.hold(Rule::CommandsExpectAnEpoch) {
            return Answer::Lost;
        }
        let answer = run(engine, rules, now, command);
        engine.check_invariants();
        if !rules.hold(Rule::EndedMarks) {
            self.age();
        }
        answer
    }
}

fn run(engine: &mut Engine, rules: Rules, now: UnixMs, command: &Command) -> Answer {
    match (command.verb, &command.carries) {
        (Verb::Reserve(call), _) => {
            let reserve = cast::reserve(call, Admission::Strict);
            Answer::Reserve(Rc::new(engine.reserve(now, &reserve)))
        }
        (Verb::Again(call), _) => {
            let reserve = cast::reserve(call, Admission::Again);
            Answer::Reserve(Rc::new(engine.reserve(now, &reserve)))
        }
        (Verb::Progress(call, metered), _) => {
            Answer::Progress(engine.progress(now, &cast::progress(call, metered)))
        }
        (Verb::Settle(call, charge), _) => {
            let unknown = engine.takes(cast::id(call)).is_none();
            if unknown && !rules.hold(Rule::UnknownIdsAreSettled) {
                return Answer::Settle(SettleAnswer::Ended(engine.header().out_seq));
            }
            let answer = engine.settle(now, &cast::settle(call, charge));
            if unknown && !rules.hold(Rule::MarksOfUnknownIds) {
                engine.unmark(cast::id(call));
            }
            Answer::Settle(answer)
        }
        (Verb::Lapse(call), _) => Answer::Lapse(lapse(engine, rules, now, call)),
        (Verb::Expire, Carries::Lot(lot)) => {
            engine.expire(now, lot);
            Answer::Other
        }
        (Verb::Load(_), Carries::Image(image)) => {
            load(engine, rules, now, image);
            Answer::Other
        }
        (Verb::Apply(_), Carries::Change(change)) => {
            apply(engine, rules, now, change);
            Answer::Other
        }
        odd => unreachable!("{odd:?}"),
    }
}

fn lapse(engine: &mut Engine, rules: Rules, now: UnixMs, call: usize) -> LapseAnswer {
    let overdue = Overdue {
        id: cast::id(call),
        account: cast::account(cast::account_of(call)),
    };
    match engine.lapse(now, &overdue) {
        LapseAnswer::NotDue(deadline) if !rules.hold(Rule::LapseChecksTheDeadline) => {
            engine.lapse(deadline, &overdue)
        }
        answer => answer,
    }
}

fn load(engine: &mut Engine, rules: Rules, now: UnixMs, image: &AccountImage) {
    let mut image = image.clone();
    let id = image.snapshot.account.clone();
    let applied = engine.header().applied_seq;
    if !rules.hold(Rule::LoadsOnlyTheCold) {
        engine.chill(&id);
    }
    if !rules.hold(Rule::ImageNotBehind) {
        image.as_of = image.as_of.max(applied);
    }
    if !rules.hold(Rule::AsOfTheImage) {
        image.as_of = image.as_of.min(applied);
    }
    if !rules.hold(Rule::LoadKeepsWhatIsHeld) {
        let (held, debt) = engine.held_of(&id);
        for (lot, nanos) in held {
            let lot = image.lots.iter_mut().find(|(known, _)| known.id == lot);
            if let Some((_, left)) = lot {
                *left += nanos;
            }
        }
        image.debt -= debt;
    }
    engine.load(now, &image);
}

fn apply(engine: &mut Engine, rules: Rules, now: UnixMs, change: &StoreChange) {
    let answer = engine.apply(now, change);
    if answer == ApplyAnswer::Applied || rules.hold(Rule::ChangesInOrder) {
        return;
    }
    let at = |engine: &mut Engine, seq: ChangeSeq| {
        let header = engine.header().clone();
        engine.overwrite_header(&Header {
            applied_seq: seq,
            ..header
        });
    };
    let applied = engine.header().applied_seq;
    at(engine, ChangeSeq(change.seq.0 - 1));
    engine.apply(now, change);
    at(engine, applied.max(change.seq));
}
