//! The ledgers, in PostgreSQL and in a SQLite file, and the tasks between them and a store in memory.

mod append_only;
mod apply;
mod check;
mod decide;
mod flush;
mod place;
mod properties;
mod silence;
mod tasks;
mod world;
