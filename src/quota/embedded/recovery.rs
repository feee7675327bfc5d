//! Recovery: the engines as the journal tells them, from each shard's snapshot and the commands that followed it.
//!
//! An engine that does not come out exactly as it was would be worth nothing, so whatever does not fit ends it here.

use serde::Deserialize;

use super::command::{FORMAT, Record};
use super::{Group, GroupSeq, Journal, JournalError};
use crate::quota::engine::Engine;

/// Groups that are read at once.
const PAGE: usize = 256;

/// Why a journal does not become a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// It cannot be read.
    #[error("the journal cannot be read: {0}")]
    Journal(#[from] JournalError),
    /// Another release has written it.
    #[error(
        "the journal is of format {0} and this tollgate reads format {FORMAT}: open the file with a tollgate of the \
         release that last served it"
    )]
    Format(u8),
    /// It is not what any release writes.
    #[error("the journal is damaged: {0}; bring back the file from a backup")]
    Damaged(String),
}

/// What a journal comes to.
pub(super) struct Recovered {
    pub shards: Vec<RecoveredShard>,
    /// The number of its last group.
    pub last: GroupSeq,
}

#[derive(Default)]
pub(super) struct RecoveredShard {
    pub engine: Option<Engine>,
    /// The last group that its snapshot has in it.
    after: GroupSeq,
    /// Whether there were commands since.
    pub changed: bool,
}

#[cfg(test)]
impl RecoveredShard {
    pub fn of(engine: Option<Engine>) -> Self {
        Self {
            engine,
            ..Self::default()
        }
    }
}

pub(super) async fn recover(
    journal: &impl Journal,
    shards: u16,
    outbox_bound: u64,
) -> Result<Recovered, RecoveryError> {
    let mut recovered = Recovered {
        shards: (0..shards).map(|_| RecoveredShard::default()).collect(),
        last: GroupSeq::default(),
    };
    for snapshot in journal.snapshots().await? {
        let shard = recovered.shard(snapshot.shard.0)?;
        shard.engine = Some(engine(&snapshot.body)?);
        shard.after = snapshot.after;
        recovered.last = recovered.last.max(snapshot.after);
    }
    // What every snapshot has in it is pruned, so there is little to pass over.
    let mut read = GroupSeq::default();
    loop {
        let page = journal.groups(read, PAGE).await?;
        for group in &page {
            recovered.replay(group)?;
        }
        let Some(group) = page.last() else {
            break;
        };
        read = group.seq;
    }
    recovered.last = recovered.last.max(read);
    for shard in &mut recovered.shards {
        if let Some(engine) = &mut shard.engine {
            engine.bound_outbox(outbox_bound);
        }
    }
    Ok(recovered)
}

impl Recovered {
    fn shard(&mut self, shard: u16) -> Result<&mut RecoveredShard, RecoveryError> {
        let shards = self.shards.len();
        self.shards.get_mut(usize::from(shard)).ok_or_else(|| {
            RecoveryError::Damaged(format!(
                "it knows shard {shard}, and there are {shards} of them"
            ))
        })
    }

    fn replay(&mut self, group: &Group) -> Result<(), RecoveryError> {
        let seq = group.seq;
        let damaged = |what: &dyn std::fmt::Display| {
            RecoveryError::Damaged(format!("group {}: {what}", seq.0))
        };
        let mut rest = of_format(&group.body)?;
        while !rest.is_empty() {
            let record = Record::deserialize(&mut rmp_serde::Deserializer::new(&mut rest));
            let record = record.map_err(|error| damaged(&error))?;
            let shard = self.shard(record.shard.0)?;
            if seq <= shard.after {
                continue;
            }
            let done = record.command.replay(&mut shard.engine, record.at);
            done.map_err(|what| damaged(&what))?;
            shard.changed = true;
        }
        Ok(())
    }
}

/// A shard as its snapshot has it.
fn engine(body: &[u8]) -> Result<Engine, RecoveryError> {
    let mut engine: Engine = rmp_serde::from_slice(of_format(body)?)
        .map_err(|error| RecoveryError::Damaged(format!("a snapshot: {error}")))?;
    engine.bound_outbox(u64::MAX);
    Ok(engine)
}

/// What such a snapshot is made of.
pub(super) fn snapshot(engine: &Engine) -> Vec<u8> {
    let mut body = vec![FORMAT];
    rmp_serde::encode::write(&mut body, engine).expect("an engine has a form in MessagePack");
    body
}

fn of_format(body: &[u8]) -> Result<&[u8], RecoveryError> {
    match body.split_first() {
        Some((&FORMAT, rest)) => Ok(rest),
        Some((&other, _)) => Err(RecoveryError::Format(other)),
        None => Err(RecoveryError::Damaged("it has an empty piece".into())),
    }
}
