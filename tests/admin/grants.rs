//! `grant`: once for each reason, within bounds, and in the store before the command exits.

use tollgate::quota::MAX_LOTS;

use super::{Installation, some_account};
use crate::harness::postgres::database;
use crate::harness::redis::Server;

#[tokio::test]
async fn the_same_reason_grants_once() {
    let place = Installation::new().await;
    let id = some_account();
    let id = id.as_str();
    place.says(&["account", "create", id]);
    let words = ["grant", id, "2.5", "--source-ref", "invoice-17"];
    let first = place.value(&words);
    assert_eq!(
        (&first["already"], &first["pending"]),
        (&false.into(), &false.into())
    );
    let second = place.value(&words);
    assert_eq!(second["already"], true);
    assert_eq!(second["lot"], first["lot"]);
    let other = place.run(&["grant", id, "3", "--source-ref", "invoice-17"]);
    assert_eq!(
        other.code, 2,
        "another amount for the same reason: {other:?}"
    );

    let shown = place.value(&["account", "show", id]);
    assert_eq!(shown["available_nanos"], 2_500_000_000_i64);
    assert_eq!(shown["lots"].as_array().unwrap().len(), 1);
    place.says(&["grant", id, "1"]);
    place.says(&["grant", id, "1"]);
    let shown = place.value(&["account", "show", id]);
    assert_eq!(
        shown["available_nanos"], 4_500_000_000_i64,
        "without a reason each is one"
    );
    place.says(&["verify"]);
}

#[tokio::test]
async fn lots_are_in_the_order_they_are_drawn() {
    let place = Installation::new().await;
    let id = some_account();
    let id = id.as_str();
    place.says(&["account", "create", id]);
    let grant = |words: &[&str]| place.value(&[&["grant", id, "1"], words].concat())["lot"].clone();
    let last = grant(&["--priority", "5"]);
    let middle = grant(&[]);
    let early = grant(&["--expires", "2098-01-31T00:00:00Z"]);
    let first = grant(&["--priority", "-1"]);
    let shown = place.value(&["account", "show", id]);
    let order: Vec<_> = shown["lots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lot| lot["lot"].clone())
        .collect();
    assert_eq!(order, [first, early, middle, last]);
    assert_eq!(shown["lots"][1]["expires_at"], "2098-01-31T00:00:00Z");
}

#[tokio::test]
async fn a_grant_out_of_bounds_is_refused_before_anything_is_written() {
    let place = Installation::new().await;
    let id = some_account();
    place.says(&["account", "create", id.as_str()]);
    for words in [
        &["0"][..],
        &["-1"],
        &["9000000.000000001"],
        &["0.0000000001"],
        &["many"],
        &["1", "--expires", "2001-01-01T00:00:00Z"],
        &["1", "--expires", "2098-01-01T00:00:00.0001Z"],
        &["1", "--source-ref", ""],
    ] {
        let ran = place.run(&[&["grant", id.as_str()], words].concat());
        assert_eq!(ran.code, 2, "{words:?}: {ran:?}");
    }
    let mut sql = place.sql().await;
    let fill = "INSERT INTO credit_grant (account_id, amount_nanos, balance_nanos, kind, source) \
                SELECT $1, 1, 1, 'paid', 'test' FROM generate_series(1, $2)";
    sqlx::query(fill)
        .bind(id.as_str())
        .bind(i32::try_from(MAX_LOTS).unwrap())
        .execute(&mut sql)
        .await
        .unwrap();
    let ran = place.run(&["grant", id.as_str(), "1"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("256 lots"), "{ran:?}");
    let changes = place.number("SELECT count(*) FROM store_change").await;
    assert_eq!(changes, 0);
}

#[tokio::test]
async fn a_grant_is_pending_while_the_store_is_away_and_arrives_when_it_is_back() {
    let mut redis = Server::start();
    let place = Installation::over(database().await, redis.url());
    let id = some_account();
    let id = id.as_str();
    place.says(&["account", "create", id]);
    redis.kill();
    let pending = place.value(&["grant", id, "7", "--source-ref", "outage"]);
    assert_eq!(pending["pending"], true);
    assert!(place.says(&["grant", id, "1"]).contains("pending"));

    let shown = place.run(&["account", "show", id, "--json"]);
    assert_eq!(shown.code, 3, "{shown:?}");
    let value = shown.values().remove(0);
    assert_eq!(value["live"], false);
    assert_eq!(
        value["available_nanos"], 8_000_000_000_i64,
        "the ledger knows it"
    );
    assert!(value["held_nanos"].is_null(), "nothing is known of holds");
    assert!(shown.stderr.contains("store"), "{shown:?}");

    redis.restart();
    let shown = place.value(&["account", "show", id]);
    assert_eq!(shown["live"], true);
    assert_eq!(shown["available_nanos"], 8_000_000_000_i64);
    place.says(&["verify"]);
}
