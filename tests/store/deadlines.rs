//! Heartbeats, lapses, and the settle that comes after one (invariant 2, rules 3 and 6).

use tollgate::money::{Amount, Nanos};
use tollgate::quota::{
    Ended, LapseAnswer, Line, Outcome, Progress, Progressed, Reserve, Reserved, SettleAnswer, Store,
};

use super::stage::{LONG_MS, SHORT_MS, Stage, counted, counts, detail, drawn, ended, line};

pub async fn a_hold_lapses_only_when_it_is_due<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    let unknown = stage.claim(0).id;
    assert_eq!(stage.lapse(unknown).await, LapseAnswer::Unknown);
    let claim = stage.claim(30);
    let deadline = stage.hold(&claim).await;
    assert_eq!(stage.lapse(claim.id).await, LapseAnswer::NotDue(deadline));
    let (_, overdue) = stage.store.overdue(stage.shard, 9).await.unwrap();
    assert_eq!(overdue, []);

    let claim = brief(&stage, 0, 0);
    let deadline = stage.hold(&claim).await;
    stage.reach(deadline).await;
    let entry = stage.lapsed(claim.id).await;
    assert!(entry.at >= deadline);
    let record = ended(&entry);
    assert_eq!((record.id, record.outcome), (claim.id, Outcome::Lapsed));
    let already = LapseAnswer::Already(as_lapsed(0));
    assert_eq!(stage.lapse(claim.id).await, already);
    assert_eq!(stage.reserve(&claim).await, Reserved::Ended(as_lapsed(0)));
    assert_eq!(
        stage.lots().await,
        [(1, 70, 30)],
        "only the other hold is left"
    );
}

pub async fn the_overdue_are_found_oldest_first<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    let asks = |deadline_ms| Reserve {
        deadline_ms,
        ..stage.claim(1)
    };
    let claims = [
        asks(3 * SHORT_MS),
        asks(SHORT_MS),
        asks(LONG_MS),
        asks(2 * SHORT_MS),
    ];
    let mut due = Vec::new();
    for claim in &claims {
        due.push((stage.hold(claim).await, claim.id));
    }
    due.sort();
    stage.reach(due[2].0).await;
    let ids = async |max| {
        let (now, overdue) = stage.store.overdue(stage.shard, max).await.unwrap();
        assert!(now >= due[2].0, "it comes with the store's clock");
        assert!(overdue.iter().all(|hold| hold.account == stage.account));
        overdue.into_iter().map(|hold| hold.id).collect::<Vec<_>>()
    };
    let expected: Vec<_> = due[..3].iter().map(|(_, id)| *id).collect();
    assert_eq!(ids(9).await, expected);
    assert_eq!(ids(2).await, expected[..2]);
    stage.lapsed(expected[0]).await;
    stage.end(&stage.released(&claims[3])).await;
    assert_eq!(ids(9).await, expected[2..], "what has ended is not overdue");
}

pub async fn a_lapse_charges_the_floor<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    let claim = brief(&stage, 20, 3);
    stage.reach(stage.hold(&claim).await).await;
    let entry = stage.lapsed(claim.id).await;
    assert_eq!(
        (drawn(&entry.moved), counted(&entry.moved.counters)),
        (vec![(1, -20)], vec![3])
    );
    let record = ended(&entry);
    assert_eq!(
        (record.charge, record.reserved, record.overrun),
        (Nanos(20), Nanos(50), false)
    );
    assert_eq!(
        (&record.counts, &record.detail),
        (&counts(&claim, &[3]), &claim.detail)
    );
    assert_eq!(stage.lots().await, [(1, 80, 0)]);
    assert_eq!(stage.counter(&claim.lines[0]).await, (3, 0));
}

pub async fn a_lapse_charges_what_was_metered<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    let claim = brief(&stage, 20, 3);
    stage.hold(&claim).await;
    let progress = Progress {
        deadline_ms: SHORT_MS,
        ..stage.metered(&claim, 60, &[2])
    };
    let Progressed::Held(deadline) = stage.progress(&progress).await else {
        panic!("it is held")
    };
    stage.reach(deadline).await;
    let entry = stage.lapsed(claim.id).await;
    assert_eq!(drawn(&entry.moved), [(1, -60)]);
    let record = ended(&entry);
    assert_eq!(
        (record.charge, record.overrun),
        (Nanos(60), true),
        "ten more than it held"
    );
    assert_eq!(
        counted(&record.counts),
        [3],
        "the floor is more than was metered"
    );
    assert_eq!(record.detail, progress.detail);
}

