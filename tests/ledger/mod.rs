//! The ledger in PostgreSQL, and the tasks between it and a store in memory.

mod append_only;
mod apply;
mod check;
mod decide;
mod flush;
mod silence;
mod tasks;
mod world;
