//! How a sidecar carries entries of the outbox to the ledger (rules 19 and 24): read, commit, forget.

use std::rc::Rc;

use super::cast::SHARD;
use super::rules::Rule;
use super::world::{Flush, World};
use crate::ledger::Committed;
use crate::quota::{Moved, OutSeq, Outbox};

impl World {
    pub fn flush_read(&mut self, side: usize, most: usize) -> bool {
        let Some((epoch, engine)) = self.home(side) else {
            return false;
        };
        let entries = engine.outbox(most);
        if entries.is_empty() || self.sides[side].flush.is_some() {
            return false;
        }
        let server = self.server(self.sides[side].server).expect("it was read");
        let outbox = Outbox {
            run_id: server.run_id(),
            epoch,
            entries,
            unreadable: Vec::new(),
        };
        self.sides[side].flush = Some(Flush {
            outbox: Rc::new(outbox),
            committed: None,
        });
        if !self.rules.hold(Rule::ForgetsOnlyTheCommitted) {
            self.forget(side, OutSeq(i64::MAX));
        }
        true
    }

    pub fn flush_commit(&mut self, side: usize) -> bool {
        let Some(flush) = self.sides[side].flush.clone() else {
            return false;
        };
        if flush.committed.is_some() || self.lock.is_some() {
            return false;
        }
        match self.commit(&flush.outbox) {
            Committed::UpTo { entry, .. } => {
                self.sides[side].flush = Some(Flush {
                    committed: Some(entry),
                    ..flush
                });
            }
            Committed::Busy => {}
            Committed::OtherServer => {
                self.sides[side].suspects = true;
                self.sides[side].flush = None;
            }
        }
        true
    }

    /// The real commit, with rules taken back around it.
    fn commit(&mut self, outbox: &Outbox) -> Committed {
        let rules = self.rules;
        let mut outbox = outbox.clone();
        let truth = Rc::make_mut(&mut self.truth);
        let row = truth.row(SHARD).clone();
        if !rules.hold(Rule::CommitsOnlyOfTheServer)
            && let Some(home) = &row.home
        {
            outbox.run_id = home.run_id.clone();
            outbox.epoch = home.epoch;
        }
        if !rules.hold(Rule::SkipsWhatIsFlushed) {
            truth.shard_mut(SHARD).row.flushed_seq = OutSeq(0);
        }
        for known in truth.known.values_mut() {
            if !rules.hold(Rule::SettleCorrectsALapse) {
                known.recorded.corrected = true;
            } else if !rules.hold(Rule::CorrectsOnce) {
                known.recorded.corrected = false;
            }
        }
        if !rules.hold(Rule::EndingsOfEarlierEpochsCount) {
            outbox.entries.retain(|entry| entry.seq > row.flushed_seq);
        }
        if !rules.hold(Rule::WithdrawsOnce) {
            truth.pending.clone_from(&self.happened.asked);
        }
        let stands = rules.hold(Rule::NothingIsUndoneOfAnEarlierEpoch);
        let stands = row.home.map(|home| home.epoch).filter(|_| stands);
        let committed = truth.take_in(SHARD, &outbox, stands);
        let committed = committed.expect("the outbox makes sense");
        let done = &truth.withdrawn;
        truth.pending.retain(|id, _| !done.contains_key(id));
        let shard = truth.shard_mut(SHARD);
        shard.row.flushed_seq = shard.row.flushed_seq.max(row.flushed_seq);
        if !rules.hold(Rule::RestIsAChange) {
            for change in &mut shard.changes {
                if change.seq > row.last_change {
                    change.body.moved = Moved::default();
                }
            }
        }
        committed
    }

    pub fn flush_forget(&mut self, side: usize) -> bool {
        let flush = self.sides[side].flush.as_ref();
        let Some(upto) = flush.and_then(|flush| flush.committed) else {
            return false;
        };
        self.forget(side, upto);
        self.sides[side].flush = None;
        true
    }

    /// Drops what was read from the outbox of whichever server the sidecar is at by now.
    fn forget(&mut self, side: usize, upto: OutSeq) {
        let Some(flush) = self.sides[side].flush.clone() else {
            return;
        };
        let seqs = flush.outbox.entries.iter().map(|entry| entry.seq);
        let seqs: Vec<OutSeq> = seqs.filter(|seq| *seq <= upto).collect();
        if self.home(side).is_some() {
            let server = self.server_mut(self.sides[side].server);
            let engine = server.and_then(|server| server.engine_mut());
            engine.expect("it is at home there").forget(&seqs);
        }
    }
}
