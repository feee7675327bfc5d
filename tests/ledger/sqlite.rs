//! The SQLite file: one writer at a time, append-only tables, and a file that cannot be written is away.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;
use tokio::time::timeout;
use tollgate::ledger::sqlite::file::{Durability, File, begin};
use tollgate::ledger::sqlite::journal::SqliteJournal;
use tollgate::ledger::sqlite::schema::{look_over, migrate};
use tollgate::ledger::{Committed, Ledger, LedgerError, SqliteLedger};
use tollgate::quota::embedded::{Group, GroupSeq, Journal, ShardSnapshot};
use tollgate::quota::{ShardId, Store};

use super::place::Place;
use super::world::World;
use crate::harness::postgres::SHARDS;

async fn migrated(durability: Durability) -> (TempDir, File) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tollgate.db");
    let file = File::create(&path, durability).await.unwrap();
    migrate(&file, Some(SHARDS)).await.unwrap();
    (folder, file)
}

fn file_of(world: &World) -> Arc<File> {
    match &world.place {
        Place::Sqlite { file, .. } => file.clone(),
        Place::Postgres { .. } => panic!("this test is of SQLite"),
    }
}

#[tokio::test]
async fn rule_17_many_may_migrate_at_once_and_the_number_of_shards_is_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tollgate.db");
    let file = Arc::new(File::create(&path, Durability::Process).await.unwrap());
    let unmigrated = SqliteLedger::over(file.clone()).await.err().unwrap();
    assert!(
        unmigrated.to_string().contains("tollgate migrate"),
        "{unmigrated}"
    );
    let other = File::create(&path, Durability::Process).await.unwrap();
    let migrations = [&*file, &other, &*file, &other].map(|file| migrate(file, Some(16)));
    let migrated = join_all(migrations).await;
    let first = *migrated[0].as_ref().unwrap();
    for other in migrated {
        assert_eq!(other.unwrap(), first);
    }
    assert_eq!(first.shards, 16);
    assert_eq!(migrate(&file, None).await.unwrap(), first);
    let changed = migrate(&file, Some(32)).await.unwrap_err();
    assert!(matches!(changed, LedgerError::Invalid(_)), "{changed}");
    assert_eq!(
        SqliteLedger::over(file).await.unwrap().installation(),
        first
    );
}

#[tokio::test]
async fn a_file_that_is_not_there_is_away_and_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tollgate.db");
    let opened = File::open(&path, Durability::Process).await;
    assert!(matches!(opened, Err(LedgerError::Away(_))));
    assert!(!path.exists());
}

#[tokio::test]
async fn whoever_writes_waits_for_its_turn_and_readers_do_not() {
    let world = World::in_a_file().await;
    let account = world.account(&[100]).await;
    let shard = world.shard(&account);
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 7).await;
    let outbox = world.store.outbox(shard, 10).await.unwrap();

    let file = file_of(&world);
    let mut turn = file.turn().await;
    let mut conn = turn.connection().await.unwrap();
    let mut tx = begin(&mut conn).await.unwrap();
    sqlx::query("UPDATE catalog SET version = 7")
        .execute(&mut *tx)
        .await
        .unwrap();
    let waits = timeout(
        Duration::from_millis(100),
        world.ledger.commit(shard, &outbox),
    );
    assert!(waits.await.is_err(), "the file is another's");
    assert_eq!(world.ledger.prices_version().await.unwrap(), 1);
    tx.commit().await.unwrap();
    turn.keep(conn);
    assert_eq!(world.ledger.prices_version().await.unwrap(), 7);
    let committed = world.ledger.commit(shard, &outbox).await.unwrap();
    assert!(matches!(committed, Committed::UpTo { .. }), "{committed:?}");
    world.assert_one(&account).await;
}

