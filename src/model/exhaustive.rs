//! Every run of a small world, breadth first: what is found is as short as it can be.
//!
//! It is our own search and not the crate `stateright`: that one wants each state to be hashable, which the engine and the
//! ledger have no use for otherwise, and it asks for properties of states, where what counts here is whether a state can
//! still come to rest with its books right. Of a state that was visited only a fingerprint of all that it shows is kept.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};

use super::action::Action;
use super::candidates::candidates;
use super::rules::Rules;
use super::search::{Failure, reckoned};
use super::world::{Bounds, World};

/// What was searched.
#[derive(Debug, Default)]
pub struct Exhausted {
    pub states: usize,
    /// How many steps the longest run had, and whether there are no longer ones.
    pub steps: usize,
    pub is_all: bool,
    pub failure: Option<Failure>,
}

/// Takes every step that is possible in every state, one after another, up to so many.
pub fn exhaust(rules: Rules, bounds: &Bounds, steps: usize) -> Exhausted {
    let first = World::warm(rules, bounds);
    let mut seen = HashSet::from([fingerprint(&first)]);
    let mut front = vec![(first, bounds.opening.to_vec())];
    for action in bounds.opening {
        front[0].0.step(*action);
    }
    let mut exhausted = Exhausted::default();
    while !front.is_empty() && exhausted.steps < steps {
        exhausted.steps += 1;
        let mut next = Vec::new();
        for (world, trace) in &front {
            for action in candidates(world) {
                let Some(after) = stepped(world, action) else {
                    continue;
                };
                if !seen.insert(fingerprint(&after)) {
                    continue;
                }
                let trace: Vec<Action> = trace.iter().copied().chain([action]).collect();
                if let Err(wrong) = reckoned(after.clone()) {
                    exhausted.states = seen.len();
                    exhausted.failure = Some(Failure { wrong, trace });
                    return exhausted;
                }
                next.push((after, trace));
            }
        }
        front = next;
    }
    exhausted.states = seen.len();
    exhausted.is_all = front.is_empty();
    exhausted
}

fn stepped(world: &World, action: Action) -> Option<World> {
    let mut after = world.clone();
    after.step(action).then_some(after)
}

/// A hash of all that a state shows of itself, without writing it down.
fn fingerprint(world: &World) -> u64 {
    struct Sink(DefaultHasher);
    impl Write for Sink {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.write(text.as_bytes());
            Ok(())
        }
    }
    let mut sink = Sink(DefaultHasher::new());
    write!(sink, "{world:?}").expect("a hash takes everything");
    sink.0.finish()
}
