//! What only a clock in the test's own hand can show; all else is a property that every store is run on.

use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::money::{Amount, Nanos};
use crate::quota::{
    ENDED_MARK_MS, Ended, LapseAnswer, Lot, LotId, Mode, Outcome, STORE_FORMAT, Settle,
    SettleAnswer, Status, Version,
};

const NOW: UnixMs = UnixMs(1_790_000_000_000);

#[test]
fn a_mark_is_kept_for_its_time_and_not_a_moment_longer() {
    let mut engine = engine();
    let claim = claim();
    engine.reserve(NOW, &claim);
    engine.settle(NOW, &settled(&claim, 4));
    let ended = Ended {
        outcome: Outcome::Settled,
        charge: Nanos(4),
    };
    let last = NOW.plus_ms(ENDED_MARK_MS - 1);
    assert_eq!(engine.reserve(last, &claim), Reserved::Ended(ended));
    let after = NOW.plus_ms(ENDED_MARK_MS);
    let again = engine.reserve(after, &claim);
    assert!(matches!(again, Reserved::Held { .. }), "{again:?}");
    engine.check_invariants();
}

#[test]
fn a_correction_is_remembered_from_its_own_moment_on() {
    let mut engine = engine();
    let claim = claim();
    engine.reserve(NOW, &claim);
    let due = NOW.plus_ms(claim.deadline_ms);
    let overdue = engine.overdue(due, 1);
    let answer = engine.lapse(due, &overdue[0]);
    assert_eq!(answer, LapseAnswer::Lapsed(OutSeq(1)));
    let late = due.plus_ms(ENDED_MARK_MS - 1);
    let answer = engine.settle(late, &settled(&claim, 4));
    assert_eq!(answer, SettleAnswer::Ended(OutSeq(2)));
    engine.check_invariants();
    let later = late.plus_ms(ENDED_MARK_MS - 1);
    let again = engine.settle(later, &settled(&claim, 9));
    assert!(matches!(again, SettleAnswer::Already(_)), "{again:?}");
    engine.check_invariants();
}

#[test]
fn marks_do_not_pile_up() {
    let mut engine = engine();
    for second in 0..3_600 {
        engine.settle(NOW.plus_ms(second * 1_000), &settled(&claim(), 0));
    }
    assert_eq!(engine.marks.len(), 15 * 60);
    assert_eq!(engine.reservations.len(), 15 * 60);
    engine.check_invariants();
}

#[test]
fn a_clock_that_steps_back_neither_lapses_early_nor_reopens_a_window() {
    let mut engine = engine();
    let claim = claim();
    let answer = engine.reserve(NOW, &claim);
    let deadline = NOW.plus_ms(claim.deadline_ms);
    assert!(matches!(answer, Reserved::Held { deadline: at, .. } if at == deadline));
    let back = NOW.plus_ms(-24 * 60 * 60 * 1000);
    let overdue = Overdue {
        id: claim.id,
        account: claim.account.clone(),
    };
    assert_eq!(engine.lapse(back, &overdue), LapseAnswer::NotDue(deadline));
    assert_eq!(engine.overdue(back, 9), []);

    let start = claim.lines[0].span.start;
    let at_its_clock = Reserve {
        id: ReservationId(Uuid::from_u128(2)),
        lines: vec![day_line(back)],
        ..claim.clone()
    };
    assert_eq!(
        engine.reserve(back, &at_its_clock),
        Reserved::WindowMoved(start)
    );
    let at_the_answer = Reserve {
        lines: vec![day_line(start)],
        ..at_its_clock
    };
    let answer = engine.reserve(back, &at_the_answer);
    assert!(matches!(answer, Reserved::Held { .. }), "{answer:?}");
    engine.check_invariants();
}

#[test]
#[should_panic(expected = "a charge is within its bounds")]
fn an_amount_beyond_its_bounds_is_a_defect() {
    let claim = Reserve {
        charge: Nanos(crate::money::MAX_AMOUNT + 1),
        ..claim()
    };
    engine().reserve(NOW, &claim);
}

#[test]
#[should_panic(expected = "holds what the holds' slices say")]
fn a_leaked_hold_breaks_an_invariant() {
    let mut engine = engine();
    let claim = claim();
    engine.reserve(NOW, &claim);
    engine.reservations.clear();
    engine.deadlines.clear();
    engine.check_invariants();
}

/// One account with a lot of 10, in epoch 1.
fn engine() -> Engine {
    let header = Header {
        install: Uuid::nil(),
        format: STORE_FORMAT,
        epoch: Epoch(1),
        out_seq: OutSeq(0),
        applied_seq: ChangeSeq(0),
    };
    let lot = Lot {
        id: LotId(1),
        effective_at: UnixMs(0),
        expires_at: None,
    };
    let snapshot = Snapshot {
        account: "acme".parse().unwrap(),
        version: Version(1),
        keys_version: 0,
        plan: None,
        mode: Mode::Enforce,
        status: Status::Active,
        anchor_at: None,
        limits: Vec::new(),
        overage: Nanos(0),
        markup_percent: None,
        throttle: None,
    };
    let image = AccountImage {
        withdrawals: Vec::new(),
        snapshot,
        lots: vec![(lot, Nanos(10))],
        debt: Nanos(0),
        counters: Vec::new(),
        as_of: ChangeSeq(0),
    };
    let mut engine = Engine::new(header, DEFAULT_OUTBOX_BOUND);
    engine.load(NOW, &image);
    engine
}

fn claim() -> Reserve {
    Reserve {
        id: ReservationId::new(),
        account: "acme".parse().unwrap(),
        version: Version(1),
        charge: Nanos(5),
        floor: Nanos(1),
        lines: vec![day_line(NOW)],
        deadline_ms: 60_000,
        max_age_ms: 600_000,
        admission: Admission::Strict,
        detail: Arc::from("{}"),
    }
}

fn day_line(at: UnixMs) -> Line {
    let key: CounterKey = "account/tokens/day".parse().unwrap();
    Line {
        span: key.window.span(at, None),
        key,
        amount: Amount(3),
        floor: Amount(0),
        limit: Amount(10),
    }
}

fn settled(claim: &Reserve, charge: i64) -> Settle {
    Settle {
        id: claim.id,
        account: claim.account.clone(),
        outcome: Outcome::Settled,
        charge: Nanos(charge),
        counts: Vec::new(),
        detail: claim.detail.clone(),
    }
}