#[tokio::test]
async fn two_handles_of_one_file_wait_for_one_another_and_a_lock_kept_is_away() {
    let (folder, one) = migrated(Durability::Power).await;
    let path = folder.path().join("tollgate.db");
    let other = Arc::new(File::open(&path, Durability::Power).await.unwrap());
    let ledger = SqliteLedger::over(other).await.unwrap();
    let mut turn = one.turn().await;
    let mut conn = turn.connection().await.unwrap();
    let tx = begin(&mut conn).await.unwrap();
    let world = World::in_a_file().await;
    let outbox = world.store.outbox(ShardId(0), 1).await.unwrap();
    let locked = ledger.commit(ShardId(0), &outbox).await;
    assert!(matches!(locked, Err(LedgerError::Away(_))), "{locked:?}");
    tx.rollback().await.unwrap();
    let free = ledger.commit(ShardId(0), &outbox).await.unwrap();
    assert_eq!(free, Committed::OtherServer);
}

#[tokio::test]
async fn a_full_disk_is_away_and_puts_nothing_into_quarantine() {
    let world = World::in_a_file().await;
    let account = world.account(&[1_000_000]).await;
    let shard = world.shard(&account);
    for _ in 0..50 {
        let id = world.hold(&account, 10).await;
        world.settle(&account, id, 7).await;
    }
    let outbox = world.store.outbox(shard, 100).await.unwrap();
    let file = file_of(&world);
    // The file may not grow by a page: what SQLite says then is what it says of a full disk.
    let mut turn = file.turn().await;
    let mut conn = turn.connection().await.unwrap();
    sqlx::query("PRAGMA max_page_count = 1")
        .execute(&mut conn)
        .await
        .unwrap();
    turn.keep(conn);
    let full = world.ledger.commit(shard, &outbox).await;
    assert!(
        matches!(&full, Err(LedgerError::Away(reason)) if reason.contains("full")),
        "{full:?}"
    );
    // The connection was given up with its transaction, and the next one has room.
    let committed = world.ledger.commit(shard, &outbox).await.unwrap();
    assert!(matches!(committed, Committed::UpTo { .. }), "{committed:?}");
    let aside = "SELECT count(*) FROM quarantine WHERE account_id = $1";
    let aside: Vec<(i64,)> = world.place.rows(aside, &account).await;
    assert_eq!(aside, [(0,)]);
    world.assert_one(&account).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_away() {
    let world = World::in_a_file().await;
    let account = world.account(&[100]).await;
    let shard = world.shard(&account);
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 7).await;
    let outbox = world.store.outbox(shard, 10).await.unwrap();
    let file = file_of(&world);
    let mut turn = file.turn().await;
    let mut conn = turn.connection().await.unwrap();
    sqlx::query("PRAGMA query_only = ON")
        .execute(&mut conn)
        .await
        .unwrap();
    turn.keep(conn);
    let readonly = world.ledger.commit(shard, &outbox).await;
    assert!(
        matches!(&readonly, Err(LedgerError::Away(reason)) if reason.contains("readonly")),
        "{readonly:?}"
    );
    world.assert_one(&account).await;
}

#[tokio::test]
async fn an_odd_entry_is_put_aside_and_counts_in_loads_and_books() {
    let world = World::in_a_file().await;
    let odd = world.account(&[100]).await;
    let good = world.account_beside(&odd, &[100]).await;
    let shard = world.shard(&odd);
    for account in [&good, &odd, &good, &good] {
        let id = world.hold(account, 10).await;
        world.settle(account, id, 7).await;
    }
    let trigger = format!(
        "CREATE TRIGGER nothing_moves BEFORE UPDATE ON credit_grant WHEN NEW.account_id = '{odd}' \
         BEGIN SELECT RAISE(ABORT, 'it does not move'); END"
    );
    world.place.run(&trigger).await.unwrap();
    let outbox = world.store.outbox(shard, 10).await.unwrap();
    let last = outbox.entries.last().unwrap().seq;
    let committed = world.ledger.commit(shard, &outbox).await.unwrap();
    assert!(matches!(committed, Committed::UpTo { entry, .. } if entry == last));
    assert_eq!(world.records(&good).await.len(), 3);
    assert_eq!(world.records(&odd).await, []);
    let aside = "SELECT reason FROM quarantine WHERE account_id = $1 AND moved IS NOT NULL";
    let aside: Vec<(String,)> = world.place.rows(aside, &odd).await;
    assert_eq!(aside.len(), 1);
    assert!(aside[0].0.contains("it does not move"), "{aside:?}");
    world.place.run("DROP TRIGGER nothing_moves").await.unwrap();
    world.flush(&odd).await;
    world.assert_no_drift(&odd).await;
    let image = world.ledger.image(&odd).await.unwrap().unwrap();
    assert_eq!(image.lots[0].1.0, 93);
    world.assert_one(&good).await;
}

