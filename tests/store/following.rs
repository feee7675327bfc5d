//! How the store follows the ledger, and how the ledger learns from it: loads, changes, the outbox, epochs
//! (rules 18 to 22 and 27).

use tollgate::clock::UnixMs;
use tollgate::money::{Amount, Nanos};
use tollgate::quota::{
    AccountImage, ApplyAnswer, ChangeBody, ChangeSeq, CounterBalance, EntryKind, Epoch,
    LapseAnswer, LoadAnswer, LotId, Moved, OutSeq, Reserve, Reserved, SettleAnswer, Store,
    StoreError, Version,
};

use super::stage::{SHORT_MS, Stage, counts, drawn, grant, line, lot};

pub async fn an_account_is_cold_until_it_is_loaded<S: Store>(stage: Stage<S>) {
    let claim = stage.claim(1);
    assert_eq!(stage.reserve(&claim).await, Reserved::Cold);
    assert_eq!(
        stage.settle(&stage.settled(&claim, 1, &[])).await,
        SettleAnswer::Cold
    );
    assert_eq!(stage.store.account(&stage.account).await, Ok(None));
    assert_eq!(stage.outbox().await, []);
    let stage = stage.with_lots(&[10]).await;
    stage.hold(&claim).await;
}

pub async fn a_load_never_replaces_what_is_live<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10]).await;
    stage.hold(&stage.claim(4)).await;
    let before = stage.account().await;
    let other = AccountImage {
        snapshot: stage.snapshot(5),
        as_of: ChangeSeq(9),
        ..stage.image(&[999])
    };
    assert_eq!(stage.store.load(&other).await, Ok(LoadAnswer::Warm));
    assert_eq!(stage.account().await, before);
}

pub async fn an_image_older_than_the_store_is_refused<S: Store>(stage: Stage<S>) {
    let nothing = ChangeBody::default();
    assert_eq!(stage.apply(1, nothing.clone()).await, ApplyAnswer::Applied);
    assert_eq!(stage.apply(2, nothing).await, ApplyAnswer::Applied);
    let image = |as_of| AccountImage {
        as_of: ChangeSeq(as_of),
        ..stage.image(&[10])
    };
    assert_eq!(stage.store.load(&image(1)).await, Ok(LoadAnswer::Behind));
    assert_eq!(stage.store.account(&stage.account).await, Ok(None));
    assert_eq!(stage.store.load(&image(2)).await, Ok(LoadAnswer::Loaded));
    let account = stage.account().await;
    assert_eq!(
        (account.as_of, account.applied_seq),
        (ChangeSeq(2), ChangeSeq(2))
    );
}

pub async fn a_load_in_a_later_epoch_keeps_what_is_held<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[30, 30]).await;
    let claim = Reserve {
        lines: vec![line("tokens", 6, 10)],
        deadline_ms: SHORT_MS,
        ..stage.claim(40)
    };
    let used = Reserve {
        lines: vec![line("tokens", 1, 10)],
        ..stage.claim(5)
    };
    stage.hold(&used).await;
    stage.end(&stage.settled(&used, 5, &[1])).await;
    let deadline = stage.hold(&claim).await;

    stage.begin_epoch(2).await;
    assert_eq!(
        stage.store.account(&stage.account).await,
        Ok(None),
        "every account is cold"
    );
    assert_eq!(
        stage.settle(&stage.settled(&claim, 1, &[1])).await,
        SettleAnswer::Cold
    );
    stage.reach(deadline).await;
    assert_eq!(stage.lapse(claim.id).await, LapseAnswer::Cold);

    let counter = CounterBalance {
        key: claim.lines[0].key.clone(),
        start: UnixMs(0),
        used: Amount(2),
    };
    let image = AccountImage {
        lots: vec![(lot(2), Nanos(28)), (lot(3), Nanos(7))],
        debt: Nanos(0),
        counters: vec![counter],
        ..stage.image(&[])
    };
    stage.load(image).await;
    assert_eq!(stage.lots().await, [(1, -25, 25), (2, 13, 15), (3, 7, 0)]);
    assert_eq!(stage.counter(&claim.lines[0]).await, (2, 6));
    assert_eq!(stage.account().await.holds.len(), 1);
    let entry = stage.end(&stage.settled(&claim, 30, &[4])).await;
    assert_eq!(entry.epoch, Epoch(2));
    assert_eq!(drawn(&entry.moved), [(1, -25), (2, -5)]);
    assert_eq!(stage.lots().await, [(1, -25, 0), (2, 23, 0), (3, 7, 0)]);
    assert_eq!(stage.counter(&claim.lines[0]).await, (6, 0));
}