pub async fn rule_03_a_heartbeat_moves_the_deadline_up_to_the_total_age<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    let claim = Reserve {
        deadline_ms: LONG_MS,
        max_age_ms: LONG_MS + 5_000,
        ..stage.claim(10)
    };
    let deadline = stage.hold(&claim).await;
    let beat = |deadline_ms| Progress {
        deadline_ms,
        ..stage.metered(&claim, 0, &[])
    };
    assert_eq!(
        stage.progress(&beat(1)).await,
        Progressed::Held(deadline),
        "never back"
    );
    let Progressed::Held(later) = stage.progress(&beat(LONG_MS + 2_000)).await else {
        panic!("it is held")
    };
    assert!(later >= deadline.plus_ms(2_000));
    let latest = deadline.plus_ms(5_000);
    assert_eq!(
        stage.progress(&beat(2 * LONG_MS)).await,
        Progressed::Held(latest)
    );
    assert_eq!(stage.account().await.holds[0].deadline, latest);
    assert_eq!(stage.lapse(claim.id).await, LapseAnswer::NotDue(latest));

    let old = Reserve {
        deadline_ms: LONG_MS,
        max_age_ms: SHORT_MS,
        ..stage.claim(10)
    };
    let deadline = stage.hold(&old).await;
    assert!(
        deadline <= stage.now().await.plus_ms(SHORT_MS),
        "the age caps the first one too"
    );
    stage.reach(deadline).await;
    assert_eq!(
        stage.progress(&stage.metered(&old, 0, &[])).await,
        Progressed::Held(deadline)
    );
    stage.lapsed(old.id).await;
}

pub async fn progress_never_goes_back<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    let claim = Reserve {
        lines: vec![line("tokens", 9, 10), line("messages", 9, 10)],
        ..brief(&stage, 0, 0)
    };
    stage.hold(&claim).await;
    let beat = |charge, amounts: &[i64], text| Progress {
        deadline_ms: SHORT_MS,
        detail: detail(text),
        ..stage.metered(&claim, charge, amounts)
    };
    stage.progress(&beat(30, &[5], "first of two lines")).await;
    stage.progress(&beat(20, &[3, 4], "late")).await;
    let last = stage
        .progress(&beat(30, &[4, 2], "same charge, newer words"))
        .await;
    let Progressed::Held(deadline) = last else {
        panic!("it is held")
    };
    stage.reach(deadline).await;
    let entry = stage.lapsed(claim.id).await;
    let record = ended(&entry);
    assert_eq!(
        (record.charge, counted(&record.counts)),
        (Nanos(30), vec![5, 4])
    );
    assert_eq!(record.detail, detail("same charge, newer words"));
}

pub async fn progress_after_the_end_moves_nothing<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    let claim = stage.claim(30);
    let beat = stage.metered(&claim, 10, &[]);
    assert_eq!(stage.progress(&beat).await, Progressed::Unknown);
    stage.hold(&claim).await;
    stage.end(&stage.settled(&claim, 5, &[])).await;
    let before = stage.account().await;
    let settled = Ended {
        outcome: Outcome::Settled,
        charge: Nanos(5),
    };
    assert_eq!(stage.progress(&beat).await, Progressed::Ended(settled));
    assert_eq!(stage.account().await, before);
    let (_, overdue) = stage.store.overdue(stage.shard, 9).await.unwrap();
    assert_eq!(overdue, []);
}

