//! The double entry: every movement of credit is posted, to the nano, and no posting can be odd or changed.

use std::collections::BTreeMap;

use sqlx::AssertSqlSafe;
use tollgate::quota::AccountId;

use super::world::{DEADLINE_MS, World};

async fn kinds(world: &World, account: &AccountId) -> Vec<(String, i64)> {
    let kinds =
        "SELECT kind, count(*) FROM posting WHERE account_id = $1 GROUP BY kind ORDER BY kind";
    world.place.rows(kinds, account).await
}

fn books<const N: usize>(books: [(&str, i64); N]) -> BTreeMap<String, i64> {
    let named = books.into_iter();
    named
        .map(|(book, nanos)| (book.to_owned(), nanos))
        .collect()
}

async fn fails(world: &World, statement: &str) -> String {
    let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(world.place.pool())
        .await;
    done.expect_err(statement).to_string()
}

pub async fn the_usage_of_an_account_in_one_flush_is_one_posting_that_its_records_name(
    world: World,
) {
    let account = world.account(&[10, 100]).await;
    for charge in [7, 8, 0] {
        let id = world.hold(&account, 10).await;
        world.settle(&account, id, charge).await;
    }
    world.assert_one(&account).await;
    let id = world.hold(&account, 1).await;
    world.settle(&account, id, 1).await;
    world.assert_one(&account).await;
    assert_eq!(
        kinds(&world, &account).await,
        [("grant".into(), 2), ("usage".into(), 2)]
    );
    assert_eq!(
        world.posted(&account).await,
        books([("granted", -110), ("lot", 94), ("used", 16)])
    );
    let linked = "\
        SELECT charged_nanos, posting_id IS NOT NULL FROM usage_record WHERE account_id = $1 \
        ORDER BY posting_id IS NOT NULL, charged_nanos";
    let linked: Vec<(i64, bool)> = world.place.rows(linked, &account).await;
    assert_eq!(linked, [(0, false), (1, true), (7, true), (8, true)]);
}

pub async fn a_correction_and_a_repayment_are_postings_of_their_own(world: World) {
    let account = world.account(&[10]).await;
    let id = world.hold(&account, 10).await;
    world.pass_ms(DEADLINE_MS);
    world.lapse(&account, id).await;
    world.settle(&account, id, 25).await;
    world.assert_one(&account).await;
    world.grant(&account, 20).await;
    world.assert_one(&account).await;
    assert_eq!(
        kinds(&world, &account).await,
        [
            ("correction".into(), 1),
            ("grant".into(), 2),
            ("repayment".into(), 1),
            ("usage".into(), 1)
        ]
    );
    assert_eq!(
        world.posted(&account).await,
        books([("granted", -30), ("lot", 5), ("used", 25)]),
        "the debt is paid"
    );
}

#[tokio::test]
async fn the_schema_refuses_a_posting_that_does_not_sum_to_zero() {
    let world = World::new().await;
    let account = world.account(&[10]).await;
    let other = world.account(&[10]).await;
    let posting: uuid::Uuid = sqlx::query_scalar(
        "INSERT INTO posting (id, account_id, kind) VALUES (gen_random_uuid(), $1, 'grant') RETURNING id",
    )
    .bind(account.as_str())
    .fetch_one(world.place.pool())
    .await
    .unwrap();
    let enter = |account: &AccountId, entries: &[&str]| {
        let rows: Vec<String> = entries
            .iter()
            .map(|entry| format!("('{posting}', '{account}', {entry})"))
            .collect();
        format!(
            "INSERT INTO ledger_entry (posting_id, account_id, book, lot_id, amount_nanos) VALUES {}",
            rows.join(", ")
        )
    };
    for (entries, expected) in [
        (&["'debt', NULL, 5"][..], "not to zero"),
        (&["'debt', NULL, 5", "'used', NULL, -4"], "not to zero"),
        (&["'debt', NULL, 0"], "an_entry_moves_something"),
        (
            &["'debt', NULL, 5", "'debt', NULL, -5"],
            "a_posting_moves_each_book_once",
        ),
        (
            &["'lot', NULL, 5", "'used', NULL, -5"],
            "a_lot_is_named_where_the_book_is_one",
        ),
        (
            &["'cash', NULL, 5", "'used', NULL, -5"],
            "a_book_is_one_of_eight",
        ),
    ] {
        let error = fails(&world, &enter(&account, entries)).await;
        assert!(error.contains(expected), "{entries:?}: {error}");
    }
    let of_other = enter(&other, &["'debt', NULL, 5", "'used', NULL, -5"]);
    let error = fails(&world, &of_other).await;
    assert!(
        error.contains("an_entry_is_of_its_postings_account"),
        "{error}"
    );
}

#[tokio::test]
async fn nothing_that_was_posted_or_adjusted_can_be_changed() {
    let world = World::new().await;
    let account = world.account(&[10]).await;
    sqlx::query("INSERT INTO adjustment (id, account_id, credit_nanos, reason) VALUES (gen_random_uuid(), $1, 1, 'x')")
        .bind(account.as_str())
        .execute(world.place.pool())
        .await
        .unwrap();
    for table in ["posting", "ledger_entry", "adjustment"] {
        for statement in [
            format!("UPDATE {table} SET account_id = 'x'"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table} CASCADE"),
        ] {
            let error = fails(&world, &statement).await;
            assert!(error.contains("append-only"), "{statement}: {error}");
        }
    }
    world.assert_posted(&account).await;
}

#[tokio::test]
async fn a_record_that_charges_without_a_posting_is_refused() {
    let world = World::new().await;
    let insert = "INSERT INTO usage_record (id, account_id, occurred_at, outcome, overrun, reserved_nanos, \
        charged_nanos, allocation) VALUES (gen_random_uuid(), 'a', now(), 'settled', false, 0, 1, '{}')";
    let error = fails(&world, insert).await;
    assert!(error.contains("what_is_charged_is_posted"), "{error}");
}
