//! The store against the ledger: what the one says of an account, against what the other says, to the last nano.
//!
//! A pure function over two readings. Whoever reads sees to it that the shard's row stands still meanwhile, and with it
//! the ledger; the store's side is one atomic read.
//!
//! For each lot, the debt and each counter: ledger − changes the store has not applied + what the outbox has moved and
//! the ledger has not taken in + what is in quarantine − what is held = what the store has left.

use std::collections::BTreeMap;

use super::clue::{self, of_counter, of_lot};
use super::{Books, Drift, Of, Terms};
use crate::clock::UnixMs;
use crate::quota::{AccountId, AccountView, CounterKey, LotId, Moved};

/// Compares; `view` is `None` where the account is cold, and then there is nothing to compare with.
// holds: 6, exact
pub fn compare(books: &Books, view: Option<&AccountView>) -> Vec<Drift> {
    let mut audit = Audit {
        account: &books.account,
        drifts: Vec::new(),
    };
    if let Some(view) = view {
        let open = Open {
            unapplied: unapplied(books, view),
            unflushed: unflushed(books, view),
            quarantined: books.quarantined.iter().collect(),
        };
        wallet(&mut audit, books, view, &open);
        counters(&mut audit, books, view, &open);
        for drift in &mut audit.drifts {
            let clues = clue::in_readings(drift, books, view);
            drift.blame(clues);
        }
    }
    audit.drifts
}

struct Audit<'a> {
    account: &'a AccountId,
    drifts: Vec<Drift>,
}

impl Audit<'_> {
    /// Two numbers that must be the same.
    fn same(&mut self, of: Of, expected: i128, found: i128) {
        let terms = Terms {
            ledger: expected,
            ..Terms::default()
        };
        self.sum(of, terms, found);
    }

    /// The formula.
    fn sum(&mut self, of: Of, terms: Terms, found: i128) {
        let expected = terms.expected();
        if expected != found {
            self.drifts.push(Drift {
                account: self.account.clone(),
                of,
                terms: Some(terms),
                expected,
                found,
                because: Vec::new(),
            });
        }
    }
}

/// What is on its way from one to the other.
struct Open<'a> {
    unapplied: Vec<&'a Moved>,
    unflushed: Vec<&'a Moved>,
    quarantined: Vec<&'a Moved>,
}

impl Open<'_> {
    /// The terms of one sum, where `of` says what each movement moves; nothing is held.
    fn terms(&self, ledger: i64, of: impl Fn(&Moved) -> i128) -> Terms {
        let sum = |moved: &[&Moved]| moved.iter().map(|moved| of(moved)).sum();
        Terms {
            ledger: i128::from(ledger),
            unapplied: sum(&self.unapplied),
            unflushed: sum(&self.unflushed),
            quarantined: sum(&self.quarantined),
            held: 0,
        }
    }
}

fn unapplied<'a>(books: &'a Books, view: &AccountView) -> Vec<&'a Moved> {
    let known = view.applied_seq.max(view.as_of);
    let changes = books.changes.iter();
    changes
        .filter_map(|(seq, moved)| (*seq > known).then_some(moved))
        .collect()
}

fn unflushed<'a>(books: &Books, view: &'a AccountView) -> Vec<&'a Moved> {
    let entries = view.unflushed.iter();
    entries
        .filter_map(|entry| (entry.seq > books.flushed_seq).then_some(&entry.moved))
        .collect()
}

/// What a lot has in each of the readings.
#[derive(Default)]
struct LotSums {
    ledger: i64,
    holds: i128,
    left: i128,
    held: i128,
}

