//! The ledgers, in PostgreSQL and in a SQLite file, and the tasks between them and a store in memory.

mod adjustments;
mod append_only;
mod apply;
mod backfill;
mod check;
mod decide;
mod epochs;
mod expiry;
mod flush;
mod operator;
mod place;
mod postings;
mod properties;
mod quarantine;
mod silence;
mod sqlite;
mod tasks;
mod unreadable;
mod withdrawals;
mod world;
