//! The live store, whatever keeps it: one list of properties for every backend, and the backends against the engine.

mod books;
mod bounds;
mod deadlines;
mod differential;
mod endings;
mod following;
mod journal;
mod limits;
mod properties;
mod races;
mod recovery;
pub mod stage;
mod steps;
