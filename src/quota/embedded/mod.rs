//! The embedded store: engines in memory, and a journal from which they come back (rule 28).

mod journal;

pub use journal::{Group, GroupSeq, Journal, JournalError, ShardSnapshot};
