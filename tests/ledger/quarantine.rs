//! What the ledger cannot take in is put aside, and all that comes before and after it passes (rule 26).

use tollgate::ledger::{Checked, Committed, Flushed, Ledger, LedgerError};
use tollgate::money::Nanos;
use tollgate::quota::{
    AccountId, Entry, EntryKind, LotId, Moved, OutSeq, Outbox, ReservationId, ShardId, Store,
    Unreadable, Window, Withdrawal, WithdrawalReason,
};
use uuid::Uuid;

use super::world::World;

const MAX_BALANCE: i64 = 4_000_000_000_000_000_000;

/// (seq, account, raw, moved, whether it is resolved) of what is in quarantine.
type Aside = (i64, Option<String>, Vec<u8>, Option<String>, bool);

async fn aside(world: &World) -> Vec<Aside> {
    let rows: Vec<(i64, _, _, _, bool, String)> = world
        .place
        .all_rows(
            "SELECT seq, account_id, raw, CAST(moved AS text), resolved_at IS NOT NULL, reason \
             FROM quarantine ORDER BY shard, seq",
        )
        .await;
    rows.into_iter()
        .map(|(seq, account, raw, moved, resolved, reason)| {
            assert_ne!(reason, "");
            (seq, account, raw, moved, resolved)
        })
        .collect()
}

/// Makes every further count of an account's tokens more than the ledger can write down.
async fn break_counter(world: &World, account: &AccountId) {
    let start = Window::Month.span(world.now(), None).start;
    let start = world.place.moment(start);
    let insert = format!(
        "INSERT INTO usage_counter (account_id, scope, resource, \"window\", window_start, used) \
         VALUES ('{account}', 'account', 'tokens', 'month', {start}, {MAX_BALANCE})"
    );
    world.place.run(&insert).await.unwrap();
}

async fn mend_counter(world: &World, account: &AccountId) {
    let delete = format!(
        "DELETE FROM usage_counter WHERE account_id = '{account}' AND used = {MAX_BALANCE}"
    );
    world.place.run(&delete).await.unwrap();
}

async fn use_up(world: &World, account: &AccountId, charge: i64) {
    let id = world.hold(account, charge).await;
    world.settle(account, id, charge).await;
}

async fn load_anew(world: &World, account: &AccountId) {
    let shard = world.shard(account);
    let checked = world.ledger.rebuild(shard, &*world.store).await.unwrap();
    let Checked::Agreed(epoch) = checked else {
        panic!("{checked:?}");
    };
    world.store.adopt(shard, epoch);
    world.loader.load(account).await.unwrap();
}