#[tokio::test]
async fn nothing_that_is_recorded_or_posted_can_be_changed() {
    let world = World::in_a_file().await;
    let account = world.account(&[100]).await;
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 7).await;
    world.flush(&account).await;
    for statement in [
        "UPDATE usage_record SET charged_nanos = 0",
        "DELETE FROM usage_record",
        "INSERT OR REPLACE INTO usage_record SELECT * FROM usage_record",
        "UPDATE posting SET kind = 'void'",
        "UPDATE posting SET closed = 0",
        "DELETE FROM posting",
        "INSERT OR REPLACE INTO posting (id, account_id, kind) SELECT id, account_id, kind FROM posting",
        "UPDATE ledger_entry SET amount_nanos = 1",
        "DELETE FROM ledger_entry",
        "INSERT INTO ledger_entry (posting_id, account_id, book, amount_nanos) \
         SELECT id, account_id, 'expired', 1 FROM posting",
    ] {
        let refused = world.place.run(statement).await.expect_err(statement);
        assert!(refused.contains("append-only"), "{statement}: {refused}");
    }
    world.assert_one(&account).await;
}

/// Closing one looks for the entries that point at it: among its own, not among all that its account ever had.
#[tokio::test]
async fn what_a_posting_costs_does_not_grow_with_its_account() {
    let world = World::in_a_file().await;
    let account = world.account(&[100]).await;
    let plan = "EXPLAIN QUERY PLAN UPDATE posting SET closed = 1 WHERE account_id = $1";
    let plan: Vec<(i64, i64, i64, String)> = world.place.rows(plan, &account).await;
    let mut of_entries = plan
        .iter()
        .map(|(.., step)| step)
        .filter(|step| step.contains("ledger_entry"))
        .peekable();
    assert!(of_entries.peek().is_some(), "{plan:?}");
    let by_posting = |step: &String| step.contains("(posting_id=? AND account_id=?");
    assert!(of_entries.all(by_posting), "{plan:?}");
}

#[tokio::test]
async fn a_flush_takes_more_than_one_statement_has_room_for() {
    let world = World::in_a_file().await;
    let account = world.account(&[1_000]).await;
    for calls in [5, 300] {
        for _ in 0..calls {
            let id = world.hold(&account, 1).await;
            world.settle(&account, id, 1).await;
        }
        assert_eq!(world.flush(&account).await, calls);
        world.assert_one(&account).await;
    }
    assert_eq!(world.records(&account).await.len(), 305);
}

#[tokio::test]
async fn a_posting_that_is_odd_or_left_open_is_refused() {
    let world = World::in_a_file().await;
    let post = "INSERT INTO posting (id, account_id, kind) VALUES (zeroblob(16), 'a', 'void')";
    let enter = "INSERT INTO ledger_entry (posting_id, account_id, book, amount_nanos) VALUES \
        (zeroblob(16), 'a', 'voided', 5), (zeroblob(16), 'a', 'debt', ";
    let close = "UPDATE posting SET closed = 1";
    let odd = format!("BEGIN; {post}; {enter} -4); {close}; COMMIT");
    let refused = world.place.run(&odd).await.unwrap_err();
    assert!(refused.contains("does not sum to zero"), "{refused}");
    world.place.run("ROLLBACK").await.unwrap();
    let open = format!("BEGIN; {post}; {enter} -5); COMMIT");
    let refused = world.place.run(&open).await.unwrap_err();
    assert!(refused.contains("FOREIGN KEY"), "{refused}");
    world.place.run("ROLLBACK").await.unwrap();
    let whole = format!("BEGIN; {post}; {enter} -5); {close}; COMMIT");
    world.place.run(&whole).await.unwrap();
}