fn wallet(audit: &mut Audit, books: &Books, view: &AccountView, open: &Open) {
    let mut lots: BTreeMap<LotId, LotSums> = BTreeMap::new();
    for (lot, left) in &books.lots {
        lots.entry(*lot).or_default().ledger = *left;
    }
    for moved in [&open.unapplied, &open.unflushed, &open.quarantined] {
        for (lot, _) in moved.iter().flat_map(|moved| &moved.lots) {
            lots.entry(*lot).or_default();
        }
    }
    for (lot, nanos) in view.holds.iter().flat_map(|hold| &hold.slices) {
        lots.entry(*lot).or_default().holds += i128::from(nanos.0);
    }
    for (lot, state) in &view.lots {
        let sums = lots.entry(*lot).or_default();
        sums.left += i128::from(state.left.0);
        sums.held += i128::from(state.held.0);
    }
    let mut on_lots = 0;
    for (lot, sums) in lots {
        on_lots += sums.holds;
        let terms = Terms {
            held: sums.held,
            ..open.terms(sums.ledger, |moved| of_lot(&moved.lots, lot))
        };
        audit.sum(Of::Lot { lot }, terms, sums.left);
        audit.same(Of::HeldOfLot { lot }, sums.holds, sums.held);
    }

    let terms = open.terms(books.debt, |moved| i128::from(moved.debt.0));
    audit.sum(Of::Debt, terms, i128::from(view.debt.left.0));
    let reserved: i128 = view.holds.iter().map(|h| i128::from(h.reserved.0)).sum();
    let held = i128::from(view.debt.held.0);
    audit.same(Of::HeldOfDebt, reserved - on_lots, held);
}