pub async fn a_settle_after_a_lapse_charges_the_rest<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[30, 30]).await;
    let claim = lapsed(&stage, brief(&stage, 20, 3)).await;
    let settle = stage.settled(&claim, 70, &[8]);
    let entry = stage.end(&settle).await;
    assert_eq!(
        (drawn(&entry.moved), entry.moved.debt),
        (vec![(1, -10), (2, -30)], Nanos(10))
    );
    assert_eq!(
        entry.moved.counters,
        counts(&claim, &[5]),
        "the difference is moved"
    );
    let record = ended(&entry);
    assert_eq!((record.outcome, record.overrun), (Outcome::Settled, true));
    assert_eq!(
        (record.reserved, record.charge),
        (Nanos(50), Nanos(70)),
        "the entry has the total"
    );
    assert_eq!(
        (counted(&record.counts), &record.detail),
        (vec![8], &settle.detail)
    );
    assert_eq!(stage.lots().await, []);
    assert_eq!(stage.counter(&claim.lines[0]).await, (8, 0));
}

pub async fn a_settle_after_a_lapse_gives_back_the_rest<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[15, 10]).await;
    let mut claim = brief(&stage, 40, 3);
    claim.charge = Nanos(25);
    let claim = lapsed(&stage, claim).await;
    assert_eq!(
        stage.debt().await,
        (15, 0),
        "the floor was more than it held"
    );
    let entry = stage.end(&stage.settled(&claim, 12, &[1])).await;
    assert_eq!(
        drawn(&entry.moved),
        [(2, 10), (1, 3)],
        "what was drawn last comes first"
    );
    assert_eq!(
        (entry.moved.debt, entry.moved.wallet()),
        (Nanos(-15), Nanos(28))
    );
    assert_eq!(counted(&entry.moved.counters), [-2]);
    let record = ended(&entry);
    assert_eq!(
        (record.charge, counted(&record.counts), record.overrun),
        (Nanos(12), vec![1], false)
    );
    assert_eq!(stage.lots().await, [(1, 3, 0), (2, 10, 0)]);
    assert_eq!(stage.debt().await, (0, 0));
    assert_eq!(stage.counter(&claim.lines[0]).await, (1, 0));
}

pub async fn a_release_after_a_lapse_gives_all_back<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    let claim = lapsed(&stage, brief(&stage, 20, 3)).await;
    let entry = stage.end(&stage.released(&claim)).await;
    assert_eq!(drawn(&entry.moved), [(1, 20)]);
    assert_eq!(
        entry.moved.counters,
        counts(&claim, &[-3]),
        "a count it has not is taken back"
    );
    assert_eq!(
        (ended(&entry).outcome, ended(&entry).charge),
        (Outcome::Released, Nanos(0))
    );
    assert_eq!(stage.lots().await, [(1, 100, 0)]);
    assert_eq!(stage.counter(&claim.lines[0]).await, (0, 0));
}

pub async fn a_lapse_is_corrected_only_once<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    let claim = lapsed(&stage, brief(&stage, 20, 3)).await;
    stage.end(&stage.settled(&claim, 45, &[4])).await;
    let before = stage.account().await;
    let settled = Ended {
        outcome: Outcome::Settled,
        charge: Nanos(45),
    };
    for again in [
        stage.settled(&claim, 45, &[4]),
        stage.settled(&claim, 50, &[5]),
        stage.released(&claim),
    ] {
        assert_eq!(stage.settle(&again).await, SettleAnswer::Already(settled));
    }
    assert_eq!(stage.lapse(claim.id).await, LapseAnswer::Already(settled));
    assert_eq!(stage.account().await, before);
}

/// A claim on 50 of the wallet and 5 tokens that is soon overdue.
fn brief<S: Store>(stage: &Stage<S>, floor: i64, tokens: i64) -> Reserve {
    Reserve {
        deadline_ms: SHORT_MS,
        floor: Nanos(floor),
        lines: vec![Line {
            floor: Amount(tokens),
            ..line("tokens", 5, 10)
        }],
        ..stage.claim(50)
    }
}

async fn lapsed<S: Store>(stage: &Stage<S>, claim: Reserve) -> Reserve {
    stage.reach(stage.hold(&claim).await).await;
    stage.lapsed(claim.id).await;
    claim
}

fn as_lapsed(charge: i64) -> Ended {
    Ended {
        outcome: Outcome::Lapsed,
        charge: Nanos(charge),
    }
}
