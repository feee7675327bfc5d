//! The engine: one shard of the live store, as a pure state machine. No I/O, no clock of its own, no chance.
//!
//! It is the meaning of the protocol: the Lua scripts are tested against it, the embedded store keeps it in memory, and a
//! dump of it can be compared, because every map is ordered.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::money::{Amount, Nanos};

use super::{
    AccountId, AccountImage, AccountView, Admission, ApplyAnswer, ChangeSeq, CounterKey,
    CounterState, Entry, EntryKind, Epoch, ExpireAnswer, ExpiredLot, Header, Line, LoadAnswer,
    Moved, OutSeq, Overdue, Progress, Progressed, ReservationId, Reserve, Reserved, Seen, Snapshot,
    StoreChange, Withdrawal,
};

mod counters;
mod ending;
#[cfg(test)]
mod faults;
mod fit;
mod invariants;
mod reservation;
#[cfg(test)]
mod tests;
mod wallet;

use counters::{Counter, Counters};
use reservation::{Hold, Reservation};
use wallet::Wallet;

/// How many entries may wait in a shard's outbox before it takes no more holds, unless a setting says otherwise.
pub const DEFAULT_OUTBOX_BOUND: u64 = 100_000;

/// One shard. The verbs are those of [`super::Store`], each one atomic step, safe to repeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    header: Header,
    outbox_bound: u64,
    accounts: BTreeMap<AccountId, Account>,
    reservations: BTreeMap<ReservationId, Reservation>,
    /// The deadline of every hold, so that a sweeper finds each (invariant 2).
    deadlines: BTreeSet<(UnixMs, ReservationId)>,
    /// When each ended mark is forgotten.
    marks: BTreeSet<(UnixMs, ReservationId)>,
    /// What ended and is not yet known to be in the ledger (invariant 3).
    outbox: BTreeMap<OutSeq, Entry>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Account {
    /// The epoch of the shard it was loaded in; in any later one it is cold.
    epoch: Epoch,
    snapshot: Snapshot,
    wallet: Wallet,
    counters: Counters,
    as_of: ChangeSeq,
}

impl Engine {
    /// An empty shard.
    pub fn new(header: Header, outbox_bound: u64) -> Self {
        Self {
            header,
            outbox_bound,
            accounts: BTreeMap::new(),
            reservations: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            marks: BTreeSet::new(),
            outbox: BTreeMap::new(),
        }
    }

    /// How many entries may wait from now on: a setting, which may have changed since the engine was written down.
    pub fn bound_outbox(&mut self, outbox_bound: u64) {
        self.outbox_bound = outbox_bound;
    }

    /// Begins a later epoch: every account is cold until it is loaded again, what is held stays. An earlier or the same
    /// epoch changes nothing, and entries are numbered on from wherever they are (rule 18).
    pub fn open(&mut self, header: &Header) {
        if header.epoch > self.header.epoch {
            let out_seq = header.out_seq.max(self.header.out_seq);
            self.header = Header {
                out_seq,
                ..header.clone()
            };
        }
    }

    /// What the shard's state begins with.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Claims credit and quota for one call, all or nothing.
    ///
    /// Every test comes before the first write, so a refusal takes nothing (invariant 1).
    pub fn reserve(&mut self, now: UnixMs, reserve: &Reserve) -> Reserved {
        fit::assert_bounded(reserve);
        self.forget_marks(now);
        if let Some(answer) = self.reserved_before(now, reserve) {
            return answer;
        }
        let outbox_full = self.outbox_len() > self.outbox_bound;
        let Some(account) = self.warm(&reserve.account) else {
            return Reserved::Cold;
        };
        // A hold that is made again was decided long ago (rule 23).
        if reserve.admission != Admission::Again {
            if account.snapshot.version != reserve.version {
                return Reserved::Stale(Box::new(account.snapshot.clone()));
            }
            if outbox_full {
                return Reserved::OutboxFull;
            }
            if let Some(at) = account.counters.moved_on(now, &reserve.lines) {
                return Reserved::WindowMoved(at);
            }
        }
        let seen = account.seen(now, &reserve.lines);
        let fits = seen.fits(reserve, account.snapshot.overage);
        if !fits && (reserve.admission == Admission::Strict || !seen.can_be_kept(reserve)) {
            return Reserved::Short(seen);
        }

        let slices = account.wallet.hold(now, reserve.charge);
        for line in &reserve.lines {
            account.counters.hold(line);
        }
        let hold = Hold::new(now, reserve, slices, fits);
        let deadline = hold.deadline;
        self.deadlines.insert((deadline, reserve.id));
        let hold = Reservation::Held(Box::new(hold));
        self.reservations.insert(reserve.id, hold);
        Reserved::Held {
            deadline,
            fits,
            seen,
        }
    }

