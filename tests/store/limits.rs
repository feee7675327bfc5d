//! What fits and what does not: the decision of a reserve (invariant 1, rules 1, 12, 13, 14, 27, 30).

use tollgate::clock::UnixMs;
use tollgate::money::{Amount, MAX_AMOUNT, MAX_BALANCE, Nanos};
use tollgate::quota::{
    AccountImage, Admission, CounterBalance, LapseAnswer, Line, LineState, Lot, OutSeq, Reserve,
    Reserved, Seen, Span, Store, Version,
};

use super::stage::{LONG_MS, OUTBOX_BOUND, Stage, counts, drawn, line, lot};

const HOUR: i64 = 60 * 60 * 1000;

pub async fn refuses_past_the_limit<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[]).await;
    let asks = |amount| Reserve {
        lines: vec![line("tokens", amount, 10)],
        ..stage.claim(0)
    };
    let first = asks(4);
    stage.hold(&first).await;
    stage.end(&stage.settled(&first, 0, &[3])).await;
    stage.hold(&asks(5)).await;
    let seen = stage.short(&asks(3)).await;
    assert_eq!(
        seen.lines,
        [state(3, 5)],
        "what is used and what is held, before this claim"
    );
    stage.hold(&asks(2)).await;
    stage.short(&asks(1)).await;
}

pub async fn refuses_past_the_wallet<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[60, 40]).await;
    stage.hold(&stage.claim(70)).await;
    let seen = stage.short(&stage.claim(31)).await;
    let expected = Seen {
        balance: Nanos(30),
        held: Nanos(70),
        lines: vec![],
    };
    assert_eq!(seen, expected);
    stage.hold(&stage.claim(30)).await;
}

pub async fn a_refusal_takes_nothing<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    let before = stage.account().await;
    let short_of = |charge, tokens, requests| Reserve {
        lines: vec![line("tokens", tokens, 10), line("requests", requests, 10)],
        ..stage.claim(charge)
    };
    for claim in [short_of(101, 1, 1), short_of(1, 11, 1), short_of(1, 1, 11)] {
        stage.short(&claim).await;
        assert_eq!(stage.account().await, before);
        assert_eq!(
            stage.lapse(claim.id).await,
            LapseAnswer::Unknown,
            "it left no trace"
        );
    }
}

pub async fn holds_every_line_and_the_wallet_together<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    let claim = Reserve {
        lines: vec![line("tokens", 7, 10), line("requests", 1, 10)],
        ..stage.claim(30)
    };
    let deadline = stage.hold(&claim).await;
    let account = stage.account().await;
    assert_eq!(stage.lots().await, [(1, 70, 30)]);
    assert_eq!(stage.counter(&claim.lines[0]).await, (0, 7));
    assert_eq!(stage.counter(&claim.lines[1]).await, (0, 1));
    let [hold] = &account.holds[..] else {
        panic!("one hold is open: {account:?}")
    };
    assert_eq!(
        (hold.id, hold.reserved, hold.deadline),
        (claim.id, Nanos(30), deadline)
    );
    assert_eq!(hold.counts, counts(&claim, &[7, 1]));
    assert!(account.unflushed.is_empty(), "a hold is no ending");
}

pub async fn asking_for_nothing_always_fits<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[]).await;
    let owes = stage.claim(5);
    stage.end(&stage.settled(&owes, 5, &[])).await;
    let used_up = Reserve {
        lines: vec![line("tokens", 5, 5)],
        ..stage.claim(0)
    };
    stage.hold(&used_up).await;
    let nothing = Reserve {
        lines: vec![line("tokens", 0, 0), line("requests", 0, 0)],
        ..stage.claim(0)
    };
    stage.hold(&nothing).await;
}

pub async fn rule_01_the_same_id_again_holds_nothing_twice<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    let claim = Reserve {
        lines: vec![line("tokens", 6, 10)],
        ..stage.claim(60)
    };
    let deadline = stage.hold(&claim).await;
    let before = stage.account().await;
    let again = stage.reserve(&claim).await;
    let expected = Reserved::Held {
        deadline,
        fits: true,
        seen: Seen {
            balance: Nanos(40),
            held: Nanos(60),
            lines: vec![state(0, 6)],
        },
    };
    assert_eq!(again, expected);
    assert_eq!(stage.account().await, before);
}

