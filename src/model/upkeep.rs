//! What a sidecar does between store and ledger: checks, loads, flushes, changes, the sweeper's rounds (rules 19 to 22).

use std::rc::Rc;

use super::action::Verb;
use super::cast::{self, SHARD};
use super::rules::Rule;
use super::server::Carries;
use super::world::{Check, Flush, World};
use super::wrong::Broken;
use crate::ledger::posting::{Book, Posting, PostingKind};
use crate::ledger::{Committed, Home, Looked};
use crate::money::Nanos;
use crate::quota::{
    AccountId, ChangeBody, Entry, EntryKind, Epoch, LotId, Moved, OutSeq, Outbox, ShardView,
};

impl World {
    /// Locks the shard's row, then reads the header and the server's name.
    pub fn check_read(&mut self, side: usize, anew: bool) -> bool {
        let sidecar = &self.sides[side];
        let due = sidecar.adopted.is_none() || sidecar.suspects || anew;
        let idle = sidecar.alive && matches!(sidecar.check, Check::Idle) && due;
        if !idle || self.lock.is_some() {
            return false;
        }
        // Whoever has a reason to check finds the current server: that two servers are checked in turn, each with
        // calls of its own, is more than the protocol bears.
        if sidecar.server != self.current.name {
            self.sides[side].server = self.current.name;
            self.sides[side].adopted = None;
        }
        let view = Box::new(self.current.view(self.now));
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
        if !rules.hold(Rule::AnotherServerIsAnotherEpoch) {
            if let Some(home) = &mut row.home {
                home.run_id = view.run_id.clone();
            }
        }
        before
    }

    /// Whether every entry is of the epoch that was agreed on: asked before the image is read.
    pub fn ask_drained(&mut self, side: usize) -> bool {
        let Some((epoch, engine)) = self.home(side) else {
            return false;
        };
        let clear = engine.oldest_epoch().is_none_or(|oldest| oldest == epoch);
        let news = clear && self.sides[side].drained != Some(epoch);
        if news {
            self.sides[side].drained = Some(epoch);
        }
        news
    }

    /// Reads an account's image, and sends it.
    pub fn load(&mut self, side: usize, account: usize) -> bool {
        let id = cast::account(account);
        let Some((epoch, engine)) = self.home(side) else {
            return false;
        };
        let drained = self.sides[side].drained == Some(epoch);
        let asks = self.rules.hold(Rule::DrainedBeforeALoad);
        let warm = engine.account(&id).is_some();
        if warm && self.rules.hold(Rule::LoadsOnlyTheCold) {
            return false;
        }
        let image = || Rc::new(self.truth.image(&id).expect("it exists"));
        if !asks || drained {
            let early = self.sides[side].early.as_ref();
            let early = early.filter(|(of, _)| *of == account);
            let image = early.map_or_else(image, |(_, image)| image.clone());
            let sent = self.send(side, Verb::Load(account), Carries::Image(image));
            if sent {
                self.sides[side].early = None;
            }
            return sent;
        }
        if self.rules.hold(Rule::DrainedBeforeTheImage) || self.sides[side].early.is_some() {
            return false;
        }
        self.sides[side].early = Some((account, image()));
        true
    }

    pub fn sweep(&mut self, side: usize, call: usize) -> bool {
        let overdue = |engine: &crate::quota::engine::Engine| {
            let overdue = engine.overdue(self.now, usize::MAX);
            overdue.iter().any(|hold| hold.id == cast::id(call))
        };
        let found = self.home(side).is_some_and(|(_, engine)| overdue(engine));
        found && self.send(side, Verb::Lapse(call), Carries::Nothing)
    }

    pub fn expire(&mut self, side: usize) -> bool {
        let found = self.truth.expired(SHARD, self.now, 1).into_iter().next();
        let Some(lot) = found else { return false };
        if !self.rules.hold(Rule::OnlyTheStoreExpires) {
            return self.expire_by_ledger(&lot.account, lot.lot);
        }
        self.send(side, Verb::Expire, Carries::Lot(Rc::new(lot)))
    }

    fn expire_by_ledger(&mut self, id: &AccountId, lot: LotId) -> bool {
        let image = self.truth.image(id).expect("it exists");
        let found = image.lots.iter().find(|(known, _)| known.id == lot);
        let left = found.map_or(Nanos::ZERO, |(_, left)| *left);
        if left <= Nanos::ZERO || self.lock.is_some() {
            return false;
        }
        let moved = Moved {
            lots: vec![(lot, -left)],
            ..Moved::default()
        };
        let entry = Entry {
            seq: OutSeq(0),
            epoch: Epoch(0),
            at: self.now,
            account: id.clone(),
            kind: EntryKind::Expired,
            moved: moved.clone(),
        };
        let mut posting = Posting::of_outbox(PostingKind::Expiry, &entry);
        posting.wallet(&moved, Book::Expired);
        let truth = self.truth_mut();
        let account = truth.accounts.get_mut(id).expect("it exists");
        account.move_lot(lot, -left);
        truth.post(&posting);
        let body = ChangeBody {
            moved,
            ..ChangeBody::default()
        };
        truth.append(id, body);
        true
    }

    pub fn apply(&mut self, side: usize) -> bool {
        let Some((_, engine)) = self.home(side) else {
            return false;
        };
        let applied = engine.header().applied_seq;
        let mut next = self.truth.changes_after(SHARD, applied, 1);
        let Some(change) = next.pop() else {
            return false;
        };
        let verb = Verb::Apply(change.seq.0);
        self.send(side, verb, Carries::Change(Rc::new(change)))
    }

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
        if let Some(home) = &row.home {
            if !rules.hold(Rule::CommitsOnlyOfTheServer) {
                outbox.run_id = home.run_id.clone();
                outbox.epoch = home.epoch;
            }
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