pub async fn rule_26_an_odd_entry_amid_good_ones_is_put_aside_and_counts_until_it_is_taken_in(
    world: World,
) {
    let odd = world.account(&[100]).await;
    let good = world.account_beside(&odd, &[100]).await;
    break_counter(&world, &odd).await;
    let shard = world.shard(&odd);
    for charge in [1, 2, 3] {
        use_up(&world, &good, charge).await;
    }
    use_up(&world, &odd, 9).await;
    for charge in [4, 5] {
        use_up(&world, &good, charge).await;
    }
    assert_eq!(world.flush(&odd).await, 6);
    world.assert_one(&good).await;
    assert_eq!(world.records(&good).await.len(), 5);
    assert_eq!(world.records(&odd).await, []);
    let out_seq = world
        .store
        .view(shard)
        .await
        .unwrap()
        .header
        .unwrap()
        .out_seq;
    let row = world.ledger.row(shard).await.unwrap();
    assert_eq!(row.flushed_seq, out_seq, "it passes");
    let aside_now = aside(&world).await;
    assert_eq!(aside_now.len(), 1);
    let (_, account, raw, moved, resolved) = &aside_now[0];
    let entry: Entry = serde_json::from_slice(raw).unwrap();
    assert_eq!(account.as_deref(), Some(odd.as_str()));
    assert_eq!(entry.moved.wallet(), Nanos(-9));
    assert_eq!(
        serde_json::from_str::<Moved>(moved.as_deref().unwrap()).unwrap(),
        entry.moved
    );
    assert!(!resolved);

    // Audits and loads count it.
    let admin = world.admin().await;
    let listed = admin.quarantined(shard, OutSeq(0)).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].seq, &listed[0].account),
        (entry.seq, &Some(odd.clone()))
    );
    let retried = admin.retry_quarantined(shard, OutSeq(0)).await.unwrap();
    assert!(retried[0].refused.is_some(), "nothing is mended yet");
    mend_counter(&world, &odd).await;
    world.assert_no_drift(&odd).await;
    assert_eq!(world.balance(&odd).await, 91);
    load_anew(&world, &odd).await;
    assert_eq!(world.balance(&odd).await, 91);
    world.assert_no_drift(&odd).await;

    let retried = admin.retry_quarantined(shard, OutSeq(0)).await.unwrap();
    assert_eq!(retried.len(), 1);
    assert_eq!(retried[0].refused, None);
    assert_eq!(admin.quarantined(shard, OutSeq(0)).await.unwrap(), []);
    assert_eq!(admin.retry_quarantined(shard, OutSeq(0)).await.unwrap(), []);
    assert!(aside(&world).await[0].4);
    world.assert_one(&odd).await;
    world.assert_no_drift(&odd).await;
    assert_eq!(world.records(&odd).await, [("settled".into(), 9, 9)]);
    let row = world.ledger.row(shard).await.unwrap();
    assert!(row.flushed_seq >= out_seq, "it never goes back");
}

pub async fn what_was_settled_again_meanwhile_is_undone_when_its_entry_is_taken_in_late(
    world: World,
) {
    let account = world.account(&[100]).await;
    let shard = world.shard(&account);
    break_counter(&world, &account).await;
    let id = world.hold(&account, 9).await;
    world.settle(&account, id, 9).await;
    world.flush(&account).await;
    mend_counter(&world, &account).await;
    world.pass_ms(tollgate::quota::ENDED_MARK_MS + 1);
    world.settle(&account, id, 9).await;
    world.flush(&account).await;
    assert_eq!(world.balance(&account).await, 82, "charged twice so far");
    world.assert_no_drift(&account).await;
    let admin = world.admin().await;
    let retried = admin.retry_quarantined(shard, OutSeq(0)).await.unwrap();
    assert_eq!(retried[0].refused, None);
    world.assert_one(&account).await;
    assert_eq!(world.balance(&account).await, 91);
    assert_eq!(world.records(&account).await.len(), 1);
}

/// Three good entries, and garbage between them.
async fn garbage(world: &World, account: &AccountId) -> Outbox {
    for charge in [1, 2, 3] {
        use_up(world, account, charge).await;
    }
    let shard = world.shard(account);
    let mut outbox = world.store.outbox(shard, 10).await.unwrap();
    let [mut first, second, mut third]: [Entry; 3] =
        std::mem::take(&mut outbox.entries).try_into().unwrap();
    let seq = first.seq.0;
    let template = first.clone();
    let odd = |by: i64, lots: Vec<(LotId, Nanos)>| Entry {
        seq: OutSeq(seq + by),
        kind: EntryKind::Repaid,
        moved: Moved {
            lots,
            ..Moved::default()
        },
        ..template.clone()
    };
    let unknown_lot = odd(1, vec![(LotId(987_654), Nanos(-5))]);
    let beyond = odd(4, vec![(LotId(1), Nanos(i64::MIN)), (LotId(2), Nanos(-1))]);
    if let EntryKind::Ended(ended) = &mut first.kind {
        ended.detail = r#"{"model":"gpt\u0000four","usage":{"odd":"\u0000"}}"#.into();
    }
    // Of an account that is not there.
    let mut nobodys = odd(5, Vec::new());
    nobodys.account = "nobody".parse().unwrap();
    nobodys.moved.debt = Nanos(1);
    third.seq = OutSeq(seq + 6);
    let second = Entry {
        seq: OutSeq(seq + 3),
        ..second
    };
    outbox.entries = vec![first, unknown_lot, second, beyond, nobodys, third];
    outbox.unreadable = vec![Unreadable {
        seq: OutSeq(seq + 2),
        account: None,
        raw: b"\0\xffgarbage".to_vec(),
        reason: "it has \0 in it".into(),
    }];
    outbox
}

