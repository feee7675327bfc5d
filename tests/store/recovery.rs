//! What heals a store that has lost something, and what takes credit otherwise than by a call (rules 18, 22, 23, 27, 33).

use tollgate::clock::UnixMs;
use tollgate::money::{Amount, Nanos};
use tollgate::quota::{
    Admission, ApplyAnswer, ChangeBody, Entry, EntryKind, Epoch, ExpireAnswer, ExpiredLot, Header,
    Line, Lot, LotId, MAX_LOTS, OutSeq, Reserve, Reserved, Settle, SettleAnswer, Span, Store,
    Version, Withdrawal, WithdrawalReason,
};
use uuid::Uuid;

use super::stage::{OUTBOX_BOUND, Stage, counted, drawn, ended, grant, line, lot};

fn again(claim: Reserve) -> Reserve {
    Reserve {
        admission: Admission::Again,
        ..claim
    }
}

pub async fn a_hold_that_was_lost_is_made_again_whatever_has_changed<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10]).await;
    let passed = Span {
        start: UnixMs(0),
        end: UnixMs(1),
    };
    let claim = Reserve {
        version: Version(7),
        lines: vec![Line {
            key: "account/tokens/day".parse().unwrap(),
            span: passed,
            ..line("tokens", 5, 3)
        }],
        ..stage.claim(15)
    };
    for _ in 0..=OUTBOX_BOUND {
        stage.end(&stage.settled(&stage.claim(0), 0, &[])).await;
    }
    let strict = stage.reserve(&claim).await;
    assert!(matches!(strict, Reserved::Stale(_)), "{strict:?}");
    let held = stage.reserve(&again(claim.clone())).await;
    assert!(
        matches!(held, Reserved::Held { fits: false, .. }),
        "{held:?}"
    );
    assert_eq!(
        (stage.lots().await, stage.debt().await),
        (vec![(1, 0, 10)], (0, 5)),
        "even below zero"
    );
    assert_eq!(stage.counter(&claim.lines[0]).await, (0, 5));
    stage.end(&stage.settled(&claim, 4, &[2])).await;
    assert_eq!(
        (stage.lots().await, stage.debt().await),
        (vec![(1, 6, 0)], (0, 0))
    );
}

pub async fn a_hold_made_again_after_its_end_holds_nothing<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10]).await;
    let claim = stage.claim(3);
    stage.end(&stage.settled(&claim, 2, &[])).await;
    let answer = stage.reserve(&again(claim)).await;
    assert!(matches!(answer, Reserved::Ended(_)), "{answer:?}");
    assert_eq!(stage.lots().await, [(1, 8, 0)]);
}

pub async fn a_hold_is_not_made_again_in_a_cold_account<S: Store>(stage: Stage<S>) {
    let answer = stage.reserve(&again(stage.claim(3))).await;
    assert_eq!(answer, Reserved::Cold);
}

pub async fn a_later_epoch_numbers_on_from_whoever_is_further<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10]).await;
    stage.end(&stage.settled(&stage.claim(0), 1, &[])).await;
    stage.end(&stage.settled(&stage.claim(0), 1, &[])).await;
    let header = stage.store.view(stage.shard).await.unwrap().header.unwrap();
    for (epoch, given, then) in [(2, 1, 2), (3, 9, 9)] {
        let header = Header {
            epoch: Epoch(epoch),
            out_seq: OutSeq(given),
            ..header.clone()
        };
        stage.store.open(stage.shard, &header).await.unwrap();
        let view = stage.store.view(stage.shard).await.unwrap();
        assert_eq!(view.header.unwrap().out_seq, OutSeq(then));
    }
}

