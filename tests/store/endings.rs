//! How a reservation ends, and what each ending moves and records (invariants 2 to 6, rules 4, 5, 7, 27).

use tollgate::clock::UnixMs;
use tollgate::money::{Amount, Nanos};
use tollgate::quota::{
    AccountImage, Admission, Count, CounterBalance, Ended, Epoch, Lot, OutSeq, Outcome, Reserve,
    Reserved, Settle, SettleAnswer, Store,
};

use super::stage::{LONG_MS, SHORT_MS, Stage, counted, counts, drawn, ended, line, lot};

pub async fn rule_04_unused_goes_back_and_the_entry_says_what_moved<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[50, 50]).await;
    let claim = Reserve {
        lines: vec![
            line("tokens", 9, 10),
            line("requests", 1, 10),
            line("messages", 1, 10),
        ],
        ..stage.claim(80)
    };
    stage.hold(&claim).await;
    let before = stage.now().await;
    let settle = stage.settled(&claim, 60, &[7, 1, 0]);
    assert_eq!(stage.settle(&settle).await, SettleAnswer::Ended(OutSeq(1)));

    let entry = stage.entry(OutSeq(1)).await;
    assert_eq!((entry.epoch, &entry.account), (Epoch(1), &stage.account));
    assert!(before <= entry.at && entry.at <= stage.now().await);
    assert_eq!(drawn(&entry.moved), [(1, -50), (2, -10)]);
    assert_eq!(
        (entry.moved.debt, entry.moved.wallet()),
        (Nanos(0), Nanos(-60))
    );
    let counted = &counts(&claim, &[7, 1])[..];
    assert_eq!(entry.moved.counters, counted, "no zeros");
    let record = ended(&entry);
    assert_eq!(
        (record.id, record.outcome, record.overrun),
        (claim.id, Outcome::Settled, false)
    );
    assert_eq!((record.reserved, record.charge), (Nanos(80), Nanos(60)));
    assert_eq!(
        (&record.counts[..], &record.detail),
        (counted, &settle.detail)
    );

    assert_eq!(stage.lots().await, [(2, 40, 0)]);
    assert_eq!(stage.counter(&claim.lines[0]).await, (7, 0));
    assert_eq!(stage.counter(&claim.lines[2]).await, (0, 0));
    let account = stage.account().await;
    assert_eq!((account.holds, account.unflushed), (vec![], vec![entry]));
}

pub async fn a_release_charges_nothing_and_leaves_a_record<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[50]).await;
    let claim = Reserve {
        lines: vec![line("tokens", 9, 10)],
        ..stage.claim(50)
    };
    stage.hold(&claim).await;
    let entry = stage.end(&stage.released(&claim)).await;
    assert_eq!(
        (drawn(&entry.moved), counted(&entry.moved.counters)),
        (vec![], vec![])
    );
    let record = ended(&entry);
    assert_eq!((record.outcome, record.overrun), (Outcome::Released, false));
    assert_eq!((record.reserved, record.charge), (Nanos(50), Nanos(0)));
    assert_eq!(stage.lots().await, [(1, 50, 0)]);
    assert_eq!(stage.counter(&claim.lines[0]).await, (0, 0));
}

pub async fn ending_twice_moves_nothing<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[50]).await;
    let claim = stage.claim(30);
    stage.hold(&claim).await;
    stage.end(&stage.settled(&claim, 20, &[])).await;
    let before = stage.account().await;
    let already = SettleAnswer::Already(ended_as(Outcome::Settled, 20));
    for again in [
        stage.settled(&claim, 20, &[]),
        stage.settled(&claim, 25, &[]),
        stage.released(&claim),
    ] {
        assert_eq!(stage.settle(&again).await, already);
    }
    assert_eq!(stage.account().await, before);
}

pub async fn a_reserve_after_the_ending_answers_how_it_ended<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[50]).await;
    let claim = stage.claim(30);
    stage.hold(&claim).await;
    stage.end(&stage.settled(&claim, 20, &[])).await;
    let late = stage.claim(30);
    stage.end(&stage.released(&late)).await;
    let before = stage.account().await;
    let answer = stage.reserve(&claim).await;
    assert_eq!(answer, Reserved::Ended(ended_as(Outcome::Settled, 20)));
    let answer = stage.reserve(&late).await;
    assert_eq!(answer, Reserved::Ended(ended_as(Outcome::Released, 0)));
    assert_eq!(stage.account().await, before);
}

pub async fn an_overrun_draws_the_next_lot_then_debt<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10, 10, 10]).await;
    let claim = stage.claim(5);
    stage.hold(&claim).await;
    let other = stage.claim(3);
    stage.hold(&other).await;
    let entry = stage.end(&stage.settled(&claim, 29, &[])).await;
    assert_eq!(drawn(&entry.moved), [(1, -7), (2, -10), (3, -10)]);
    assert_eq!(
        (entry.moved.debt, entry.moved.wallet()),
        (Nanos(2), Nanos(-29))
    );
    assert!(ended(&entry).overrun);
    assert_eq!(stage.lots().await, [(1, 0, 3)], "held is not touched");
    assert_eq!(stage.debt().await, (2, 0));
    stage.end(&stage.released(&other)).await;
    assert_eq!(
        stage.short(&stage.claim(2)).await.balance,
        Nanos(1),
        "three back, two owed"
    );
}