pub async fn a_load_pays_debt_first<S: Store>(stage: Stage<S>) {
    let image = AccountImage {
        debt: Nanos(15),
        ..stage.image(&[10, 10])
    };
    stage.load(image).await;
    let [entry] = &stage.outbox().await[..] else {
        panic!("a repayment is an entry")
    };
    assert_eq!(
        (&entry.kind, &entry.account),
        (&EntryKind::Repaid, &stage.account)
    );
    assert_eq!(
        (drawn(&entry.moved), entry.moved.debt),
        (vec![(1, -10), (2, -5)], Nanos(-15))
    );
    assert_eq!(
        (stage.lots().await, stage.debt().await),
        (vec![(2, 5, 0)], (0, 0))
    );
}

pub async fn changes_apply_in_their_order_only<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10]).await;
    let adds = |id| grant(&[1, id], id, 5);
    assert_eq!(stage.apply(2, adds(2)).await, ApplyAnswer::At(ChangeSeq(0)));
    assert_eq!(stage.apply(1, adds(2)).await, ApplyAnswer::Applied);
    assert_eq!(stage.apply(1, adds(2)).await, ApplyAnswer::At(ChangeSeq(1)));
    assert_eq!(stage.apply(3, adds(3)).await, ApplyAnswer::At(ChangeSeq(1)));
    assert_eq!(stage.lots().await, [(1, 10, 0), (2, 5, 0)]);
    assert_eq!(stage.account().await.applied_seq, ChangeSeq(1));
    let view = stage.store.view(stage.shard).await.unwrap();
    assert_eq!(view.header.unwrap().applied_seq, ChangeSeq(1));
    assert_eq!(
        stage.outbox().await,
        [],
        "without debt there is nothing to pay"
    );
}

pub async fn a_change_the_image_had_is_not_applied_twice<S: Store>(stage: Stage<S>) {
    let image = AccountImage {
        as_of: ChangeSeq(2),
        ..stage.image(&[10])
    };
    stage.load(image).await;
    for seq in [1, 2] {
        assert_eq!(
            stage.apply(seq, grant(&[1, 7], 7, 5)).await,
            ApplyAnswer::Applied
        );
        assert_eq!(stage.lots().await, [(1, 10, 0)]);
    }
    assert_eq!(
        stage.apply(3, grant(&[1, 7], 7, 5)).await,
        ApplyAnswer::Applied
    );
    assert_eq!(stage.lots().await, [(1, 10, 0), (7, 5, 0)]);
}

pub async fn a_grant_pays_debt_first<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[]).await;
    let owes = stage.claim(8);
    stage.end(&stage.settled(&owes, 8, &[])).await;
    let quiet = ChangeBody {
        repay: false,
        ..grant(&[1], 1, 3)
    };
    stage.apply(1, quiet).await;
    assert_eq!(
        (stage.lots().await, stage.debt().await),
        (vec![(1, 3, 0)], (8, 0))
    );
    stage.apply(2, grant(&[1, 2], 2, 20)).await;
    assert_eq!(
        (stage.lots().await, stage.debt().await),
        (vec![(2, 15, 0)], (0, 0))
    );
    let entry = stage.entry(OutSeq(2)).await;
    assert_eq!(
        (&entry.kind, entry.moved.wallet()),
        (&EntryKind::Repaid, Nanos(0))
    );
    assert_eq!(
        (drawn(&entry.moved), entry.moved.debt),
        (vec![(1, -3), (2, -5)], Nanos(-8))
    );
    stage.hold(&stage.claim(15)).await;
}

