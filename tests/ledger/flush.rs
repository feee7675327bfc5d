//! The outbox reaches the ledger exactly once, whoever carries it and wherever they die (rule 19).

use tollgate::ledger::{Committed, Flushed, Ledger};
use tollgate::money::{MAX_AMOUNT, MAX_DEBT};
use tollgate::quota::{ReservationId, RunId, Store};

use super::world::World;

/// More calls than it takes to owe all that an account may.
const FLOOD: usize = 500;

pub async fn an_ending_becomes_one_record_and_moves_the_ledger(world: World) {
    let account = world.account(&[100]).await;
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 7).await;
    assert_eq!(world.flush(&account).await, 1);
    assert_eq!(world.flush(&account).await, 0);
    assert_eq!(world.records(&account).await, [("settled".into(), 7, 7)]);
    assert_eq!(world.balance(&account).await, 93);
    world.assert_one(&account).await;
}

pub async fn a_flusher_that_dies_before_it_forgets_is_repeated_harmlessly(world: World) {
    let account = world.account(&[100]).await;
    let shard = world.shard(&account);
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 7).await;
    let outbox = world.store.outbox(shard, 10).await.unwrap();
    for _ in 0..3 {
        let committed = world.ledger.commit(shard, &outbox).await.unwrap();
        let entry = outbox.entries.last().unwrap().seq;
        let changed = false;
        assert_eq!(committed, Committed::UpTo { entry, changed });
    }
    let second = world.hold(&account, 10).await;
    world.settle(&account, second, 10).await;
    assert_eq!(world.flush(&account).await, 2, "the first is still there");
    assert_eq!(world.records(&account).await.len(), 2);
    world.assert_one(&account).await;
}

pub async fn more_of_the_largest_endings_than_a_balance_can_hold_are_all_recorded(world: World) {
    let account = world.account(&[100]).await;
    for _ in 0..FLOOD {
        world
            .settle(&account, ReservationId::new(), MAX_AMOUNT)
            .await;
    }
    world.assert_one(&account).await;
    let records = world.records(&account).await;
    assert_eq!(records.len(), FLOOD);
    let charged = records.iter().map(|(_, charged, _)| charged).sum::<i64>();
    assert_eq!(charged, MAX_DEBT + 100);
    let noted = "SELECT properties FROM usage_record WHERE account_id = $1";
    let noted: Vec<(serde_json::Value,)> = world.place.rows(noted, &account).await;
    let cut = noted.iter().filter(|(noted,)| noted["cut"].is_object());
    assert!(cut.count() > FLOOD / 2, "what is not charged is said");
    let aside = "SELECT seq FROM quarantine";
    let aside: Vec<(i64,)> = world.place.all_rows(aside).await;
    assert_eq!(aside, []);
}

#[tokio::test]
async fn a_shard_that_another_flushes_is_passed_by() {
    let world = World::new().await;
    let account = world.account(&[100]).await;
    let shard = world.shard(&account);
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 7).await;
    let mut other = world.place.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM shard WHERE id = $1 FOR UPDATE")
        .bind(i16::try_from(shard.0).unwrap())
        .execute(&mut *other)
        .await
        .unwrap();
    assert_eq!(world.flusher.flush(shard).await.unwrap(), Flushed::Busy);
    assert!(world.records(&account).await.is_empty());
    other.rollback().await.unwrap();
    assert_eq!(world.flush(&account).await, 1);
    world.assert_one(&account).await;
}

pub async fn what_was_read_from_another_server_is_not_committed(world: World) {
    let account = world.account(&[100]).await;
    let shard = world.shard(&account);
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 7).await;
    let mut outbox = world.store.outbox(shard, 10).await.unwrap();
    outbox.run_id = RunId("a replica that was promoted".into());
    let committed = world.ledger.commit(shard, &outbox).await.unwrap();
    assert_eq!(committed, Committed::OtherServer);
    assert!(world.records(&account).await.is_empty());

    // The row names another server than the store: the flusher has the shard checked, and then goes on.
    let gone = "UPDATE shard SET run_id = 'gone'";
    world.place.run(gone).await.unwrap();
    world.flusher.mark(shard);
    assert!(!world.flusher.flush_dirty().await);
    assert!(world.keeper.round().await);
    assert!(world.flusher.flush_dirty().await, "it stayed marked");
    assert_eq!(world.records(&account).await.len(), 1);
    world.loader.load(&account).await.unwrap();
    world.assert_one(&account).await;
}

pub async fn an_unreadable_detail_stops_nothing_and_is_recorded_as_that(world: World) {
    let account = world.account(&[100]).await;
    let shard = world.shard(&account);
    for id in 0..3 {
        let id_of = world.hold(&account, 10).await;
        world.settle(&account, id_of, 5 + id).await;
    }
    let mut outbox = world.store.outbox(shard, 10).await.unwrap();
    let details = [
        "\0".to_owned(),
        r#"{"model":"a\u0000b","usage":{"text":"\u0000\ud800"}}"#.to_owned(),
        format!(r#"{{"usage":{}{}}}"#, "[".repeat(6000), "]".repeat(6000)),
    ];
    for (entry, detail) in outbox.entries.iter_mut().zip(details) {
        if let tollgate::quota::EntryKind::Ended(ended) = &mut entry.kind {
            ended.detail = detail.into();
        }
    }
    world.ledger.commit(shard, &outbox).await.unwrap();
    let recorded = "\
        SELECT model, CAST(usage AS text), CAST(properties AS text) FROM usage_record \
        WHERE account_id = $1 ORDER BY charged_nanos";
    let properties: Vec<(String, Option<String>, String)> =
        world.place.rows(recorded, &account).await;
    assert!(
        properties[0].2.contains("detail_unreadable"),
        "{properties:?}"
    );
    assert_eq!(properties[1].0, "a\u{fffd}b");
    assert_eq!(
        properties[1].1.as_deref(),
        Some(r#"{"text":"\u0000\ud800"}"#)
    );
    assert!(
        properties[2].2.contains("usage_too_deep_bytes"),
        "{properties:?}"
    );
    world.assert_one(&account).await;
}

pub async fn flushers_grants_and_checks_at_once_neither_deadlock_nor_lose_anything(world: World) {
    let mut accounts = Vec::new();
    for _ in 0..6 {
        accounts.push(world.account(&[1_000_000]).await);
    }
    let neighbours = [world.neighbour().await, world.neighbour().await];
    let endings = async {
        for _ in 0..40 {
            for account in &accounts {
                let id = world.hold(account, 10).await;
                world.settle(account, id, 12).await;
                world.flusher.mark(world.shard(account));
                neighbours[0].flusher.mark(world.shard(account));
            }
            tokio::task::yield_now().await;
        }
    };
    let flushes = async |of: &World| {
        for _ in 0..60 {
            of.flusher.flush_dirty().await;
            assert_eq!(of.flusher.away(), None);
        }
    };
    let grants = async {
        for _ in 0..10 {
            for account in &accounts {
                world.grant(account, 5).await;
            }
        }
    };
    let checks = async {
        for _ in 0..20 {
            for account in &accounts {
                assert!(neighbours[1].keeper.check(world.shard(account)).await);
            }
        }
    };
    tokio::join!(
        endings,
        flushes(&world),
        flushes(&neighbours[0]),
        grants,
        checks
    );
    for account in &accounts {
        world.assert_one(account).await;
        assert_eq!(world.records(account).await.len(), 40);
        assert_eq!(world.balance(account).await, 1_000_000 + 10 * 5 - 40 * 12);
    }
}
