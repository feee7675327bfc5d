//! The whole world of the model in one state: a ledger, servers of the store, sidecars with their calls, and what is on
//! its way between them.
//!
//! The ledger, the engines, and what each of them decides are the real ones. What is modelled is all that happens
//! between them: each step that a sidecar takes, and that it may take none of them any more.

use std::collections::BTreeMap;
use std::rc::Rc;

use uuid::Uuid;

use super::action::{Action, Fate, Verb};
use super::cast;
use super::rules::Rules;
use super::server::{Answer, Carries, Command, Server};
use super::wrong::Wrong;
use crate::clock::UnixMs;
use crate::ledger::{Home, Pending, Truth};
use crate::quota::engine::Engine;
use crate::quota::{AccountImage, Epoch, Header, OutSeq, Outbox, ShardView};

/// How much may happen in one run.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub sides: usize,
    pub calls: usize,
    /// Commands and late answers on their way.
    pub flights: usize,
    pub budget: Budget,
    /// With these steps every run begins: where a search would have to be lucky to come to what is interesting.
    pub opening: &'static [Action],
}

/// How often each of these may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    pub losses: u8,
    pub crashes: u8,
    pub disconnects: u8,
    pub rebuilds: u8,
    pub grants: u8,
    pub adjustments: u8,
    pub withdrawals: u8,
    pub ages: u8,
    pub ticks: u8,
    pub heartbeats: u8,
}

#[derive(Debug, Clone)]
pub struct World {
    pub rules: Rules,
    pub flights: usize,
    pub budget: Budget,
    pub now: UnixMs,
    pub current: Server,
    /// The server before, as long as somebody may reach it.
    pub old: Option<Server>,
    pub copies: Vec<Option<Rc<Engine>>>,
    pub truth: Rc<Truth>,
    pub sides: Vec<Sidecar>,
    pub calls: Vec<Call>,
    pub net: Vec<Command>,
    pub late: Vec<(Command, Answer)>,
    /// Which sidecar's check holds the lock of the shard's row.
    pub lock: Option<usize>,
    pub happened: Happened,
    /// What is wrong, once something is.
    pub wrong: Option<Wrong>,
}

/// What has happened that the final reckoning must know of.
#[derive(Debug, Clone, Default)]
pub struct Happened {
    /// The store may have forgotten what it acknowledged.
    pub losses: u8,
    pub rebuilds: u8,
    pub ages: u8,
    /// What was granted to each account, or given by hand.
    pub granted: [i64; cast::ACCOUNTS],
    /// What the store said last of each call: held, or charged.
    pub takes: Vec<i64>,
    /// All withdrawals that were ever asked for.
    pub asked: BTreeMap<Uuid, Pending>,
    /// How much each withdrawal asked for at the most.
    pub withdrawals: Vec<(usize, i64)>,
}

#[derive(Debug, Clone)]
pub struct Sidecar {
    pub alive: bool,
    /// The server its connection goes to.
    pub server: u8,
    pub adopted: Option<Epoch>,
    /// It has a reason to check although it has adopted the shard.
    pub suspects: bool,
    /// The epoch that it knows to have no older entries.
    pub drained: Option<Epoch>,
    /// An image that was read before that was known, where a rule is taken back.
    pub early: Option<(usize, Rc<AccountImage>)>,
    pub check: Check,
    pub flush: Option<Flush>,
}

#[derive(Debug, Clone)]
pub enum Check {
    Idle,
    /// With the shard's home in the ledger as it was then.
    Read {
        view: Box<ShardView>,
        home: Option<Home>,
        anew: bool,
    },
    Open {
        header: Header,
        /// What the ledger has not been told yet, where a rule is taken back.
        unsaved: Option<Home>,
        opened: bool,
    },
}

#[derive(Debug, Clone)]
pub struct Flush {
    pub outbox: Rc<Outbox>,
    /// Up to where it is committed.
    pub committed: Option<OutSeq>,
}

#[derive(Debug, Clone)]
pub struct Call {
    pub state: State,
    pub metered: i64,
    pub charge: i64,
    pub kept: Option<Kept>,
    /// A store has held it.
    pub was_held: bool,
    /// Until when its sidecar was told that it is held, and in which epoch last.
    pub held_until: UnixMs,
    pub held_in: Option<Epoch>,
    /// How often the store has ended it, lapses aside.
    pub ended_in_store: u8,
    /// It has been told how to end.
    pub settles: bool,
    /// Its sidecar died.
    pub orphan: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Idle,
    Reserving,
    Admitted,
    Ending,
    Done,
}

