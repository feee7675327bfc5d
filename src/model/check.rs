//! How a sidecar, the ledger and a server come to agree on an epoch (rule 21), in steps that others come between.

use super::cast::SHARD;
use super::rules::Rule;
use super::world::{Check, World};
use super::wrong::Broken;
use crate::ledger::{Home, Looked};
use crate::quota::{OutSeq, ShardView};

impl World {
    /// Locks the shard's row, then reads the header and the server's name.
    pub fn check_read(&mut self, side: usize, anew: bool) -> bool {
        let sidecar = &self.sides[side];
        let due = sidecar.adopted.is_none() || sidecar.suspects || anew;
        let idle = sidecar.alive && matches!(sidecar.check, Check::Idle) && due;
        if !idle || self.lock.is_some() {
            return false;
        }
        // It checks where its connection goes, also where others have left that server: then both are checked in turn.
        if self.server(sidecar.server).is_none() {
            self.sides[side].server = self.current.name;
            self.sides[side].adopted = None;
        }
        let server = self.server(self.sides[side].server);
        let view = Box::new(server.unwrap_or(&self.current).view(self.now));
        let home = self.truth.row(SHARD).home.clone();
        self.sides[side].check = Check::Read { view, home, anew };
        if self.rules.hold(Rule::LockBeforeTheHeader) {
            self.lock = Some(side);
        }
        true
    }

    /// The ledger takes note, and says what to do; the lock is given back.
    pub fn check_save(&mut self, side: usize) -> bool {
        let free = self.lock.is_none_or(|holder| holder == side);
        let Check::Read { view, home, anew } = self.sides[side].check.clone() else {
            return false;
        };
        if !free {
            return false;
        }
        self.lock = None;
        let before = self.home_to_look_from(&view, home);
        let looked = self.truth_mut().look(SHARD, &view, anew);
        self.sides[side].check = Check::Idle;
        match looked {
            Looked::Agreed(epoch) => {
                self.sides[side].suspects = false;
                self.adopt(side, epoch);
            }
            Looked::Open { header, .. } => {
                let mut unsaved = None;
                if !self.rules.hold(Rule::EpochBeforeTheHeader) {
                    let row = &mut self.truth_mut().shard_mut(SHARD).row;
                    unsaved = std::mem::replace(&mut row.home, before);
                }
                self.sides[side].adopted = None;
                self.sides[side].check = Check::Open {
                    header,
                    unsaved,
                    opened: false,
                };
            }
            Looked::Refused(reason) => self.complain(|| Broken::Asserted.since(reason)),
        }
        true
    }

    /// The store is told of the new epoch. It is adopted only once both sides have been looked at again.
    pub fn check_open(&mut self, side: usize) -> bool {
        let check = std::mem::replace(&mut self.sides[side].check, Check::Idle);
        let Check::Open {
            mut header,
            unsaved,
            opened,
        } = check
        else {
            self.sides[side].check = check;
            return false;
        };
        if opened {
            self.truth_mut().shard_mut(SHARD).row.home = unsaved;
            return true;
        }
        if !self.rules.hold(Rule::OutSeqNeverRestarts) {
            header.out_seq = OutSeq(0);
        }
        let rules = self.rules;
        if let Some(server) = self.server_mut(self.sides[side].server) {
            server.open(rules, &header);
        }
        if unsaved.is_some() {
            self.sides[side].check = Check::Open {
                header,
                unsaved,
                opened: true,
            };
        }
        true
    }

    /// The home that a look begins with: the ledger's, unless a rule is taken back. Says what it was.
    fn home_to_look_from(&mut self, view: &ShardView, read: Option<Home>) -> Option<Home> {
        let rules = self.rules;
        let row = &mut self.truth_mut().shard_mut(SHARD).row;
        let before = row.home.clone();
        if !rules.hold(Rule::LockBeforeTheHeader) {
            row.home = read;
        }
        if !rules.hold(Rule::AnotherServerIsAnotherEpoch)
            && let Some(home) = &mut row.home
        {
            home.run_id = view.run_id.clone();
        }
        before
    }
}
