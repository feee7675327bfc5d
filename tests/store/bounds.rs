//! Endings at the bounds of a debt and of a counter: each ends, takes what there is room for, and says what it could not
//! take (rule 11, invariants 2 and 5).

use tollgate::clock::UnixMs;
use tollgate::money::{Amount, MAX_AMOUNT, MAX_BALANCE, MAX_DEBT, Nanos};
use tollgate::quota::{AccountImage, CounterBalance, Cut, Reserve, Store};

use super::stage::{SHORT_MS, Stage, counted, counts, ended, line};

/// More calls than it takes to owe, and to count, all that an account may.
const FLOOD: i64 = MAX_BALANCE / MAX_AMOUNT + 50;

impl<S: Store> Stage<S> {
    async fn owing(self, debt: i64) -> Self {
        let image = AccountImage {
            debt: Nanos(debt),
            ..self.image(&[])
        };
        self.load(image).await;
        self
    }
}

fn not_charged(charge: i64) -> Cut {
    Cut {
        charge: Nanos(charge),
        counts: Vec::new(),
    }
}

pub async fn an_overrun_is_charged_up_to_the_bound_of_a_debt_and_the_rest_is_said<S: Store>(
    stage: Stage<S>,
) {
    let stage = stage.owing(MAX_DEBT - 10).await;
    for (charge, charged, owed) in [
        (9, 9, MAX_DEBT - 1),
        (3, 1, MAX_DEBT),
        (MAX_AMOUNT, 0, MAX_DEBT),
    ] {
        let claim = stage.claim(0);
        stage.hold(&claim).await;
        let entry = stage.end(&stage.settled(&claim, charge, &[])).await;
        let record = ended(&entry);
        assert!(record.overrun, "what was used is an overrun, cut or not");
        assert_eq!((record.charge.0, entry.moved.debt.0), (charged, charged));
        assert_eq!(record.cut, not_charged(charge - charged));
        assert_eq!(stage.debt().await, (owed, 0));
    }
    // One that the store knows nothing of is no other.
    let unknown = stage.end(&stage.settled(&stage.claim(0), 5, &[])).await;
    assert_eq!(ended(&unknown).charge, Nanos(0));
    assert_eq!(ended(&unknown).cut, not_charged(5));
    stage.apply(1, super::stage::grant(&[1], 1, 7)).await;
    let paid = stage.end(&stage.settled(&stage.claim(0), 8, &[])).await;
    assert_eq!(ended(&paid).charge, Nanos(7), "a grant makes room again");
}

pub async fn what_is_held_is_charged_whatever_is_owed<S: Store>(stage: Stage<S>) {
    let stage = stage.owing(MAX_DEBT).await;
    let forced = Reserve {
        admission: tollgate::quota::Admission::Forced,
        ..stage.claim(20)
    };
    stage.reserve(&forced).await;
    assert_eq!(stage.debt().await, (MAX_DEBT, 20));
    let entry = stage.end(&stage.settled(&forced, 25, &[])).await;
    assert_eq!(ended(&entry).charge, Nanos(20));
    assert_eq!(ended(&entry).cut, not_charged(5));
    assert_eq!(stage.debt().await, (MAX_DEBT + 20, 0));
}

pub async fn a_count_goes_up_to_its_bound_and_the_rest_is_said<S: Store>(stage: Stage<S>) {
    let at = |resource, used| CounterBalance {
        key: line(resource, 0, 0).key,
        start: UnixMs(0),
        used: Amount(used),
    };
    let image = AccountImage {
        counters: vec![at("tokens", MAX_BALANCE - 3), at("messages", MAX_BALANCE)],
        ..stage.image(&[])
    };
    stage.load(image).await;
    let claim = Reserve {
        lines: ["tokens", "messages", "requests"]
            .map(|resource| line(resource, 0, MAX_BALANCE))
            .into(),
        ..stage.claim(0)
    };
    stage.hold(&claim).await;
    let entry = stage.end(&stage.settled(&claim, 0, &[5, 4, 6])).await;
    let record = ended(&entry);
    assert_eq!(counted(&record.counts), [3, 6]);
    assert_eq!(counted(&entry.moved.counters), [3, 6]);
    let mut cut = counts(&claim, &[2, 4]);
    cut.sort_by(|one, other| one.key.cmp(&other.key));
    assert_eq!(record.cut.counts, cut);
    assert_eq!(stage.counter(&claim.lines[0]).await, (MAX_BALANCE, 0));
    assert_eq!(stage.counter(&claim.lines[1]).await, (MAX_BALANCE, 0));
    assert_eq!(stage.counter(&claim.lines[2]).await, (6, 0));
}

pub async fn a_settle_after_a_lapse_is_cut_as_any_other<S: Store>(stage: Stage<S>) {
    let counter = CounterBalance {
        key: line("tokens", 0, 0).key,
        start: UnixMs(0),
        used: Amount(MAX_BALANCE - 10),
    };
    let image = AccountImage {
        debt: Nanos(MAX_DEBT - 10),
        counters: vec![counter],
        ..stage.image(&[])
    };
    stage.load(image).await;
    let claim = Reserve {
        floor: Nanos(4),
        lines: vec![tollgate::quota::Line {
            floor: Amount(4),
            ..line("tokens", 4, MAX_BALANCE)
        }],
        deadline_ms: SHORT_MS,
        admission: tollgate::quota::Admission::Forced,
        ..stage.claim(4)
    };
    stage.reserve(&claim).await;
    stage.reach(stage.now().await.plus_ms(SHORT_MS)).await;
    let lapsed = stage.lapsed(claim.id).await;
    assert_eq!(ended(&lapsed).charge, Nanos(4));
    let entry = stage.end(&stage.settled(&claim, 30, &[30])).await;
    let record = ended(&entry);
    assert_eq!((record.charge.0, entry.moved.debt.0), (10, 6));
    assert_eq!(
        (counted(&record.counts), counted(&entry.moved.counters)),
        (vec![10], vec![6])
    );
    let cut = Cut {
        charge: Nanos(20),
        counts: counts(&claim, &[20]),
    };
    assert_eq!(record.cut, cut);
    assert_eq!(stage.debt().await, (MAX_DEBT, 0));
    assert_eq!(stage.counter(&claim.lines[0]).await, (MAX_BALANCE, 0));
}

pub async fn more_of_the_largest_endings_than_a_balance_can_hold_all_end<S: Store>(
    stage: Stage<S>,
) {
    let stage = stage.with_lots(&[]).await;
    let claim = || Reserve {
        lines: vec![line("spend", 0, MAX_BALANCE)],
        ..stage.claim(0)
    };
    let any = claim();
    for _ in 0..FLOOD {
        let settle = stage.settled(&claim(), MAX_AMOUNT, &[MAX_AMOUNT]);
        let answer = stage.settle(&settle).await;
        assert!(matches!(answer, tollgate::quota::SettleAnswer::Ended(_)));
    }
    assert_eq!(stage.debt().await, (MAX_DEBT, 0));
    assert_eq!(stage.counter(&any.lines[0]).await, (MAX_BALANCE, 0));
    let outbox = stage.outbox().await;
    let charged: i128 = outbox
        .iter()
        .map(|entry| i128::from(ended(entry).charge.0))
        .sum();
    assert_eq!(charged, i128::from(MAX_DEBT), "to the last nano");
    let cut: i128 = outbox
        .iter()
        .map(|entry| i128::from(ended(entry).cut.charge.0))
        .sum();
    assert_eq!(charged + cut, i128::from(FLOOD) * i128::from(MAX_AMOUNT));
}