fn counters(audit: &mut Audit, books: &Books, view: &AccountView, open: &Open) {
    let in_store: BTreeMap<&CounterKey, _> = view
        .counters
        .iter()
        .map(|state| (&state.key, state))
        .collect();
    let in_ledger: BTreeMap<&CounterKey, _> = books
        .counters
        .iter()
        .map(|found| (&found.key, found))
        .collect();
    let used = |key: &CounterKey, start: UnixMs| {
        let found = in_ledger.get(key).filter(|found| found.start == start);
        found.map_or(0, |found| found.used.0)
    };
    for state in &view.counters {
        let (key, start) = (&state.key, state.start);
        let of = Of::Counter {
            counter: key.clone(),
            start,
        };
        let terms = open.terms(used(key, start), |moved| {
            of_counter(&moved.counters, key, start)
        });
        audit.sum(of, terms, i128::from(state.used.0));
        let of = Of::HeldOfCounter {
            counter: key.clone(),
            start,
        };
        let holds = view.holds.iter().flat_map(|hold| &hold.counts);
        audit.same(of, of_counter(holds, key, start), i128::from(state.held.0));
    }
    // A counter that the store is without, or has in an older span only, counts nothing there.
    for found in &books.counters {
        let (key, start) = (&found.key, found.start);
        if in_store.get(key).is_some_and(|state| state.start >= start) {
            continue;
        }
        let of = Of::Counter {
            counter: key.clone(),
            start,
        };
        let terms = open.terms(found.used.0, |moved| {
            of_counter(&moved.counters, key, start)
        });
        audit.sum(of, terms, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::{Amount, Nanos};
    use crate::quota::{
        ChangeSeq, Count, CounterBalance, CounterState, Entry, EntryKind, Epoch, LotState, Mode,
        OpenHold, OutSeq, ReservationId, Snapshot, Status, Version,
    };

    const LOT: LotId = LotId(7);
    const MONTH: UnixMs = UnixMs(1_000);

    fn key() -> CounterKey {
        "account/tokens/month".parse().unwrap()
    }

    fn count(amount: i64) -> Count {
        Count {
            key: key(),
            start: MONTH,
            amount: Amount(amount),
        }
    }

    /// 100 granted; 10 charged and flushed; 5 charged and not; 4 charged and in quarantine; 20 held; a change of +3 not
    /// applied.
    fn readings() -> (Books, AccountView) {
        let account: AccountId = "acme".parse().unwrap();
        let change = Moved {
            lots: vec![(LOT, Nanos(3))],
            ..Moved::default()
        };
        let books = Books {
            account: account.clone(),
            lots: vec![(LOT, 93)],
            debt: 0,
            counters: vec![CounterBalance {
                key: key(),
                start: MONTH,
                used: Amount(10),
            }],
            changes: vec![(ChangeSeq(4), change)],
            flushed_seq: OutSeq(1),
            quarantined: vec![Moved {
                lots: vec![(LOT, Nanos(-4))],
                debt: Nanos(0),
                counters: vec![count(4)],
            }],
        };
        let entry = |seq, nanos: i64| Entry {
            seq: OutSeq(seq),
            epoch: Epoch(1),
            at: UnixMs(0),
            account: account.clone(),
            kind: EntryKind::Repaid,
            moved: Moved {
                lots: vec![(LOT, Nanos(-nanos))],
                debt: Nanos(0),
                counters: vec![count(nanos)],
            },
        };
        let view = AccountView {
            snapshot: Snapshot {
                account: account.clone(),
                version: Version(1),
                keys_version: 1,
                plan: None,
                mode: Mode::Enforce,
                status: Status::Active,
                anchor_at: None,
                limits: Vec::new(),
                overage: Nanos(0),
                markup_percent: None,
                throttle: None,
            },
            order: Vec::new(),
            lots: vec![(
                LOT,
                LotState {
                    left: Nanos(61),
                    held: Nanos(20),
                },
            )],
            debt: LotState {
                left: Nanos(0),
                held: Nanos(2),
            },
            counters: vec![CounterState {
                key: key(),
                start: MONTH,
                used: Amount(19),
                held: Amount(22),
            }],
            as_of: ChangeSeq(0),
            applied_seq: ChangeSeq(3),
            // The first is in the ledger already, and only not forgotten yet.
            unflushed: vec![entry(1, 10), entry(2, 5)],
            holds: vec![OpenHold {
                id: ReservationId::new(),
                reserved: Nanos(22),
                slices: vec![(LOT, Nanos(20))],
                counts: vec![count(22)],
                deadline: UnixMs(0),
            }],
        };
        (books, view)
    }

    #[test]
    fn what_is_on_its_way_is_no_drift() {
        let (books, view) = readings();
        assert_eq!(compare(&books, Some(&view)), []);
        assert_eq!(compare(&books, None), []);
    }

    #[test]
    fn every_single_number_that_is_off_is_named() {
        type Tamper = fn(&mut Books, &mut AccountView);
        let tampers: [(Tamper, Of); 9] = [
            (|_, v| v.lots[0].1.left.0 += 1, Of::Lot { lot: LOT }),
            (|b, _| b.flushed_seq = OutSeq(2), Of::Lot { lot: LOT }),
            (|_, v| v.applied_seq = ChangeSeq(4), Of::Lot { lot: LOT }),
            (|_, v| v.debt.left.0 -= 1, Of::Debt),
            (|_, v| v.debt.held.0 += 1, Of::HeldOfDebt),
            (
                |_, v| v.counters[0].used.0 += 1,
                Of::Counter {
                    counter: key(),
                    start: MONTH,
                },
            ),
            (
                |_, v| v.counters[0].held.0 -= 1,
                Of::HeldOfCounter {
                    counter: key(),
                    start: MONTH,
                },
            ),
            (|b, _| b.quarantined.clear(), Of::Lot { lot: LOT }),
            (|b, _| b.quarantined[0].debt.0 += 1, Of::Debt),
        ];
        for (tamper, of) in tampers {
            let (mut books, mut view) = readings();
            tamper(&mut books, &mut view);
            let drifts = compare(&books, Some(&view));
            assert_eq!(drifts[0].of, of, "{drifts:?}");
        }
    }

    #[test]
    fn a_counter_that_the_store_is_without_is_a_drift() {
        let (books, mut view) = readings();
        view.counters.clear();
        let of = Of::Counter {
            counter: key(),
            start: MONTH,
        };
        assert!(
            compare(&books, Some(&view))
                .iter()
                .any(|drift| drift.of == of)
        );
    }
}