#[tokio::test]
async fn a_journal_gives_back_what_it_was_given_in_its_order() {
    let (folder, file) = migrated(Durability::Power).await;
    let file = Arc::new(file);
    let journal = SqliteJournal::new(file.clone());
    let group = |seq: i64| Group {
        seq: GroupSeq(seq),
        body: format!("\0group {seq}").into_bytes(),
    };
    for seq in 1..=600 {
        journal.commit(group(seq)).await.unwrap();
    }
    assert!(
        journal.commit(group(600)).await.is_err(),
        "a number is given once"
    );
    let groups = journal.groups(GroupSeq(597), 2).await.unwrap();
    assert_eq!(groups, [group(598), group(599)]);

    let snapshot = |after: i64| ShardSnapshot {
        shard: ShardId(3),
        after: GroupSeq(after),
        body: vec![0, 1, 255],
    };
    journal.keep(snapshot(10)).await.unwrap();
    journal.keep(snapshot(599)).await.unwrap();
    journal.prune(GroupSeq(599)).await.unwrap();

    drop(journal);
    Arc::into_inner(file).unwrap().close().await.unwrap();
    let path = folder.path().join("tollgate.db");
    let file = File::open(&path, Durability::Power).await.unwrap();
    look_over(&mut file.reader().await.unwrap()).await.unwrap();
    let journal = SqliteJournal::new(Arc::new(file));
    assert_eq!(journal.snapshots().await.unwrap(), [snapshot(599)]);
    let groups = journal.groups(GroupSeq(0), 10).await.unwrap();
    assert_eq!(groups, [group(600)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_made_while_the_file_is_written() {
    let (folder, file) = migrated(Durability::Process).await;
    let journal = SqliteJournal::new(Arc::new(file));
    let group = |seq: i64| Group {
        seq: GroupSeq(seq),
        body: vec![0; 20_000],
    };
    for seq in 1..=500 {
        journal.commit(group(seq)).await.unwrap();
    }
    let writing = tokio::spawn(async move {
        for seq in 501.. {
            journal.commit(group(seq)).await.unwrap();
        }
    });
    let path = folder.path().join("copy.db");
    let options = SqliteConnectOptions::new().filename(folder.path().join("tollgate.db"));
    let mut other = options.connect().await.unwrap();
    let copy = sqlx::query("VACUUM INTO ?1").bind(path.to_str().unwrap());
    let copied = timeout(Duration::from_secs(20), copy.execute(&mut other)).await;
    copied.expect("it ends").unwrap();
    writing.abort();

    let copy = File::open(&path, Durability::Process).await.unwrap();
    look_over(&mut copy.reader().await.unwrap()).await.unwrap();
    let groups = SqliteJournal::new(Arc::new(copy))
        .groups(GroupSeq(0), 100_000)
        .await
        .unwrap();
    assert!(groups.len() >= 500);
    assert!((1..).zip(&groups).all(|(seq, group)| group.seq.0 == seq));
}

#[tokio::test]
async fn a_journal_refuses_what_its_snapshots_or_its_last_group_have_passed() {
    let (_folder, file) = migrated(Durability::Power).await;
    let journal = SqliteJournal::new(Arc::new(file));
    let group = |seq: i64| Group {
        seq: GroupSeq(seq),
        body: vec![0],
    };
    let snapshot = ShardSnapshot {
        shard: ShardId(3),
        after: GroupSeq(5),
        body: vec![0],
    };
    journal.keep(snapshot).await.unwrap();
    // A store that is opened would pass over these: they would be lost.
    for passed in [4, 5] {
        assert!(journal.commit(group(passed)).await.is_err(), "{passed}");
    }
    journal.commit(group(6)).await.unwrap();
    journal.commit(group(8)).await.unwrap();
    for passed in [6, 7, 8] {
        assert!(journal.commit(group(passed)).await.is_err(), "{passed}");
    }
    let groups = journal.groups(GroupSeq(0), 10).await.unwrap();
    assert_eq!(groups, [group(6), group(8)]);
}
