//! Modes: held to its limits, watched, or left alone (rule 30).

use serde_json::json;

use crate::harness::account::{Account, chat};
use crate::harness::installation::{INPUT_NANOS, MODEL, OUTPUT_NANOS, installation, sidecar};
use crate::harness::upstream::{SCRIPT, Script, completion, json_answer, script};

const CHARGE: i64 = 9 * INPUT_NANOS + 3 * OUTPUT_NANOS;

fn served() -> Script {
    script([json_answer(200, &completion(MODEL, 9, 3))])
}

fn set_mode(account: &Account<'_>, mode: &str) {
    account
        .installation
        .run(&["account", "set", &account.id, "--mode", mode]);
}

#[tokio::test]
async fn rule_30_monitor_forwards_what_enforce_would_refuse_charges_it_and_says_so() {
    let installation = installation().await;
    let account = installation.account("0");
    set_mode(&account, "monitor");
    let script = served();
    let call = account.scripted_chat(sidecar().await, &script, &chat(5));
    for spent in [CHARGE, 2 * CHARGE] {
        let answer = call.clone().send().await.is(200);
        assert_eq!(
            answer.header("x-tollgate-would-refuse"),
            Some("insufficient_quota")
        );
        let records = account
            .until_records(usize::try_from(spent / CHARGE).unwrap())
            .await;
        let record = records.last().expect("a record");
        assert_eq!(record.charged, CHARGE);
        assert!(
            record.properties.to_string().contains("insufficient_quota"),
            "{record:?}"
        );
        assert_eq!(account.available(), -spent);
    }
    // From the next call on it is held to its balance.
    set_mode(&account, "enforce");
    call.clone().send().await.refused(402, "insufficient_quota");
    account.grant("1");
    let answer = call.send().await.is(200);
    assert_eq!(answer.header("x-tollgate-would-refuse"), None);
    account.until_records(3).await;
    installation.verify();
}

#[tokio::test]
async fn monitor_says_nothing_where_the_call_fits() {
    let account = installation().await.account("1");
    set_mode(&account, "monitor");
    let script = served();
    let call = account.scripted_chat(sidecar().await, &script, &chat(5));
    let answer = call.send().await.is(200);
    assert_eq!(answer.header("x-tollgate-would-refuse"), None);
    assert_eq!(account.until_record().await.charged, CHARGE);
}

#[tokio::test]
async fn monitor_watches_quotas_as_well() {
    let installation = installation().await;
    let plan = installation.plan(r#"{ resource = "requests", window = "month", limit = 1 }"#);
    let account = installation.account_on(&plan, "1");
    set_mode(&account, "monitor");
    let script = served();
    let call = account.scripted_chat(sidecar().await, &script, &chat(5));
    for refusal in [None, Some("rate_limit_exceeded")] {
        let answer = call.clone().send().await.is(200);
        assert_eq!(answer.header("x-tollgate-would-refuse"), refusal);
        account
            .until_records(1 + usize::from(refusal.is_some()))
            .await;
    }
    set_mode(&account, "enforce");
    let refused = call.send().await.refused(429, "rate_limit_exceeded");
    assert_eq!(
        refused.explanation()["violations"][0]["used"],
        2,
        "monitored calls count"
    );
    installation.verify();
}

#[tokio::test]
async fn off_meters_and_records_but_charges_nothing() {
    let installation = installation().await;
    let plan = installation.plan(r#"{ resource = "requests", window = "month", limit = 1 }"#);
    let account = installation.account_on(&plan, "0");
    set_mode(&account, "off");
    let script = served();
    for count in 1..=2 {
        let call = account.scripted_chat(sidecar().await, &script, &chat(5));
        let answer = call.send().await.is(200);
        assert_eq!(answer.header("x-tollgate-would-refuse"), None);
        let records = account.until_records(count).await;
        let record = records.last().expect("a record");
        assert_eq!((record.input_tokens, record.output_tokens), (9, 3));
        assert_eq!((record.charged, record.outcome.as_str()), (0, "settled"));
    }
    assert_eq!(account.available(), 0);
    installation.verify();
}

#[tokio::test]
async fn a_mode_still_wants_a_key_and_a_route_that_meters() {
    let account = installation().await.account("0");
    set_mode(&account, "off");
    let script = served();
    let files = account
        .get(sidecar().await, "/scripted/v1/files")
        .header(SCRIPT, &script.id);
    files.send().await.refused(403, "path_not_allowed");
    let url = format!("{}/scripted/v1/chat/completions", sidecar().await.proxy);
    let keyless = crate::harness::client::post(url, &json!({}));
    keyless.send().await.refused(401, "invalid_api_key");
}