pub async fn garbage_of_every_kind_is_put_aside_to_the_byte(world: World) {
    let account = world.account(&[100]).await;
    let shard = world.shard(&account);
    let outbox = garbage(&world, &account).await;
    let last = outbox.entries[5].seq;
    for _ in 0..2 {
        let committed = world.ledger.commit(shard, &outbox).await.unwrap();
        assert!(
            matches!(committed, Committed::UpTo { entry, .. } if entry == last),
            "{committed:?}"
        );
    }
    let charged: Vec<i64> = world.records(&account).await.iter().map(|r| r.1).collect();
    assert_eq!(charged, [1, 2, 3]);
    world.assert_posted(&account).await;
    let model = "SELECT model FROM usage_record WHERE account_id = $1 AND charged_nanos = 1";
    let model: Vec<(String,)> = world.place.rows(model, &account).await;
    assert_eq!(
        model[0].0, "gpt\u{fffd}four",
        "a NUL is no reason to put it aside"
    );

    let aside = aside(&world).await;
    let whose: Vec<Option<&str>> = aside.iter().map(|of| of.1.as_deref()).collect();
    let its = Some(account.as_str());
    assert_eq!(whose, [its, None, its, Some("nobody")]);
    assert_eq!(aside[1].2, b"\0\xffgarbage");
    let moved: Vec<bool> = aside.iter().map(|of| of.3.is_some()).collect();
    assert_eq!(
        moved,
        [true, false, false, true],
        "nobody can have moved what is beyond all bounds"
    );
    let image = world.ledger.image(&account).await.unwrap().unwrap();
    let unknown = image.lots.last().unwrap();
    assert_eq!((unknown.0.id, unknown.1), (LotId(987_654), Nanos(-5)));
    let retried = world
        .admin()
        .await
        .retry_quarantined(shard, OutSeq(0))
        .await;
    assert!(retried.unwrap().iter().all(|entry| entry.refused.is_some()));
}

pub async fn an_outbox_of_which_nothing_can_be_read_passes_too(world: World) {
    let shard = ShardId(0);
    let outbox = world.store.outbox(shard, 1).await.unwrap();
    let unreadable = Outbox {
        unreadable: vec![Unreadable {
            seq: OutSeq(1),
            account: None,
            raw: vec![0],
            reason: "odd".into(),
        }],
        ..outbox
    };
    let committed = world.ledger.commit(shard, &unreadable).await.unwrap();
    assert!(
        matches!(committed, Committed::UpTo { entry, .. } if entry == OutSeq(1)),
        "{committed:?}"
    );
    assert_eq!(aside(&world).await.len(), 1);
}

pub async fn an_outbox_full_of_garbage_passes_in_steps_and_holds_up_nothing_for_ever(world: World) {
    let odd = world.account(&[10_000]).await;
    let good = world.account_beside(&odd, &[100]).await;
    break_counter(&world, &odd).await;
    for _ in 0..100 {
        use_up(&world, &odd, 1).await;
    }
    use_up(&world, &good, 7).await;
    let flushed = world.flusher.flush(world.shard(&odd)).await.unwrap();
    assert_eq!(flushed, Flushed::Drained(101));
    assert_eq!(aside(&world).await.len(), 100);
    world.assert_one(&good).await;
    mend_counter(&world, &odd).await;
    world.assert_no_drift(&odd).await;
    let admin = world.admin().await;
    let mut after = OutSeq(0);
    while let Some(last) = {
        let retried = admin.retry_quarantined(world.shard(&odd), after).await;
        let retried = retried.unwrap();
        assert!(retried.iter().all(|entry| entry.refused.is_none()));
        retried.last().map(|entry| entry.seq)
    } {
        after = last;
    }
    world.assert_one(&odd).await;
    assert_eq!(world.records(&odd).await.len(), 100);
}