pub async fn an_overrun_of_a_counter_is_charged_in_full<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10]).await;
    let claim = Reserve {
        lines: vec![line("tokens", 4, 10), line("tool_calls", 0, 10)],
        ..stage.claim(5)
    };
    for (amounts, overrun) in [([4, 0], false), ([15, 0], true), ([0, 1], true)] {
        let claim = Reserve {
            id: stage.claim(0).id,
            admission: Admission::Forced,
            ..claim.clone()
        };
        stage.reserve(&claim).await;
        let entry = stage.end(&stage.settled(&claim, 0, &amounts)).await;
        assert_eq!(ended(&entry).overrun, overrun, "{amounts:?}");
    }
    assert_eq!(stage.counter(&claim.lines[0]).await, (19, 0));
    assert_eq!(stage.counter(&claim.lines[1]).await, (1, 0));
}

pub async fn an_unknown_settle_is_charged_at_once<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10, 10]).await;
    let claim = Reserve {
        lines: vec![line("tokens", 4, 10)],
        ..stage.claim(25)
    };
    let settle = stage.settled(&claim, 25, &[12]);
    let entry = stage.end(&settle).await;
    assert_eq!(
        (drawn(&entry.moved), entry.moved.debt),
        (vec![(1, -10), (2, -10)], Nanos(5))
    );
    assert_eq!(counted(&entry.moved.counters), [12]);
    let record = ended(&entry);
    assert_eq!(
        (record.reserved, record.charge, record.overrun),
        (Nanos(0), Nanos(25), false)
    );
    assert_eq!(stage.counter(&claim.lines[0]).await, (12, 0));
    let already = SettleAnswer::Already(ended_as(Outcome::Settled, 25));
    assert_eq!(stage.settle(&settle).await, already);
}

pub async fn an_unknown_release_leaves_a_mark<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10]).await;
    let claim = stage.claim(5);
    let entry = stage.end(&stage.released(&claim)).await;
    assert_eq!(
        (drawn(&entry.moved), ended(&entry).charge),
        (vec![], Nanos(0))
    );
    let answer = stage.reserve(&claim).await;
    assert_eq!(
        answer,
        Reserved::Ended(ended_as(Outcome::Released, 0)),
        "no phantom hold (rule 5)"
    );
    assert_eq!(stage.lots().await, [(1, 10, 0)]);
}

pub async fn what_an_expired_lot_held_goes_back_to_it<S: Store>(stage: Stage<S>) {
    let expires_at = stage.now().await.plus_ms(4 * SHORT_MS);
    let expiring = Lot {
        expires_at: Some(expires_at),
        ..lot(1)
    };
    let image = AccountImage {
        lots: vec![(expiring, Nanos(10)), (lot(2), Nanos(10))],
        ..stage.image(&[])
    };
    stage.load(image).await;
    let claim = Reserve {
        deadline_ms: LONG_MS,
        ..stage.claim(10)
    };
    stage.hold(&claim).await;
    assert_eq!(stage.lots().await, [(1, 0, 10), (2, 10, 0)]);
    stage.reach(expires_at).await;
    let entry = stage.end(&stage.settled(&claim, 4, &[])).await;
    assert_eq!(
        drawn(&entry.moved),
        [(1, -4)],
        "it was held before it expired"
    );
    assert_eq!(stage.lots().await, [(1, 6, 0), (2, 10, 0)]);
    assert_eq!(stage.short(&stage.claim(11)).await.balance, Nanos(10));
}

fn ended_as(outcome: Outcome, charge: i64) -> Ended {
    Ended {
        outcome,
        charge: Nanos(charge),
    }
}

pub async fn a_count_that_goes_down_is_no_overrun_though_no_line_held_it<S: Store>(
    stage: Stage<S>,
) {
    let agents = Count {
        key: "account/agents/cumulative".parse().unwrap(),
        start: UnixMs(0),
        amount: Amount(-5),
    };
    let standing = CounterBalance {
        key: agents.key.clone(),
        start: agents.start,
        used: Amount(23),
    };
    let image = AccountImage {
        counters: vec![standing],
        ..stage.image(&[])
    };
    stage.load(image).await;
    let claim = stage.claim(0);
    stage.hold(&claim).await;
    let settle = Settle {
        counts: vec![agents],
        ..stage.settled(&claim, 0, &[])
    };
    let entry = stage.end(&settle).await;
    assert_eq!(counted(&ended(&entry).counts), [-5]);
    assert!(!ended(&entry).overrun);
}
