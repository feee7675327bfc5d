//! What holds of a shard after every step, as assertions: for tests, the model and a look at a doubtful dump.

use std::collections::{BTreeMap, BTreeSet};

use crate::money::{Amount, Nanos};
use crate::quota::{AccountId, CounterKey, LotId, LotState, Moved, ReservationId};

use super::counters::Counter;
use super::reservation::{Hold, Reservation};
use super::wallet::Drawn;
use super::{Account, Engine};

impl Engine {
    /// Panics with a sentence where something does not hold that always must.
    pub fn check_invariants(&self) {
        let mut by_account: BTreeMap<&AccountId, Vec<&Hold>> = BTreeMap::new();
        let mut deadlines = BTreeSet::new();
        let mut marks = BTreeSet::new();
        for (id, reservation) in &self.reservations {
            match reservation {
                Reservation::Held(hold) => {
                    check_hold(*id, hold);
                    deadlines.insert((hold.deadline, *id));
                    by_account.entry(&hold.account).or_default().push(hold);
                }
                Reservation::Ended(mark) => {
                    marks.insert((mark.until, *id));
                }
            }
        }
        assert_eq!(
            self.deadlines, deadlines,
            "every hold has its one deadline (2)"
        );
        assert_eq!(self.marks, marks, "every mark is forgotten in its time");

        for id in by_account.keys() {
            assert!(
                self.accounts.contains_key(id),
                "{id}: a hold's account is never dropped"
            );
        }
        for (id, account) in &self.accounts {
            let holds = by_account.get(id).map_or(&[][..], Vec::as_slice);
            check_wallet(id, account, holds);
            for (key, counter) in &account.counters.0 {
                check_counter(id, key, counter, holds);
            }
            assert_eq!(
                account.snapshot.account, *id,
                "a snapshot is its account's own"
            );
        }
        self.check_outbox();
    }

    fn check_outbox(&self) {
        for (seq, entry) in &self.outbox {
            assert_eq!(*seq, entry.seq, "an entry has the number it is kept under");
            assert!(
                *seq <= self.header.out_seq,
                "entry {seq}: numbers are never reused (18)"
            );
            assert!(
                entry.epoch <= self.header.epoch,
                "entry {seq} is of an epoch that was"
            );
            check_moved(&entry.moved);
        }
    }
}

fn check_hold(id: ReservationId, hold: &Hold) {
    assert!(
        hold.deadline <= hold.latest,
        "{id}: no heartbeat goes beyond the total age"
    );
    assert!(
        hold.metered >= Nanos::ZERO,
        "{id}: metered is never negative"
    );
    let mut lots = BTreeSet::new();
    for (lot, part) in &hold.slices.lots {
        assert!(
            *part > Nanos::ZERO,
            "{id}: a slice of lot {lot} holds something"
        );
        assert!(lots.insert(lot), "{id}: lot {lot} is drawn once");
    }
    assert!(
        hold.slices.debt >= Nanos::ZERO,
        "{id}: overage is never negative"
    );
    let keys: BTreeSet<&CounterKey> = hold.lines.iter().map(|line| &line.key).collect();
    assert_eq!(keys.len(), hold.lines.len(), "{id}: one line a counter");
}

fn check_wallet(id: &AccountId, account: &Account, holds: &[&Hold]) {
    let wallet = &account.wallet;
    let slice = |drawn: &Drawn, of: LotId| {
        let found = drawn.lots.iter().find(|(lot, _)| *lot == of);
        found.map_or(Nanos::ZERO, |(_, part)| *part)
    };
    for (lot, LotState { held, .. }) in &wallet.lots {
        let slices = holds.iter().map(|hold| slice(&hold.slices, *lot)).sum();
        assert_eq!(
            *held, slices,
            "{id}: lot {lot} holds what the holds' slices say (2)"
        );
    }
    for (lot, _) in holds.iter().flat_map(|hold| &hold.slices.lots) {
        assert!(
            wallet.lots.contains_key(lot),
            "{id}: lot {lot} is held, so it is known"
        );
    }
    let debts = holds.iter().map(|hold| hold.slices.debt).sum();
    assert_eq!(
        wallet.debt.held, debts,
        "{id}: debt holds what the holds' slices say (2)"
    );
}

fn check_counter(id: &AccountId, key: &CounterKey, counter: &Counter, holds: &[&Hold]) {
    let lines = holds.iter().flat_map(|hold| &hold.lines);
    let mut held = Amount(0);
    for line in lines.filter(|line| line.key == *key) {
        assert!(
            line.start <= counter.start,
            "{id}: {key} never goes back to an earlier span (12)"
        );
        if line.start == counter.start {
            held += line.amount;
        }
    }
    assert_eq!(
        counter.held, held,
        "{id}: {key} holds what the holds' lines say (2)"
    );
}

fn check_moved(moved: &Moved) {
    let lots: BTreeSet<LotId> = moved.lots.iter().map(|(lot, _)| *lot).collect();
    assert_eq!(lots.len(), moved.lots.len(), "no lot is listed twice");
    let zero = moved.lots.iter().any(|(_, by)| *by == Nanos::ZERO);
    assert!(!zero, "no lot is listed that did not move");
    let zero = moved.counters.iter().any(|count| count.amount == Amount(0));
    assert!(!zero, "no counter is listed that did not move");
}