    /// The same id again: the same answer, nothing held twice (invariant 4).
    fn reserved_before(&self, now: UnixMs, reserve: &Reserve) -> Option<Reserved> {
        match self.reservations.get(&reserve.id)? {
            Reservation::Held(hold) => {
                let account = self.accounts.get(&hold.account);
                let account = account.expect("a hold's account is never dropped");
                Some(Reserved::Held {
                    deadline: hold.deadline,
                    fits: hold.fits,
                    seen: account.seen(now, &reserve.lines),
                })
            }
            Reservation::Ended(mark) => Some(Reserved::Ended(mark.ended)),
        }
    }

    /// Moves a hold's deadline and notes what has been metered (rule 3). An overdue hold that no sweeper has ended yet is
    /// simply held on.
    pub fn progress(&mut self, now: UnixMs, progress: &Progress) -> Progressed {
        self.forget_marks(now);
        match self.reservations.get_mut(&progress.id) {
            None => Progressed::Unknown,
            Some(Reservation::Ended(mark)) => Progressed::Ended(mark.ended),
            Some(Reservation::Held(hold)) => {
                self.deadlines.remove(&(hold.deadline, progress.id));
                hold.note(now, progress);
                self.deadlines.insert((hold.deadline, progress.id));
                Progressed::Held(hold.deadline)
            }
        }
    }