pub async fn debt_given_back_after_a_grant_paid_it_is_credit<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[]).await;
    let claim = Reserve {
        deadline_ms: SHORT_MS,
        floor: Nanos(8),
        ..stage.claim(0)
    };
    stage.reach(stage.hold(&claim).await).await;
    let entry = stage.lapsed(claim.id).await;
    assert_eq!((drawn(&entry.moved), entry.moved.debt), (vec![], Nanos(8)));
    stage.apply(1, grant(&[1], 1, 10)).await;
    assert_eq!(
        (stage.lots().await, stage.debt().await),
        (vec![(1, 2, 0)], (0, 0))
    );

    let entry = stage.end(&stage.settled(&claim, 3, &[])).await;
    assert_eq!((drawn(&entry.moved), entry.moved.debt), (vec![], Nanos(-5)));
    assert_eq!(
        (stage.lots().await, stage.debt().await),
        (vec![(1, 2, 0)], (-5, 0))
    );
    assert_eq!(stage.short(&stage.claim(8)).await.balance, Nanos(7));
    stage.hold(&stage.claim(7)).await;
    assert_eq!(
        (stage.lots().await, stage.debt().await),
        (vec![(1, 0, 2)], (-5, 5))
    );
}

pub async fn a_change_moves_lots_debt_and_counters<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10, 10]).await;
    let asks = Reserve {
        lines: vec![line("tokens", 4, 10)],
        ..stage.claim(0)
    };
    stage.hold(&asks).await;
    let body = ChangeBody {
        snapshot: Some(stage.snapshot(2)),
        lots: Some(vec![lot(2), lot(1)]),
        moved: Moved {
            lots: vec![(LotId(1), Nanos(-3)), (LotId(2), Nanos(5))],
            debt: Nanos(4),
            counters: counts(&asks, &[6]),
        },
        repay: false,
        withdraw: None,
    };
    assert_eq!(stage.apply(1, body).await, ApplyAnswer::Applied);
    assert_eq!(
        (stage.lots().await, stage.debt().await),
        (vec![(1, 7, 0), (2, 15, 0)], (4, 0))
    );
    assert_eq!(stage.counter(&asks.lines[0]).await, (6, 4));
    let account = stage.account().await;
    assert_eq!(
        (account.order, account.snapshot),
        (vec![lot(2), lot(1)], stage.snapshot(2))
    );
    let answer = Reserved::Stale(Box::new(stage.snapshot(2)));
    assert_eq!(stage.reserve(&stage.claim(1)).await, answer);
    let claim = Reserve {
        version: Version(2),
        ..stage.claim(16)
    };
    stage.hold(&claim).await;
    assert_eq!(stage.lots().await, [(1, 6, 1), (2, 0, 15)]);
}

pub async fn a_lot_below_zero_counts_and_pays_nothing<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10, 10]).await;
    let correction = ChangeBody {
        moved: Moved {
            lots: vec![(LotId(1), Nanos(-14))],
            ..Moved::default()
        },
        ..ChangeBody::default()
    };
    stage.apply(1, correction).await;
    assert_eq!(stage.short(&stage.claim(7)).await.balance, Nanos(6));
    stage.hold(&stage.claim(6)).await;
    assert_eq!(stage.lots().await, [(1, -4, 0), (2, 4, 6)]);
}

