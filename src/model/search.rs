//! A random search over runs, and the shortest trace that still fails.

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::action::Action;
use super::candidates::candidates;
use super::cast::SHARD;
use super::rules::Rules;
use super::server::Server;
use super::world::{Bounds, World};
use super::wrong::{Broken, Wrong};

/// A run that failed.
#[derive(Debug)]
pub struct Failure {
    pub wrong: Wrong,
    pub trace: Vec<Action>,
}

/// Numbers that follow from a seed alone, on every machine (xorshift64*).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        for _ in 0..8 {
            dice.next();
        }
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// How long a search goes on.
#[derive(Debug, Clone, Copy)]
pub struct Until {
    pub runs: u64,
    /// At the most, however few runs that allows.
    pub time: Duration,
}

/// What a search has searched.
#[derive(Debug, Default)]
pub struct Searched {
    pub runs: u64,
    pub steps: u64,
    pub failure: Option<Failure>,
}

/// Runs until something fails, or that invariant if one is named, or it has been long enough.
pub fn search(
    rules: Rules,
    bounds: &Bounds,
    seed: u64,
    until: Until,
    of: Option<Broken>,
) -> Searched {
    let began = Instant::now();
    let mut dice = Dice::new(seed);
    let mut searched = Searched::default();
    while searched.runs < until.runs && began.elapsed() < until.time {
        searched.runs += 1;
        let trace = walk(rules, bounds, &mut dice);
        searched.steps += trace.len() as u64;
        let failed = replay(rules, bounds, &trace).err();
        if let Some(wrong) = failed.filter(|wrong| of.is_none_or(|of| of == wrong.broken)) {
            searched.failure = Some(Failure { wrong, trace });
            break;
        }
    }
    searched
}

/// One run; only the steps that were possible.
fn walk(rules: Rules, bounds: &Bounds, dice: &mut Dice) -> Vec<Action> {
    let mut world = World::warm(rules, bounds);
    let length = 10 + dice.below(50);
    let mut trace = Vec::new();
    for action in bounds.opening {
        trace.push(*action);
        if attempt(&mut world, *action).is_err() {
            return trace;
        }
    }
    for _ in 0..length {
        let mut candidates = candidates(&world);
        while !candidates.is_empty() {
            let weights = candidates.iter().map(|action| action.weight()).sum();
            let mut at = dice.below(weights);
            let chosen = candidates.iter().position(|action| {
                let here = at < action.weight();
                at = at.saturating_sub(action.weight());
                here
            });
            let action = candidates.swap_remove(chosen.expect("it is below the sum of weights"));
            match attempt(&mut world, action) {
                Ok(true) => {
                    trace.push(action);
                    break;
                }
                Ok(false) => {}
                Err(_) => {
                    trace.push(action);
                    return trace;
                }
            }
        }
    }
    trace
}

/// A step; an assertion that does not hold is something wrong like any other.
fn attempt(world: &mut World, action: Action) -> Result<bool, Wrong> {
    let stepped = catch_unwind(AssertUnwindSafe(|| world.step(action)));
    stepped.map_err(|panic| Wrong::asserted(&*panic))
}

/// Takes the steps of a trace, comes to rest and reckons.
pub fn replay(rules: Rules, bounds: &Bounds, trace: &[Action]) -> Result<(), Wrong> {
    let mut world = World::warm(rules, bounds);
    for action in trace {
        attempt(&mut world, *action)?;
        if let Some(wrong) = world.wrong {
            return Err(wrong);
        }
    }
    reckoned(world)
}

/// Comes to rest and reckons, if nothing is wrong already.
pub fn reckoned(mut world: World) -> Result<(), Wrong> {
    if let Some(wrong) = world.wrong.take() {
        return Err(wrong);
    }
    catch_unwind(AssertUnwindSafe(|| world.reckon()))
        .unwrap_or_else(|panic| Err(Wrong::asserted(&*panic)))
}

/// A run in words: after each step, where the servers, the ledger's row and the sidecars are.
pub fn story(rules: Rules, bounds: &Bounds, failure: &Failure) -> String {
    let mut world = World::warm(rules, bounds);
    let mut story = format!("{}\n  {}\n", failure.wrong, place(&world));
    for action in &failure.trace {
        let _ = attempt(&mut world, *action);
        let _ = writeln!(story, "{action:?}\n  {}", place(&world));
    }
    story
}

fn place(world: &World) -> String {
    let server = |server: &Server| match server.header() {
        Some(h) => format!(
            "{}: epoch {} out {} applied {}",
            server.name, h.epoch, h.out_seq, h.applied_seq
        ),
        None => format!("{}: empty", server.name),
    };
    let row = world.truth.row(SHARD);
    let home = row
        .home
        .as_ref()
        .map(|home| (home.epoch.0, home.run_id.0.clone()));
    let sides = world
        .sides
        .iter()
        .map(|side| (side.server, side.adopted.map(|epoch| epoch.0)));
    format!(
        "server {}; old {:?}; row {home:?} flushed {} last {}; sides {:?}",
        server(&world.current),
        world.old.as_ref().map(server),
        row.flushed_seq,
        row.last_change,
        sides.collect::<Vec<_>>(),
    )
}

/// Leaves out whatever the failure does not need.
pub fn shrink(rules: Rules, bounds: &Bounds, failure: Failure) -> Failure {
    let Failure { wrong, mut trace } = failure;
    let fails = |trace: &[Action]| {
        let failed = replay(rules, bounds, trace).err();
        failed.is_some_and(|other| other.broken == wrong.broken)
    };
    let mut size = trace.len() / 2;
    while size > 0 {
        let mut at = 0;
        let mut shorter = false;
        while at + size <= trace.len() {
            let mut less = trace.clone();
            less.drain(at..at + size);
            if fails(&less) {
                trace = less;
                shorter = true;
            } else {
                at += 1;
            }
        }
        if !shorter || size > 1 {
            size /= 2;
        }
    }
    let wrong = replay(rules, bounds, &trace).err().unwrap_or(wrong);
    Failure { wrong, trace }
}
