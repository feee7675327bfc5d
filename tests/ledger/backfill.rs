//! The double entry of what happened before it was kept: the migration posts it in sums, and they add up.

use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection, PgPool};
use tollgate::ledger::postgres::schema::{MIGRATIONS, migrate};

use crate::harness::postgres::empty_database;

/// The last migration before the double entry.
const BEFORE: i64 = 6;

// 100 granted and 60 used; a second lot untouched; 7 owed beside. An account that used nothing; one that owes less than
// nothing; one whose debt a later grant has paid; one with nothing at all.
const WHAT_WAS: &str = "
    INSERT INTO installation (id, shards) VALUES (gen_random_uuid(), 1);
    INSERT INTO shard (id, epoch, run_id, flushed_seq) VALUES (0, 1, 'one', 9);
    INSERT INTO account (id, shard, debt_nanos) VALUES
        ('acme', 0, 7), ('new', 0, 0), ('given', 0, -3), ('repaid', 0, 0), ('empty', 0, 0);
    INSERT INTO credit_grant (account_id, amount_nanos, balance_nanos, kind, source) VALUES
        ('acme', 100, 40, 'paid', 'test'), ('acme', 5, 5, 'plan', 'test'), ('new', 9, 9, 'paid', 'test'),
        ('given', 10, 0, 'promotional', 'test'), ('repaid', 10, 0, 'paid', 'test'), ('repaid', 20, 5, 'paid', 'test');
    INSERT INTO usage_record (id, account_id, occurred_at, outcome, overrun, reserved_nanos, charged_nanos, corrects,
        allocation) VALUES
        (gen_random_uuid(), 'acme', now(), 'settled', false, 60, 60, NULL, '{}'),
        (gen_random_uuid(), 'acme', now(), 'lapsed', true, 5, 9, NULL, '{}'),
        (gen_random_uuid(), 'acme', now(), 'correction', true, 5, -2, gen_random_uuid(), '{}'),
        (gen_random_uuid(), 'acme', now(), 'released', false, 5, 0, NULL, '{}'),
        (gen_random_uuid(), 'given', now(), 'settled', false, 7, 7, NULL, '{}'),
        (gen_random_uuid(), 'repaid', now(), 'settled', true, 10, 25, NULL, '{}');";

// What is said of an account, and what its postings come to.
const DRIFTS: &str = "
    SELECT 'lot ' || id FROM credit_grant WHERE balance_nanos <>
        (SELECT sum(amount_nanos) FROM ledger_entry WHERE book = 'lot' AND lot_id = id)
    UNION ALL
    SELECT 'granted ' || account.id FROM account WHERE
        (SELECT coalesce(sum(amount_nanos), 0) FROM credit_grant WHERE account_id = account.id) <>
        (SELECT coalesce(-sum(amount_nanos), 0) FROM ledger_entry WHERE account_id = account.id AND book = 'granted')
    UNION ALL
    SELECT 'debt ' || account.id FROM account WHERE -debt_nanos <>
        (SELECT coalesce(sum(amount_nanos), 0) FROM ledger_entry WHERE account_id = account.id AND book = 'debt')
    UNION ALL
    SELECT 'used ' || account.id FROM account WHERE
        (SELECT coalesce(sum(charged_nanos), 0) FROM usage_record
            WHERE account_id = account.id AND posting_id IS NULL) <>
        (SELECT coalesce(sum(amount_nanos), 0) FROM ledger_entry WHERE account_id = account.id AND book = 'used')
    UNION ALL
    SELECT 'posting ' || posting_id FROM ledger_entry GROUP BY posting_id HAVING sum(amount_nanos) <> 0";

#[tokio::test]
async fn a_database_with_data_is_posted_in_sums_that_add_up() {
    let url = empty_database("with_data_from_before").await;
    let mut conn = PgConnection::connect(&url).await.unwrap();
    let earlier = MIGRATIONS.iter().filter(|known| known.version <= BEFORE);
    let earlier = Migrator::with_migrations(earlier.cloned().collect());
    earlier.run(&mut conn).await.unwrap();
    sqlx::raw_sql(WHAT_WAS).execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();

    migrate(&url, None).await.unwrap();
    let pool = PgPool::connect(&url).await.unwrap();
    let drifts: Vec<String> = sqlx::query_scalar(DRIFTS).fetch_all(&pool).await.unwrap();
    assert!(drifts.is_empty(), "{drifts:?}");
    let postings: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT account_id, kind, count(*) FROM posting GROUP BY account_id, kind ORDER BY account_id, kind",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let posted = |account: &str, kind: &str, count| (account.to_owned(), kind.to_owned(), count);
    assert_eq!(
        postings,
        [
            posted("acme", "grant", 2),
            posted("acme", "usage", 1),
            posted("given", "grant", 1),
            posted("given", "usage", 1),
            posted("new", "grant", 1),
            posted("repaid", "grant", 2),
            posted("repaid", "usage", 1),
        ]
    );
    let used: Vec<(String, i64)> = sqlx::query_as(
        "SELECT account_id, amount_nanos FROM ledger_entry WHERE book = 'used' ORDER BY account_id",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(
        used,
        [
            ("acme".into(), 67),
            ("given".into(), 7),
            ("repaid".into(), 25)
        ]
    );
    migrate(&url, None).await.expect("it may run again");
}