pub async fn the_oldest_entrys_epoch_is_seen_until_it_is_forgotten<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10]).await;
    let oldest = async || stage.store.view(stage.shard).await.unwrap().oldest_epoch;
    assert_eq!(oldest().await, None);
    let first = stage.end(&stage.settled(&stage.claim(0), 1, &[])).await;
    stage.begin_epoch(2).await;
    stage.load(stage.image(&[9])).await;
    let second = stage.end(&stage.settled(&stage.claim(0), 1, &[])).await;
    assert_eq!(oldest().await, Some(Epoch(1)));
    let forget = async |entry: &Entry| stage.store.forget(stage.shard, &[entry.seq]).await;
    forget(&first).await.unwrap();
    assert_eq!(oldest().await, Some(Epoch(2)));
    forget(&second).await.unwrap();
    assert_eq!(oldest().await, None);
}

fn expired<S: Store>(stage: &Stage<S>, id: i64, expires_at: UnixMs) -> ExpiredLot {
    ExpiredLot {
        account: stage.account.clone(),
        lot: LotId(id),
        expires_at,
    }
}

pub async fn what_is_left_of_an_expired_lot_is_taken_once<S: Store>(stage: Stage<S>) {
    let now = stage.now().await;
    let over = now.plus_ms(-1);
    let cold = stage.store.expire(&expired(&stage, 1, over)).await;
    assert_eq!(cold, Ok(ExpireAnswer::Cold));
    let stage = stage.with_lots(&[10, 20]).await;
    let expire = async |id, at| stage.store.expire(&expired(&stage, id, at)).await.unwrap();
    assert_eq!(expire(1, now.plus_ms(60_000)).await, ExpireAnswer::NotDue);
    assert_eq!(expire(7, over).await, ExpireAnswer::Nothing);
    let ExpireAnswer::Expired(seq) = expire(1, over).await else {
        panic!("there was something left");
    };
    let entry = stage.entry(seq).await;
    assert_eq!(
        (entry.kind, drawn(&entry.moved)),
        (EntryKind::Expired, vec![(1, -10)])
    );
    assert_eq!(expire(1, over).await, ExpireAnswer::Nothing);
    assert_eq!(stage.lots().await, [(2, 20, 0)]);
}

pub async fn what_a_hold_does_not_use_of_an_expired_lot_is_taken_later<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10]).await;
    let over = stage.now().await;
    let claim = stage.claim(4);
    stage.hold(&claim).await;
    let lot = expired(&stage, 1, over);
    let first = stage.store.expire(&lot).await.unwrap();
    assert!(matches!(first, ExpireAnswer::Expired(_)), "{first:?}");
    assert_eq!(stage.lots().await, [(1, 0, 4)], "what is held stays");
    stage.end(&stage.settled(&claim, 1, &[])).await;
    let ExpireAnswer::Expired(seq) = stage.store.expire(&lot).await.unwrap() else {
        panic!("the hold has given back 3");
    };
    assert_eq!(drawn(&stage.entry(seq).await.moved), [(1, -3)]);
}

fn withdrawal(lot: i64, amount: i64) -> Withdrawal {
    Withdrawal {
        id: Uuid::now_v7(),
        lot: LotId(lot),
        reason: WithdrawalReason::Refund,
        amount: Nanos(amount),
    }
}

pub async fn a_withdrawal_takes_what_is_there_and_says_so_even_of_nothing<S: Store>(
    stage: Stage<S>,
) {
    let stage = stage.with_lots(&[10, 20]).await;
    stage.hold(&stage.claim(4)).await;
    let asked = [
        withdrawal(1, 5),
        withdrawal(1, 5),
        withdrawal(1, 5),
        withdrawal(9, 5),
    ];
    for (seq, withdrawal) in (1..).zip(&asked) {
        let body = ChangeBody {
            withdraw: Some(withdrawal.clone()),
            ..ChangeBody::default()
        };
        assert_eq!(stage.apply(seq, body.clone()).await, ApplyAnswer::Applied);
        let again = stage.apply(seq, body).await;
        assert!(matches!(again, ApplyAnswer::At(_)), "{again:?}");
    }
    let taken: Vec<_> = stage
        .outbox()
        .await
        .into_iter()
        .map(|entry| (entry.kind, drawn(&entry.moved)))
        .collect();
    let amounts = [vec![(1, -5)], vec![(1, -1)], vec![], vec![]];
    let wanted: Vec<_> = asked
        .into_iter()
        .map(EntryKind::Withdrawn)
        .zip(amounts)
        .collect();
    assert_eq!(taken, wanted);
    assert_eq!(stage.lots().await, [(1, 0, 4), (2, 20, 0)]);
}