pub async fn what_is_wrong_with_the_ledger_puts_nothing_aside(world: World) {
    let account = world.account(&[100]).await;
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 3).await;
    let shard = world.shard(&account);
    let outbox = world.store.outbox(shard, 10).await.unwrap();
    let run = async |statement: &str| world.place.run(statement).await.unwrap();
    run("ALTER TABLE posting RENAME TO elsewhere").await;
    let committed = world.ledger.commit(shard, &outbox).await;
    assert!(
        matches!(committed, Err(LedgerError::Nonsense(_))),
        "{committed:?}"
    );
    run("ALTER TABLE elsewhere RENAME TO posting").await;
    assert_eq!(aside(&world).await, []);
    world.assert_one(&account).await;
}

#[tokio::test]
async fn a_missing_partition_and_a_locked_table_put_nothing_aside() {
    let world = World::new().await;
    let account = world.account(&[100]).await;
    // Its id is of no month that has a partition.
    world
        .settle(&account, ReservationId(Uuid::from_u128(7)), 3)
        .await;
    let outbox = world.store.outbox(world.shard(&account), 10).await.unwrap();
    let run = async |statement: &str| world.place.run(statement).await.unwrap();
    let commit = async || world.ledger.commit(world.shard(&account), &outbox).await;

    run("ALTER TABLE usage_record DETACH PARTITION usage_record_default").await;
    let committed = commit().await;
    assert!(
        matches!(committed, Err(LedgerError::Away(_))),
        "{committed:?}"
    );
    run("ALTER TABLE usage_record ATTACH PARTITION usage_record_default DEFAULT").await;

    let mut keeper = world.place.pool().acquire().await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE posting")
        .execute(&mut *keeper)
        .await
        .unwrap();
    let committed = commit().await;
    assert!(
        matches!(committed, Err(LedgerError::Away(_))),
        "{committed:?}"
    );
    sqlx::raw_sql("ROLLBACK")
        .execute(&mut *keeper)
        .await
        .unwrap();
    assert_eq!(aside(&world).await, []);
    world.assert_one(&account).await;
}

/// What the ledger would have undone has nobody to be undone for.
pub async fn a_withdrawal_of_an_account_that_is_not_there_is_put_aside(world: World) {
    let account = world.account(&[100]).await;
    let shard = world.shard(&account);
    let row = world.ledger.row(shard).await.unwrap();
    let home = row.home.unwrap();
    let mut names = (0..).map(|n| format!("nobody-{n}").parse().unwrap());
    let nobody: AccountId = names.find(|id| world.shard(id) == shard).unwrap();
    let odd = Entry {
        seq: OutSeq(row.flushed_seq.0 + 1),
        epoch: home.epoch,
        at: world.now(),
        account: nobody.clone(),
        kind: EntryKind::Withdrawn(Withdrawal {
            id: Uuid::now_v7(),
            lot: LotId(999),
            reason: WithdrawalReason::Void,
            amount: Nanos(5),
        }),
        moved: Moved {
            lots: vec![(LotId(999), Nanos(-5))],
            ..Moved::default()
        },
    };
    let outbox = Outbox {
        run_id: home.run_id,
        epoch: home.epoch,
        entries: vec![odd.clone()],
        unreadable: Vec::new(),
    };
    let committed = world.ledger.commit(shard, &outbox).await.unwrap();
    assert!(matches!(committed, Committed::UpTo { entry, .. } if entry == odd.seq));
    let aside = world.admin().await.quarantined(shard, OutSeq(0)).await;
    let aside = aside.unwrap();
    assert_eq!((aside.len(), &aside[0].account), (1, &Some(nobody)));
}
