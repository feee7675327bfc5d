//! What a sidecar does beside its calls: it loads accounts, applies changes, and finds what is overdue or expired (rules 6,
//! 20, 22 and 27).

use std::rc::Rc;

use super::action::Verb;
use super::cast::{self, SHARD};
use super::rules::Rule;
use super::server::Carries;
use super::world::World;
use crate::ledger::posting::{Book, Posting, PostingKind};
use crate::money::Nanos;
use crate::quota::{AccountId, ChangeBody, Entry, EntryKind, Epoch, LotId, Moved, OutSeq};

impl World {
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
}