pub async fn force_holds_what_does_not_fit<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[50]).await;
    let claim = Reserve {
        lines: vec![line("tokens", 11, 10)],
        admission: Admission::Forced,
        ..stage.claim(80)
    };
    for _ in 0..2 {
        let answer = stage.reserve(&claim).await;
        assert!(
            matches!(answer, Reserved::Held { fits: false, .. }),
            "{answer:?}"
        );
        assert_eq!(stage.lots().await, [(1, 0, 50)]);
        assert_eq!(stage.debt().await, (0, 30));
        assert_eq!(stage.counter(&claim.lines[0]).await, (0, 11));
    }
    let seen = stage.short(&stage.claim(1)).await;
    assert_eq!((seen.balance, seen.held), (Nanos(-30), Nanos(80)));

    let entry = stage.end(&stage.settled(&claim, 60, &[11])).await;
    assert_eq!(
        (drawn(&entry.moved), entry.moved.debt),
        (vec![(1, -50)], Nanos(10))
    );
    assert_eq!(stage.debt().await, (10, 0));
    let fitting = Reserve {
        admission: Admission::Forced,
        ..stage.claim(0)
    };
    stage.hold(&fitting).await;
}

pub async fn force_does_not_hold_beyond_what_is_exact<S: Store>(stage: Stage<S>) {
    let near = MAX_BALANCE - 10;
    let counter = CounterBalance {
        key: line("tokens", 0, 0).key,
        start: UnixMs(0),
        used: Amount(near),
    };
    stage
        .load(AccountImage {
            debt: Nanos(near),
            counters: vec![counter],
            ..stage.image(&[])
        })
        .await;
    let forced = |charge, tokens| Reserve {
        lines: vec![line("tokens", tokens, 5)],
        admission: Admission::Forced,
        ..stage.claim(charge)
    };
    let seen = stage.short(&forced(11, 0)).await;
    assert_eq!(
        (seen.balance, seen.lines),
        (Nanos(-near), vec![state(near, 0)])
    );
    stage.short(&forced(0, 11)).await;
    let answer = stage.reserve(&forced(10, 10)).await;
    assert!(
        matches!(answer, Reserved::Held { fits: false, .. }),
        "{answer:?}"
    );
    assert_eq!(stage.debt().await, (near, 10));
    stage.short(&forced(1, 0)).await;
    stage.short(&forced(0, 1)).await;
}

pub async fn rule_13_an_old_version_is_answered_with_the_new_snapshot<S: Store>(stage: Stage<S>) {
    let newer = AccountImage {
        snapshot: stage.snapshot(7),
        ..stage.image(&[100])
    };
    stage.load(newer).await;
    let before = stage.account().await;
    for known in [6, 8] {
        let claim = Reserve {
            version: Version(known),
            ..stage.claim(1)
        };
        let answer = Reserved::Stale(Box::new(stage.snapshot(7)));
        assert_eq!(stage.reserve(&claim).await, answer);
    }
    assert_eq!(stage.account().await, before);
    let known = Reserve {
        version: Version(7),
        ..stage.claim(1)
    };
    stage.hold(&known).await;
}

pub async fn rule_12_a_span_that_does_not_hold_the_stores_time_has_moved<S: Store>(
    stage: Stage<S>,
) {
    let stage = stage.with_lots(&[]).await;
    let now = stage.now().await;
    for span in [(-2 * HOUR, 0), (HOUR, 2 * HOUR)] {
        let claim = Reserve {
            lines: vec![line("requests", 1, 9), spanning(now, span, 1)],
            ..stage.claim(0)
        };
        match stage.reserve(&claim).await {
            Reserved::WindowMoved(at) => assert!(now <= at && at <= stage.now().await),
            other => panic!("the span is over, or to come: {other:?}"),
        }
        assert_eq!(stage.account().await.counters, []);
    }
    let claim = Reserve {
        lines: vec![spanning(now, (0, HOUR), 1)],
        ..stage.claim(0)
    };
    stage.hold(&claim).await;
}