pub async fn entries_wait_in_order_until_they_are_forgotten<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    for charge in 1..=5 {
        stage
            .end(&stage.settled(&stage.claim(0), charge, &[]))
            .await;
    }
    let seqs = async |max| {
        let outbox = stage.store.outbox(stage.shard, max).await.unwrap();
        let view = stage.store.view(stage.shard).await.unwrap();
        assert_eq!(outbox.run_id, view.run_id);
        outbox
            .entries
            .iter()
            .map(|entry| entry.seq.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(seqs(9).await, [1, 2, 3, 4, 5]);
    assert_eq!(seqs(2).await, [1, 2]);
    let forget = async |list: &[i64]| {
        let list: Vec<_> = list.iter().copied().map(OutSeq).collect();
        stage.store.forget(stage.shard, &list).await.unwrap();
    };
    forget(&[]).await;
    forget(&[1, 2, 4]).await;
    forget(&[1, 99]).await;
    assert_eq!(seqs(9).await, [3, 5]);
    assert_eq!(stage.store.view(stage.shard).await.unwrap().outbox_len, 2);
    assert_eq!(stage.account().await.unflushed.len(), 2);
}

pub async fn the_numbers_of_entries_are_never_used_again<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[100]).await;
    let first = stage.end(&stage.settled(&stage.claim(0), 1, &[])).await;
    stage.store.forget(stage.shard, &[first.seq]).await.unwrap();
    let second = stage.end(&stage.settled(&stage.claim(0), 1, &[])).await;
    assert_eq!((first.seq, second.seq), (OutSeq(1), OutSeq(2)));
    stage.begin_epoch(2).await;
    stage.load(stage.image(&[98])).await;
    let third = stage.end(&stage.settled(&stage.claim(0), 1, &[])).await;
    assert_eq!((third.seq, third.epoch), (OutSeq(3), Epoch(2)));
}

pub async fn nothing_is_answered_before_the_epoch_is_adopted<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10]).await;
    let store = &stage.store;
    store.adopt(stage.shard, Epoch(2));
    assert_eq!(store.adopted(stage.shard), Some(Epoch(2)));
    let claim = stage.claim(1);
    let lost = |answer: StoreError| matches!(answer, StoreError::Lost { shard, .. } if shard == stage.shard);
    assert!(lost(store.reserve(&claim).await.unwrap_err()));
    assert!(lost(
        store
            .settle(&stage.settled(&claim, 1, &[]))
            .await
            .unwrap_err()
    ));
    assert!(lost(
        store
            .progress(&stage.metered(&claim, 1, &[]))
            .await
            .unwrap_err()
    ));
    assert!(lost(store.load(&stage.image(&[1])).await.unwrap_err()));
    assert!(lost(store.overdue(stage.shard, 1).await.unwrap_err()));
    assert!(lost(store.outbox(stage.shard, 1).await.unwrap_err()));
    assert!(lost(
        store.forget(stage.shard, &[OutSeq(1)]).await.unwrap_err()
    ));
    assert!(lost(store.account(&stage.account).await.unwrap_err()));
    let header = store.view(stage.shard).await.unwrap().header.unwrap();
    assert_eq!(header.epoch, Epoch(1), "a view needs no adoption");
    store.adopt(stage.shard, Epoch(1));
    stage.hold(&claim).await;
}

pub async fn an_earlier_epoch_is_never_opened_again<S: Store>(stage: Stage<S>) {
    let stage = stage.with_lots(&[10]).await;
    stage.begin_epoch(3).await;
    stage.load(stage.image(&[10])).await;
    stage.end(&stage.settled(&stage.claim(0), 1, &[])).await;
    let before = stage.store.view(stage.shard).await.unwrap().header.unwrap();
    for epoch in [1, 2, 3] {
        let mut header = before.clone();
        header.epoch = Epoch(epoch);
        header.out_seq = OutSeq(70);
        stage.store.open(stage.shard, &header).await.unwrap();
    }
    let after = stage.store.view(stage.shard).await.unwrap().header.unwrap();
    assert_eq!((after.epoch, after.out_seq), (Epoch(3), OutSeq(1)));
    assert_eq!(after, before);
    assert_eq!(stage.lots().await, [(1, 9, 0)]);
}
