//! The ledger in PostgreSQL, and the tasks between it and a store in memory.

mod adjustments;
mod append_only;
mod apply;
mod backfill;
mod check;
mod decide;
mod epochs;
mod expiry;
mod flush;
mod postings;
mod quarantine;
mod silence;
mod tasks;
mod unreadable;
mod withdrawals;
mod world;