pub async fn what_is_to_be_withdrawn_of_a_cold_account_is_with_its_load<S: Store>(stage: Stage<S>) {
    let mut image = stage.image(&[10]);
    image.debt = Nanos(3);
    image.withdrawals = vec![withdrawal(1, 4), withdrawal(1, 4)];
    stage.load(image.clone()).await;
    let outbox = stage.outbox().await;
    let moved: Vec<_> = outbox.iter().map(|entry| drawn(&entry.moved)).collect();
    // Before debt is paid: what is asked back is not there to pay with.
    assert_eq!(moved, [vec![(1, -4)], vec![(1, -4)], vec![(1, -2)]]);
    assert_eq!((stage.lots().await, stage.debt().await), (vec![], (1, 0)));
}

fn agents(amount: i64) -> Line {
    Line {
        key: "account/agents/cumulative".parse().unwrap(),
        amount: Amount(amount),
        ..line("agents", 0, 10)
    }
}

pub async fn rule_33_a_standing_count_goes_down_and_never_below_zero<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10]).await;
    let count = async |amount: i64, by: i64| -> (Settle, SettleAnswer) {
        let claim = Reserve {
            lines: vec![agents(amount)],
            ..stage.claim(0)
        };
        stage.hold(&claim).await;
        let settle = stage.settled(&claim, 0, &[by]);
        let answer = stage.settle(&settle).await;
        (settle, answer)
    };
    assert!(matches!(count(3, 3).await.1, SettleAnswer::Ended(_)));
    let SettleAnswer::Ended(seq) = count(0, -2).await.1 else {
        panic!("three are there, so two may go");
    };
    let entry = stage.entry(seq).await;
    assert_eq!(
        (
            counted(&ended(&entry).counts),
            counted(&entry.moved.counters)
        ),
        (vec![-2], vec![-2])
    );
    let (settle, below) = count(0, -2).await;
    assert_eq!(below, SettleAnswer::BelowZero);
    assert_eq!(stage.counter(&agents(0)).await, (1, 0));
    // What was held is held: it can still be released.
    let release = Settle {
        counts: Vec::new(),
        ..settle
    };
    assert!(matches!(
        stage.settle(&release).await,
        SettleAnswer::Ended(_)
    ));
}

pub async fn an_account_with_all_it_may_have_works<S: Store>(stage: Stage<S>) {
    let mut image = stage.image(&[]);
    let lots = (1..).take(MAX_LOTS).map(|id| (lot(id), Nanos(5)));
    image.lots = lots.collect();
    image.counters = (0..200)
        .map(|number| tollgate::quota::CounterBalance {
            key: format!("account/custom_{number}/overall").parse().unwrap(),
            start: Span::EVER.start,
            used: Amount(4_000_000_000_000_000_000),
        })
        .collect();
    stage.load(image).await;
    let many = i64::try_from(MAX_LOTS).unwrap();
    // Over every lot.
    let claim = stage.claim(5 * many);
    stage.hold(&claim).await;
    stage.end(&stage.settled(&claim, 5 * many - 2, &[])).await;
    assert_eq!(stage.lots().await, [(many, 2, 0)]);
    let order: Vec<i64> = [many, many + 1].into();
    stage.apply(1, grant(&order, many + 1, 7)).await;
    let account = stage.account().await;
    assert_eq!(
        account.order,
        [lot(many), lot(many + 1)] as [Lot; 2],
        "empty lots have left"
    );
    assert_eq!(account.counters.len(), 200);
}
