//! A model of the protocol, with the real engine and the real ledger's decisions in it.
//!
//! Everything that may go wrong does, in every order: commands are lost, late and repeated, sidecars die, servers are
//! wiped, go back, and come back under a name that was known. Then all of it comes to rest, and the books must be right.
//! Each rule is taken back in turn, and then they must not be.

mod action;
mod books;
mod candidates;
mod cast;
mod check;
mod exhaustive;
mod flush;
mod openings;
mod rest;
mod rules;
mod scenes;
mod search;
mod server;
mod sidecar;
mod step;
mod taken_back;
mod upkeep;
mod witness;
mod world;
mod wrong;

mod tests;
