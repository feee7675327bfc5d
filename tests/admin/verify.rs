//! `verify` and `flush`: store and ledger add up, whatever is on its way, and what does not is named.

use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use tollgate::quota::Store;

use super::Installation;
use super::customer::Customer;

#[tokio::test]
async fn what_is_held_and_what_is_not_flushed_is_no_drift() {
    let customer = Customer::new().await;
    let place = &customer.place;
    let first = customer.hold(100).await;
    customer.hold(70).await;
    assert!(place.says(&["verify"]).contains("1 account, no drift"));
    customer.settle(&first, 60).await;
    assert_eq!(place.values(&["verify"]), Vec::<Value>::new());

    let shown = place.value(&["account", "show", customer.id.as_str()]);
    assert_eq!(shown["available_nanos"], 1_000_000_000 - 60 - 70);
    assert_eq!(shown["held_nanos"], 70);
    let limit = &shown["limits"][0];
    assert_eq!(
        (&limit["used"], &limit["held"], &limit["left"]),
        (&60.into(), &70.into(), &999_870.into())
    );
    assert!(limit["resets_at"].is_string());

    assert_eq!(place.value(&["flush"])["flushed"], 1);
    assert_eq!(place.value(&["flush"])["flushed"], 0);
    assert_eq!(place.values(&["verify"]), Vec::<Value>::new());
    let mut sql = place.sql().await;
    let charged: i64 =
        sqlx::query_scalar("SELECT charged_nanos FROM usage_record WHERE account_id = $1")
            .bind(customer.id.as_str())
            .fetch_one(&mut sql)
            .await
            .unwrap();
    assert_eq!(charged, 60);
}

#[tokio::test]
async fn debt_that_a_grant_pays_is_no_drift() {
    let customer = Customer::new().await;
    let (place, id) = (&customer.place, customer.id.as_str());
    let all = customer.hold(500).await;
    customer.settle(&all, 1_000_000_300).await;
    let shown = place.value(&["account", "show", id]);
    assert_eq!(shown["debt_nanos"], 300);
    assert_eq!(shown["available_nanos"], -300);
    place.says(&["verify"]);

    place.says(&["grant", id, "0.000001"]);
    for _ in 0..2 {
        let shown = place.value(&["account", "show", id]);
        assert_eq!(shown["debt_nanos"], 0, "new credit pays debt first");
        assert_eq!(shown["available_nanos"], 700);
        place.says(&["verify"]);
        place.says(&["flush"]);
    }
    assert_eq!(place.number("SELECT debt_nanos FROM account").await, 0);
}

#[tokio::test]
async fn it_finds_nothing_while_calls_grants_and_flushes_go_on() {
    let customer = Arc::new(Customer::new().await);
    let operator = customer.clone();
    let commands = tokio::task::spawn_blocking(move || {
        let (place, id) = (&operator.place, operator.id.as_str());
        for round in 0..2 {
            place.says(&["grant", id, "1", "--source-ref", &format!("round-{round}")]);
            place.says(&["verify"]);
            place.says(&["flush"]);
            place.says(&["verify"]);
        }
    });
    let mut calls = 0;
    while !commands.is_finished() {
        let hold = customer.hold(3).await;
        customer.settle(&hold, calls % 2).await;
        calls += 1;
    }
    commands.await.unwrap();
    customer.place.says(&["flush"]);
    customer.place.says(&["verify"]);
    let records = "SELECT count(*) FROM usage_record";
    assert_eq!(customer.place.number(records).await, calls);
}

#[tokio::test]
async fn a_tampered_lot_is_named_to_the_nano() {
    let customer = Customer::new().await;
    let used = customer.hold(100).await;
    customer.settle(&used, 40).await;
    customer.tamper("state[9] = state[9] + 1");
    let drifts = customer.drifts();
    assert_eq!(drifts.len(), 1, "{drifts:?}");
    assert_eq!(drifts[0]["what"], "lot");
    assert!(drifts[0]["lot"].is_i64());
    assert_eq!(drifts[0]["ledger"], 1_000_000_000);
    assert_eq!(drifts[0]["unflushed"], -40);
    assert_eq!(drifts[0]["expected"], 1_000_000_000 - 40);
    assert_eq!(drifts[0]["found"], 1_000_000_000 - 39);
    let said = customer.place.run(&["verify"]);
    assert!(
        said.stdout.contains("expected 999999960, found 999999961"),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_tampered_hold_debt_or_counter_is_named() {
    let customer = Customer::new().await;
    customer.hold(100).await;
    let what = |line: &str| {
        customer.tamper(line);
        let drifts = customer.drifts();
        let named: Vec<String> = drifts
            .iter()
            .map(|drift| drift["what"].as_str().unwrap().to_owned())
            .collect();
        named
    };
    assert_eq!(what("state[10] = state[10] - 5"), ["lot", "held_of_lot"]);
    assert_eq!(what("state[10] = state[10] + 5 state[5] = 3"), ["debt"]);
    assert_eq!(
        what("state[5] = 0 for at = state[7], #state, 4 do state[at + 2] = 9 end"),
        ["counter"]
    );
    assert_eq!(
        what("for at = state[7], #state, 4 do state[at + 2] = 0 state[at + 3] = 9 end"),
        ["held_of_counter"]
    );
    customer.tamper("for at = state[7], #state, 4 do state[at + 3] = 100 end");
    customer.place.says(&["verify"]);
}

#[tokio::test]
async fn a_balance_that_was_changed_behind_everybodys_back_is_a_drift() {
    let customer = Customer::new().await;
    let used = customer.hold(100).await;
    customer.settle(&used, 40).await;
    customer.place.says(&["flush"]);
    let mut sql = customer.place.sql().await;
    let more = "UPDATE credit_grant SET balance_nanos = balance_nanos + 1 WHERE account_id = $1";
    sqlx::query(more)
        .bind(customer.id.as_str())
        .execute(&mut sql)
        .await
        .unwrap();
    let drifts = customer.drifts();
    let named: Vec<&str> = drifts
        .iter()
        .filter_map(|drift| drift["what"].as_str())
        .collect();
    assert_eq!(named, ["entries_of_lot", "lot"]);
}

#[tokio::test]
async fn a_change_that_only_waits_for_the_store_is_no_finding() {
    let customer = Customer::new().await;
    let (place, id) = (&customer.place, customer.id.as_str());
    let away = Installation::over(place.database.clone(), "redis://127.0.0.1:1".into());
    assert_eq!(away.value(&["grant", id, "1"])["pending"], true);
    let verify = place
        .command(&["verify"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    place.says(&["flush"]);
    let verified = verify.wait_with_output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
    place.says(&["verify"]);
}

#[tokio::test]
async fn a_change_that_stops_the_applier_is_named() {
    let customer = Customer::new().await;
    let mut sql = customer.place.sql().await;
    let change = "WITH next AS (
            UPDATE shard SET last_change = last_change + 1
            WHERE id = (SELECT shard FROM account WHERE id = $1) RETURNING id, last_change
        )
        INSERT INTO store_change (shard, seq, account_id, body)
        SELECT id, last_change, $1, '{\"moved\": \"nonsense\"}' FROM next";
    let change = sqlx::query(change).bind(customer.id.as_str());
    change.execute(&mut sql).await.unwrap();
    let ran = customer.place.run(&["verify", "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let shard = customer.id.shard(customer.store.shards());
    let named = ran.values();
    assert_eq!(named[0]["what"], "applier", "{named:?}");
    assert_eq!(named[0]["shard"], shard.0);
}