/// An ending that was acknowledged, and where the ledger has it; `None`: that is to be looked up.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    pub epoch: Epoch,
    pub seq: Option<OutSeq>,
}

impl World {
    /// A store that was never used, and sidecars that know nothing.
    pub fn new(rules: Rules, bounds: &Bounds) -> Self {
        let side = Sidecar {
            alive: true,
            server: 0,
            adopted: None,
            suspects: false,
            drained: None,
            early: None,
            check: Check::Idle,
            flush: None,
        };
        let call = Call {
            state: State::Idle,
            metered: 0,
            charge: 0,
            kept: None,
            was_held: false,
            held_until: UnixMs(0),
            held_in: None,
            ended_in_store: 0,
            settles: false,
            orphan: false,
        };
        Self {
            rules,
            flights: bounds.flights,
            budget: bounds.budget,
            now: UnixMs(0),
            current: Server {
                name: 0,
                engine: None,
            },
            old: None,
            copies: Vec::new(),
            truth: Rc::new(cast::ledger()),
            sides: vec![side; bounds.sides],
            calls: vec![call; bounds.calls],
            net: Vec::new(),
            late: Vec::new(),
            lock: None,
            happened: Happened {
                granted: [9, 5],
                takes: vec![0; bounds.calls],
                ..Happened::default()
            },
            wrong: None,
        }
    }

    /// The same with every sidecar connected and every account live, where the interesting part begins.
    pub fn warm(rules: Rules, bounds: &Bounds) -> Self {
        let mut world = Self::new(Rules::ALL, bounds);
        for side in 0..bounds.sides {
            world.settle_in(side);
        }
        world.rules = rules;
        world
    }

    /// Checks, and loads what is cold.
    pub fn settle_in(&mut self, side: usize) {
        self.agree(side);
        self.step(Action::AskDrained(side));
        for account in 0..cast::ACCOUNTS {
            self.step(Action::Load(side, account));
            self.step(Action::Arrive(side, Verb::Load(account), Fate::Heard));
        }
    }

    /// Checks until the sidecar knows the epoch of the current server.
    pub fn agree(&mut self, side: usize) {
        for _ in 0..8 {
            self.step(Action::CheckRead(side));
            self.step(Action::CheckSave(side));
            self.step(Action::CheckOpen(side));
        }
    }

    /// Whose call it is.
    pub fn owner(&self, call: usize) -> usize {
        call % self.sides.len()
    }

    /// The server that goes by this name now.
    pub fn server(&self, name: u8) -> Option<&Server> {
        if self.current.name == name {
            return Some(&self.current);
        }
        self.old.as_ref().filter(|server| server.name == name)
    }

    pub fn server_mut(&mut self, name: u8) -> Option<&mut Server> {
        if self.current.name == name {
            return Some(&mut self.current);
        }
        self.old.as_mut().filter(|server| server.name == name)
    }

    /// The epoch that a sidecar's commands expect, if it may send any.
    pub fn ready(&self, side: usize) -> Option<Epoch> {
        let side = &self.sides[side];
        let reaches = self.server(side.server).is_some();
        side.adopted.filter(|_| side.alive && reaches)
    }

    /// The server of a sidecar that may send commands, as long as it is in the epoch they agreed on.
    pub fn home(&self, side: usize) -> Option<(Epoch, &Engine)> {
        let epoch = self.ready(side)?;
        let engine = self.server(self.sides[side].server)?.engine.as_deref()?;
        (engine.header().epoch == epoch).then_some((epoch, engine))
    }

    /// A command sets out, unless the same one is on its way already.
    pub fn send(&mut self, side: usize, verb: Verb, carries: Carries) -> bool {
        let Some(epoch) = self.ready(side) else {
            return false;
        };
        let same = |flight: &Command| flight.side == side && flight.verb == verb;
        if self.net.len() >= self.flights || self.net.iter().any(same) {
            return false;
        }
        self.net.push(Command {
            side,
            server: self.sides[side].server,
            epoch,
            verb,
            carries,
        });
        true
    }

    /// Notes the first thing that is wrong.
    pub fn complain(&mut self, what: impl FnOnce() -> Wrong) {
        if self.wrong.is_none() {
            self.wrong = Some(what());
        }
    }
}
