//! Usage records cannot be changed, deleted or truncated, whichever table one tries (rule 25).

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use tollgate::ledger::Ledger;

use super::world::World;
use tollgate::quota::ReservationId;

async fn fails(world: &World, statement: &str) -> String {
    let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(world.place.pool())
        .await;
    done.expect_err(statement).to_string()
}

#[tokio::test]
async fn rule_25_update_delete_and_truncate_raise_on_the_table_and_on_every_partition() {
    let world = World::new().await;
    let account = world.account(&[100]).await;
    let id = world.hold(&account, 10).await;
    world.settle(&account, id, 7).await;
    // An id from before any partition lies in the default one.
    let old = ReservationId(Uuid::from_u128(7));
    world.settle(&account, old, 3).await;
    assert_eq!(world.ledger.upkeep().await.unwrap(), 0);
    world.flush(&account).await;
    assert_eq!(world.ledger.upkeep().await.unwrap(), 1, "it has no month");

    let mut tables: Vec<String> = sqlx::query_scalar(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage_record'::regclass",
    )
    .fetch_all(world.place.pool())
    .await
    .unwrap();
    assert!(tables.len() > 3, "{tables:?}");
    tables.push("usage_record".to_owned());
    for table in tables {
        let truncated = fails(&world, &format!("TRUNCATE {table}")).await;
        assert!(truncated.contains("append-only"), "{truncated}");
    }
    for table in ["usage_record", "usage_record_default"] {
        let updated = fails(&world, &format!("UPDATE {table} SET charged_nanos = 0")).await;
        assert!(updated.contains("append-only"), "{updated}");
        let deleted = fails(&world, &format!("DELETE FROM {table}")).await;
        assert!(deleted.contains("append-only"), "{deleted}");
    }
    assert_eq!(world.records(&account).await.len(), 2);
}

#[tokio::test]
async fn one_id_is_recorded_once() {
    let world = World::new().await;
    let insert = "INSERT INTO usage_record (id, account_id, occurred_at, outcome, overrun, reserved_nanos, \
        charged_nanos, allocation) VALUES ('01a19999-0000-7000-8000-000000000001', 'a', now() + $interval$, \
        'settled', false, 0, 0, '{}')";
    let first = insert.replace("$interval$", "interval '0'");
    sqlx::raw_sql(AssertSqlSafe(first))
        .execute(world.place.pool())
        .await
        .unwrap();
    let later = insert.replace("$interval$", "interval '2 months'");
    let error = fails(&world, &later).await;
    assert!(error.contains("duplicate key"), "{error}");
}

#[tokio::test]
async fn partitions_are_made_again_and_again() {
    let world = World::new().await;
    let count = async || -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'usage_record'::regclass",
        )
        .fetch_one(world.place.pool())
        .await
        .unwrap()
    };
    let before = count().await;
    world.ledger.upkeep().await.unwrap();
    assert_eq!(count().await, before);
    let made: i32 = sqlx::query_scalar("SELECT usage_record_make_partitions(12)")
        .fetch_one(world.place.pool())
        .await
        .unwrap();
    assert_eq!(count().await, before + i64::from(made));
    assert_eq!(made, 9);
}
