//! The ledger in one SQLite file: the durable truth of an installation that is one process.

pub mod file;
