//! The verbs that change a shard, as they are run and as the journal has them.
//!
//! The engine is deterministic, so a verb and its moment are all that has to be written down: run again in the same
//! order, they end where they ended. What a live verb runs and what a replay runs is the same line here.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::quota::engine::Engine;
use crate::quota::{
    AccountImage, ApplyAnswer, ExpireAnswer, ExpiredLot, Header, LapseAnswer, LoadAnswer, OutSeq,
    Overdue, Progress, Progressed, Reserve, Reserved, Settle, SettleAnswer, ShardId, StoreChange,
};

/// The layout of groups and snapshots; what is of another is not read.
pub(super) const FORMAT: u8 = 1;

/// How long a record usually is.
const RECORD_BYTES: usize = 512;

/// A verb that changed something, in its order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record<'a> {
    pub shard: ShardId,
    pub at: UnixMs,
    pub command: Command<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Command<'a> {
    Open(Cow<'a, Header>),
    Reserve(Cow<'a, Reserve>),
    Progress(Cow<'a, Progress>),
    Settle(Cow<'a, Settle>),
    Lapse(Cow<'a, Overdue>),
    Expire(Cow<'a, ExpiredLot>),
    Load(Cow<'a, AccountImage>),
    Apply(Cow<'a, StoreChange>),
    Forget(Cow<'a, [OutSeq]>),
    /// A verb that changed nothing but that marks were forgotten first.
    ForgetMarks,
}

/// A verb of a shard that is open.
pub(super) trait Verb {
    type Answer;
    fn run(&self, engine: &mut Engine, at: UnixMs) -> Self::Answer;
    /// Whether this answer means that something was changed. Of a verb repeated it may say so once too often.
    fn changed(answer: &Self::Answer) -> bool;
    fn command(&self) -> Command<'_>;
}

macro_rules! verbs {
    ($($verb:ty, $command:ident, $run:ident -> $answer:ty, if $changed:pat,)*) => {$(
        impl Verb for $verb {
            type Answer = $answer;

            fn run(&self, engine: &mut Engine, at: UnixMs) -> $answer {
                engine.$run(at, self)
            }

            fn changed(answer: &$answer) -> bool {
                matches!(answer, $changed)
            }

            fn command(&self) -> Command<'_> {
                Command::$command(Cow::Borrowed(self))
            }
        }
    )*};
}

verbs! {
    Reserve, Reserve, reserve -> Reserved, if Reserved::Held { .. },
    Progress, Progress, progress -> Progressed, if Progressed::Held(_),
    Settle, Settle, settle -> SettleAnswer, if SettleAnswer::Ended(_),
    Overdue, Lapse, lapse -> LapseAnswer, if LapseAnswer::Lapsed(_),
    ExpiredLot, Expire, expire -> ExpireAnswer, if ExpireAnswer::Expired(_),
    AccountImage, Load, load -> LoadAnswer, if LoadAnswer::Loaded,
    StoreChange, Apply, apply -> ApplyAnswer, if ApplyAnswer::Applied,
}

impl Verb for [OutSeq] {
    type Answer = ();

    fn run(&self, engine: &mut Engine, _: UnixMs) {
        engine.forget(self);
    }

    fn changed((): &()) -> bool {
        true
    }

    fn command(&self) -> Command<'_> {
        Command::Forget(Cow::Borrowed(self))
    }
}

/// Writes or raises a header; says whether that changed anything.
pub(super) fn open(engine: &mut Option<Engine>, header: &Header, outbox_bound: u64) -> bool {
    let Some(engine) = engine else {
        *engine = Some(Engine::new(header.clone(), outbox_bound));
        return true;
    };
    let before = engine.header().epoch;
    engine.open(header);
    engine.header().epoch > before
}

impl Record<'_> {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RECORD_BYTES);
        rmp_serde::encode::write(&mut bytes, self).expect("verbs have a form in MessagePack");
        bytes
    }
}

impl Command<'_> {
    /// Runs it again. `Err`: it cannot have been run on such a shard.
    pub fn replay(&self, engine: &mut Option<Engine>, at: UnixMs) -> Result<(), &'static str> {
        if let Self::Open(header) = self {
            // Whatever the bound is now, what was taken in then is taken in again.
            open(engine, header, u64::MAX);
            return Ok(());
        }
        let engine = engine.as_mut().ok_or("a verb comes before its header")?;
        engine.forget_marks(at);
        let same = match self {
            Self::Reserve(verb) => does_the_same(&**verb, engine, at),
            Self::Progress(verb) => does_the_same(&**verb, engine, at),
            Self::Settle(verb) => does_the_same(&**verb, engine, at),
            Self::Lapse(verb) => does_the_same(&**verb, engine, at),
            Self::Expire(verb) => does_the_same(&**verb, engine, at),
            Self::Load(verb) => does_the_same(&**verb, engine, at),
            Self::Apply(verb) => does_the_same(&**verb, engine, at),
            Self::Forget(verb) => does_the_same(&**verb, engine, at),
            Self::ForgetMarks | Self::Open(_) => true,
        };
        same.then_some(()).ok_or("a verb does not do what it did")
    }
}

/// What was written down had changed something: whatever it finds now, it must do so again.
fn does_the_same<V: Verb + ?Sized>(verb: &V, engine: &mut Engine, at: UnixMs) -> bool {
    V::changed(&verb.run(engine, at))
}
