//! The journal, as the embedded store needs it: groups of commands in their order, and snapshots that cut it short.
//!
//! What is in a group or a snapshot is the store's own matter, bytes to whoever keeps them; so the store knows no SQL, and
//! the file knows no engine (rule 28).

use crate::quota::ShardId;

/// The number of a group. Groups are numbered on for ever, also over snapshots and restarts; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GroupSeq(pub i64);

/// Some commands of any shards, in the order they were executed: what one commit makes durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub seq: GroupSeq,
    /// The commands.
    pub body: Vec<u8>,
}

/// A shard as it was after all of its commands up to a group, and before any of a later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSnapshot {
    /// Which.
    pub shard: ShardId,
    /// The last group it has in it.
    pub after: GroupSeq,
    /// The shard.
    pub body: Vec<u8>,
}

/// The journal could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JournalError(pub String);

/// Where the embedded store writes down what it did. Calls may overlap; only [`Journal::commit`] is called by one task
/// alone, with one number after another.
pub trait Journal: Send + Sync + 'static {
    /// Makes a group durable, in a transaction of its own. After an error the store reads the journal again to see
    /// whether it is there, so it need not be certain that it is not.
    fn commit(&self, group: Group) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Whether a group would be taken: writes as much as a long one, durably, and takes it away again. After a group that
    /// failed nothing is committed before this succeeds.
    fn probe(&self) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Keeps a snapshot in place of the shard's earlier one. One that was given up may come late: a later one stays.
    fn keep(
        &self,
        snapshot: ShardSnapshot,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Drops every group up to and with this one: the snapshots have them. In steps that hold the file only for a moment.
    fn prune(&self, upto: GroupSeq) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The snapshot of every shard that has one.
    fn snapshots(&self) -> impl Future<Output = Result<Vec<ShardSnapshot>, JournalError>> + Send;

    /// The groups after one, by number, at most `max`.
    fn groups(
        &self,
        after: GroupSeq,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Group>, JournalError>> + Send;
}
