//! A journal in memory, for stores that are closed and opened again in one test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tollgate::quota::ShardId;
use tollgate::quota::embedded::{Group, GroupSeq, Journal, JournalError, ShardSnapshot};

#[derive(Default)]
pub struct MemoryJournal {
    groups: Mutex<BTreeMap<GroupSeq, Vec<u8>>>,
    snapshots: Mutex<BTreeMap<ShardId, ShardSnapshot>>,
}

impl MemoryJournal {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

impl Journal for MemoryJournal {
    async fn commit(&self, group: Group) -> Result<(), JournalError> {
        let before = self.groups.lock().unwrap().insert(group.seq, group.body);
        assert!(before.is_none(), "no number is used twice");
        Ok(())
    }

    async fn keep(&self, snapshot: ShardSnapshot) -> Result<(), JournalError> {
        let shard = snapshot.shard;
        self.snapshots.lock().unwrap().insert(shard, snapshot);
        Ok(())
    }

    async fn prune(&self, upto: GroupSeq) -> Result<(), JournalError> {
        self.groups.lock().unwrap().retain(|seq, _| *seq > upto);
        Ok(())
    }

    async fn snapshots(&self) -> Result<Vec<ShardSnapshot>, JournalError> {
        Ok(self.snapshots.lock().unwrap().values().cloned().collect())
    }

    async fn groups(&self, after: GroupSeq, max: usize) -> Result<Vec<Group>, JournalError> {
        let groups = self.groups.lock().unwrap();
        let later = groups.iter().filter(|(seq, _)| **seq > after);
        let group = |(seq, body): (&GroupSeq, &Vec<u8>)| Group {
            seq: *seq,
            body: body.clone(),
        };
        Ok(later.take(max).map(group).collect())
    }
}