pub async fn a_window_never_moves_back<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[]).await;
    let now = stage.now().await;
    let asks = |span| Reserve {
        lines: vec![spanning(now, span, 1)],
        ..stage.claim(0)
    };
    stage.hold(&asks((-HOUR, HOUR))).await;
    stage.hold(&asks((-1_000, HOUR))).await;
    let answer = stage.reserve(&asks((-HOUR, HOUR))).await;
    assert!(matches!(answer, Reserved::WindowMoved(_)), "{answer:?}");
    let counter = &stage.account().await.counters[0];
    assert_eq!(
        (counter.start, counter.held),
        (now.plus_ms(-1_000), Amount(1))
    );
}

pub async fn an_ending_of_the_old_window_leaves_the_new_one_alone<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[]).await;
    let now = stage.now().await;
    let asks = |span, amount| Reserve {
        lines: vec![spanning(now, span, amount)],
        ..stage.claim(0)
    };
    let old = asks((-HOUR, HOUR), 4);
    let new = asks((-1_000, HOUR), 5);
    stage.hold(&old).await;
    stage.hold(&new).await;
    let entry = stage.end(&stage.settled(&old, 0, &[9])).await;
    assert_eq!(
        entry.moved.counters,
        counts(&old, &[9]),
        "the ledger still counts it"
    );
    assert_eq!(stage.counter(&new.lines[0]).await, (0, 5));
    stage.end(&stage.settled(&new, 0, &[2])).await;
    assert_eq!(stage.counter(&new.lines[0]).await, (2, 0));
}

pub async fn lots_are_drawn_in_their_order<S: Store>(stage: Stage<S>) {
    let image = AccountImage {
        lots: vec![(lot(9), Nanos(10)), (lot(3), Nanos(0)), (lot(5), Nanos(10))],
        ..stage.image(&[])
    };
    stage.load(image).await;
    let claim = stage.claim(15);
    stage.hold(&claim).await;
    assert_eq!(stage.lots().await, [(5, 5, 5), (9, 0, 10)]);
    let entry = stage.end(&stage.settled(&claim, 12, &[])).await;
    assert_eq!(drawn(&entry.moved), [(9, -10), (5, -2)]);
}

pub async fn lots_that_are_not_live_are_not_drawn<S: Store>(stage: Stage<S>) {
    let now = stage.now().await;
    let expired = Lot {
        expires_at: Some(now),
        ..lot(1)
    };
    let later = Lot {
        effective_at: now.plus_ms(LONG_MS),
        ..lot(2)
    };
    let live = Lot {
        effective_at: now,
        expires_at: Some(now.plus_ms(LONG_MS)),
        ..lot(3)
    };
    let image = AccountImage {
        lots: [expired, later, live].map(|lot| (lot, Nanos(10))).into(),
        ..stage.image(&[])
    };
    stage.load(image).await;
    assert_eq!(stage.short(&stage.claim(11)).await.balance, Nanos(10));
    let claim = stage.claim(10);
    stage.hold(&claim).await;
    assert_eq!(stage.lots().await, [(1, 10, 0), (2, 10, 0), (3, 0, 10)]);
    let entry = stage.end(&stage.settled(&claim, 12, &[])).await;
    assert_eq!(
        (drawn(&entry.moved), entry.moved.debt),
        (vec![(3, -10)], Nanos(2))
    );
}

pub async fn overage_goes_down_to_its_limit<S: Store>(stage: Stage<S>) {
    let mut image = stage.image(&[10]);
    image.snapshot.overage = Nanos(20);
    stage.load(image).await;
    let claim = stage.claim(25);
    stage.hold(&claim).await;
    assert_eq!(stage.debt().await, (0, 15));
    assert_eq!(stage.short(&stage.claim(6)).await.balance, Nanos(-15));
    stage.hold(&stage.claim(5)).await;
    let entry = stage.end(&stage.settled(&claim, 12, &[])).await;
    assert_eq!(
        (drawn(&entry.moved), entry.moved.debt),
        (vec![(1, -10)], Nanos(2))
    );
    assert_eq!(stage.debt().await, (2, 5));
}