    /// The holds whose deadline has passed, the oldest first.
    pub fn overdue(&self, now: UnixMs, max: usize) -> Vec<Overdue> {
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now);
        due.take(max)
            .map(|(_, id)| match &self.reservations[id] {
                Reservation::Held(hold) => Overdue {
                    id: *id,
                    account: hold.account.clone(),
                },
                Reservation::Ended(_) => unreachable!("only a hold has a deadline"),
            })
            .collect()
    }

    /// Makes a cold account live from what the ledger knows (rule 22).
    pub fn load(&mut self, now: UnixMs, image: &AccountImage) -> LoadAnswer {
        let id = &image.snapshot.account;
        if self.warm(id).is_some() {
            return LoadAnswer::Warm;
        }
        if image.as_of < self.header.applied_seq {
            return LoadAnswer::Behind;
        }
        let before = self.accounts.remove(id);
        let (mut wallet, mut counters) = before
            .map(|account| (account.wallet, account.counters))
            .unwrap_or_default();
        wallet.load(&image.lots, image.debt);
        counters.load(&image.counters);
        let account = Account {
            epoch: self.header.epoch,
            snapshot: image.snapshot.clone(),
            wallet,
            counters,
            as_of: image.as_of,
        };
        self.accounts.insert(id.clone(), account);
        for withdrawal in &image.withdrawals {
            self.withdraw(now, id, withdrawal);
        }
        self.repay(now, id);
        LoadAnswer::Loaded
    }

    /// Follows the ledger by its next change (rule 20): never skipped, never twice.
    pub fn apply(&mut self, now: UnixMs, change: &StoreChange) -> ApplyAnswer {
        let applied = &mut self.header.applied_seq;
        if change.seq.0 != applied.0 + 1 {
            return ApplyAnswer::At(*applied);
        }
        *applied = change.seq;
        let Some(account) = self.warm(&change.account) else {
            return ApplyAnswer::Applied;
        };
        if change.seq <= account.as_of {
            return ApplyAnswer::Applied; // The image it was loaded from had this change in it.
        }
        let body = &change.body;
        if let Some(snapshot) = &body.snapshot {
            account.snapshot = snapshot.clone();
        }
        if let Some(lots) = &body.lots {
            account.wallet.reorder(lots);
        }
        account.wallet.apply(&body.moved);
        for count in &body.moved.counters {
            let (key, start) = (&count.key, count.start);
            account
                .counters
                .move_by(key, start, count.amount, Amount(0));
        }
        if let Some(withdrawal) = &body.withdraw {
            self.withdraw(now, &change.account, withdrawal);
        }
        if body.repay {
            self.repay(now, &change.account);
        }
        ApplyAnswer::Applied
    }

    /// Takes what is left of a lot whose time is over: breakage (rule 27).
    pub fn expire(&mut self, now: UnixMs, expired: &ExpiredLot) -> ExpireAnswer {
        if now < expired.expires_at {
            return ExpireAnswer::NotDue;
        }
        let Some(account) = self.warm(&expired.account) else {
            return ExpireAnswer::Cold;
        };
        let moved = account.wallet.withdraw(expired.lot, Nanos(i64::MAX));
        if moved.lots.is_empty() {
            return ExpireAnswer::Nothing;
        }
        ExpireAnswer::Expired(self.write(now, &expired.account, EntryKind::Expired, moved))
    }

    /// Takes credit out of a lot because the ledger asks for it. The entry is written also where nothing is left: only so
    /// does the ledger learn that it was done.
    fn withdraw(&mut self, now: UnixMs, id: &AccountId, withdrawal: &Withdrawal) {
        let account = self.warm(id).expect("only a live account pays out");
        let moved = account.wallet.withdraw(withdrawal.lot, withdrawal.amount);
        let kind = EntryKind::Withdrawn(withdrawal.clone());
        self.write(now, id, kind, moved);
    }

    /// The oldest entries of the outbox.
    pub fn outbox(&self, max: usize) -> Vec<Entry> {
        self.outbox.values().take(max).cloned().collect()
    }

    /// The epoch of the oldest entry that waits.
    pub fn oldest_epoch(&self) -> Option<Epoch> {
        self.outbox.values().next().map(|entry| entry.epoch)
    }

    /// How many entries wait.
    pub fn outbox_len(&self) -> u64 {
        u64::try_from(self.outbox.len()).expect("a length fits")
    }

    /// Drops entries that the ledger has committed.
    pub fn forget(&mut self, seqs: &[OutSeq]) {
        for seq in seqs {
            self.outbox.remove(seq);
        }
    }

    /// All that is known of one account; `None` where it is cold.
    pub fn account(&self, id: &AccountId) -> Option<AccountView> {
        let account = self.accounts.get(id)?;
        if account.epoch != self.header.epoch {
            return None;
        }
        let holds = self
            .reservations
            .iter()
            .filter_map(|(hold_id, kept)| match kept {
                Reservation::Held(hold) if hold.account == *id => Some(hold.open(*hold_id)),
                _ => None,
            });
        let unflushed = self.outbox.values().filter(|entry| entry.account == *id);
        Some(AccountView {
            snapshot: account.snapshot.clone(),
            order: account.wallet.order.clone(),
            lots: account.wallet.balances().collect(),
            debt: account.wallet.debt,
            counters: account.counters.0.iter().map(counter_state).collect(),
            as_of: account.as_of,
            applied_seq: self.header.applied_seq,
            unflushed: unflushed.cloned().collect(),
            holds: holds.collect(),
        })
    }

    fn warm(&mut self, id: &AccountId) -> Option<&mut Account> {
        let account = self.accounts.get_mut(id)?;
        (account.epoch == self.header.epoch).then_some(account)
    }

    fn repay(&mut self, now: UnixMs, id: &AccountId) {
        let account = self.warm(id).expect("only a live account is repaid");
        if let Some(moved) = account.wallet.repay(now) {
            self.write(now, id, EntryKind::Repaid, moved);
        }
    }

    /// The outbox entry, in the same step as what it tells of (invariant 3).
    fn write(&mut self, now: UnixMs, account: &AccountId, kind: EntryKind, moved: Moved) -> OutSeq {
        let seq = OutSeq(self.header.out_seq.0 + 1);
        self.header.out_seq = seq;
        let entry = Entry {
            seq,
            epoch: self.header.epoch,
            at: now,
            account: account.clone(),
            kind,
            moved,
        };
        self.outbox.insert(seq, entry);
        seq
    }
}

impl Account {
    fn seen(&self, now: UnixMs, lines: &[Line]) -> Seen {
        let line = |line: &Line| self.counters.seen(&line.key, line.span.start);
        Seen {
            balance: self.wallet.balance(now),
            held: self.wallet.held(),
            lines: lines.iter().map(line).collect(),
        }
    }
}

fn counter_state((key, counter): (&CounterKey, &Counter)) -> CounterState {
    CounterState {
        key: key.clone(),
        start: counter.start,
        used: counter.used,
        held: counter.held,
    }
}