pub async fn rule_14_a_full_outbox_takes_no_holds_but_takes_endings<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    let held = stage.claim(1);
    stage.hold(&held).await;
    for _ in 0..=OUTBOX_BOUND {
        let unknown = stage.claim(0);
        stage.settle(&stage.settled(&unknown, 0, &[])).await;
    }
    let before = stage.account().await;
    assert_eq!(stage.reserve(&stage.claim(1)).await, Reserved::OutboxFull);
    let again = stage.reserve(&held).await;
    assert!(matches!(again, Reserved::Held { .. }), "{again:?}");
    assert_eq!(stage.account().await, before);
    stage.end(&stage.settled(&held, 1, &[])).await;
    stage
        .store
        .forget(stage.shard, &[OutSeq(1), OutSeq(2)])
        .await
        .unwrap();
    stage.hold(&stage.claim(1)).await;
}

pub async fn amounts_are_exact_at_their_bounds<S: Store>(stage: Stage<S>) {
    let stage = stage
        .with_lots(&[MAX_AMOUNT, MAX_AMOUNT, MAX_AMOUNT - 1])
        .await;
    let all = 3 * MAX_AMOUNT - 1;
    let refused = Reserve {
        lines: vec![line("tokens", 1, 0)],
        ..stage.claim(MAX_AMOUNT)
    };
    assert_eq!(stage.short(&refused).await.balance, Nanos(all));
    let claims: Vec<_> = (0..3).map(|_| stage.claim(MAX_AMOUNT)).collect();
    stage.hold(&claims[0]).await;
    stage.hold(&claims[1]).await;
    stage.short(&claims[2]).await;
    let rest = stage.claim(MAX_AMOUNT - 1);
    stage.hold(&rest).await;
    assert_eq!(stage.short(&stage.claim(1)).await.held, Nanos(all));

    let entry = stage
        .end(&stage.settled(&claims[0], MAX_AMOUNT - 1, &[]))
        .await;
    assert_eq!(drawn(&entry.moved), [(1, 1 - MAX_AMOUNT)]);
    let entry = stage.end(&stage.settled(&rest, MAX_AMOUNT, &[])).await;
    assert_eq!(drawn(&entry.moved), [(3, 1 - MAX_AMOUNT), (1, -1)]);
    let entry = stage.end(&stage.settled(&claims[1], MAX_AMOUNT, &[])).await;
    assert_eq!(drawn(&entry.moved), [(2, -MAX_AMOUNT)]);
    assert_eq!(stage.lots().await, []);
    assert_eq!(stage.debt().await, (0, 0));
}

pub async fn rule_11_counters_are_exact_at_their_bounds<S: Store>(stage: Stage<S>) {
    let used = MAX_BALANCE - MAX_AMOUNT - 1;
    let counter = CounterBalance {
        key: line("tokens", 0, 0).key,
        start: UnixMs(0),
        used: Amount(used),
    };
    stage
        .load(AccountImage {
            counters: vec![counter],
            ..stage.image(&[])
        })
        .await;
    let asks = |amount, limit| Reserve {
        lines: vec![line("tokens", amount, limit)],
        ..stage.claim(0)
    };
    let full = used + MAX_AMOUNT;
    stage.short(&asks(MAX_AMOUNT, full - 1)).await;
    let claim = asks(MAX_AMOUNT, full);
    stage.hold(&claim).await;
    assert_eq!(
        stage.short(&asks(1, full)).await.lines,
        [state(used, MAX_AMOUNT)]
    );
    stage.short(&asks(2, MAX_BALANCE)).await;
    stage.hold(&asks(1, MAX_BALANCE)).await;
    let entry = stage
        .end(&stage.settled(&claim, 0, &[MAX_AMOUNT - 1]))
        .await;
    assert_eq!(entry.moved.counters, counts(&claim, &[MAX_AMOUNT - 1]));
    assert_eq!(stage.counter(&claim.lines[0]).await, (full - 1, 1));
    stage.hold(&asks(1, full + 1)).await;
    stage.short(&asks(1, full + 1)).await;
}

fn spanning(now: UnixMs, (from, to): (i64, i64), amount: i64) -> Line {
    Line {
        key: "account/tokens/day".parse().unwrap(),
        span: Span {
            start: now.plus_ms(from),
            end: now.plus_ms(to),
        },
        ..line("tokens", amount, 10)
    }
}

fn state(used: i64, held: i64) -> LineState {
    LineState {
        used: Amount(used),
        held: Amount(held),
    }
}
