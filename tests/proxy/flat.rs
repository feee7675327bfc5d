//! Routes that read nothing of a call: one that charges each the same, and one that charges nothing.

use serde_json::json;

use crate::harness::account::{Account, credits};
use crate::harness::client::{Call, Client};
use crate::harness::installation::{FLAT_NANOS, installation, sidecar};
use crate::harness::upstream::{
    Act, Gate, SCRIPT, Script, answer, chunk, json_answer, last_chunk, script, send,
};

async fn search(account: &Account<'_>, script: &Script) -> Call {
    account
        .get(sidecar().await, "/flat/search?q=x")
        .header(SCRIPT, &script.id)
}

#[tokio::test]
async fn each_call_on_a_flat_route_is_charged_the_same_and_counted() {
    let installation = installation().await;
    let plan = installation.plan(
        r#"{ resource = "tool_calls", window = "month", limit = 2 },
           { resource = "requests", window = "overall", limit = 10 }"#,
    );
    let account = installation.account_on(&plan, "1");
    let script = script([answer(200, &[("content-type", "text/plain")], b"whatever")]);
    for left in [1, 0] {
        let answer = search(&account, &script).await.send().await.is(200);
        assert_eq!(answer.text(), "whatever");
        assert_eq!(
            answer.header("x-tollgate-charge"),
            Some(credits(FLAT_NANOS).as_str())
        );
        assert!(answer.header("x-tollgate-reservation").is_some());
        let limits = answer.header("ratelimit").expect("limits");
        assert!(limits.contains(&format!("r={left};t=")), "{limits}");
        account.until_records(if left == 1 { 1 } else { 2 }).await;
    }
    let refused = search(&account, &script)
        .await
        .send()
        .await
        .refused(429, "rate_limit_exceeded");
    let violation = &refused.json()["violations"][0];
    assert_eq!(violation["resource"], "tool_calls");
    assert_eq!(
        (&violation["limit"], &violation["used"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(script.arrived()[0].line, "GET /search?q=x HTTP/1.1");
    assert_eq!(account.available(), 1_000_000_000 - 2 * FLAT_NANOS);
    for record in account.records().await {
        assert_eq!((record.charged, record.reserved), (FLAT_NANOS, FLAT_NANOS));
        assert_eq!(record.route, "/flat");
        assert!(!record.overrun);
    }
    installation.verify();
}

#[tokio::test]
async fn any_method_and_any_body_pass_whole() {
    let account = installation().await.account("1");
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let script = script([answer(
        201,
        &[("content-type", "application/octet-stream")],
        &bytes,
    )]);
    for method in [http::Method::PUT, http::Method::DELETE, http::Method::PATCH] {
        let url = format!("{}/flat/x", sidecar().await.proxy);
        let call = Call::new(method.clone(), url)
            .key(&account.key)
            .header(SCRIPT, &script.id);
        let answer = call.body(bytes.clone()).send().await.is(201);
        assert_eq!(answer.body, bytes, "{method}");
    }
    for request in script.arrived() {
        assert_eq!(request.body, bytes);
    }
    account.until_records(3).await;
}

#[tokio::test]
async fn a_flat_call_that_its_upstream_refuses_costs_nothing() {
    let account = installation().await.account("1");
    for status in [400, 404, 429, 500, 503] {
        let script = script([json_answer(status, &json!({"status": status}))]);
        let answer = search(&account, &script).await.send().await.is(status);
        assert_eq!(answer.json()["status"], status);
    }
    let records = account.until_records(5).await;
    assert!(
        records
            .iter()
            .all(|record| record.charged == 0 && record.outcome == "released")
    );
    assert_eq!(account.available(), 1_000_000_000);
}

#[tokio::test]
async fn a_flat_call_whose_caller_hangs_up_is_charged() {
    let account = installation().await.account("1");
    let gate = Gate::new();
    let script = script([Act::Wait(gate.clone()), json_answer(200, &json!({}))]);
    let wire = search(&account, &script).await.wire().await;
    script.until_arrived(1).await;
    wire.hang_up();
    gate.open();
    let record = account.until_record().await;
    assert_eq!(
        (record.charged, record.outcome.as_str()),
        (FLAT_NANOS, "settled")
    );
    account.until_nothing_held().await;
}

#[tokio::test]
async fn a_flat_answer_in_pieces_leaves_piece_by_piece() {
    let account = installation().await.account("1");
    let gate = Gate::new();
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let acts = [
        send(head),
        chunk("first"),
        Act::Wait(gate.clone()),
        chunk("second"),
        last_chunk(),
    ];
    let script = script(acts);
    let mut opened = Client::new().open(search(&account, &script).await).await;
    assert_eq!(opened.piece().await.expect("a piece"), "first");
    gate.open();
    assert_eq!(opened.read().await.text(), "second");
    assert_eq!(account.until_record().await.charged, FLAT_NANOS);
}

#[tokio::test]
async fn a_route_without_a_meter_needs_a_key_and_nothing_else() {
    let account = installation().await.account("0");
    let script = script([answer(200, &[("x-kept", "1")], b"plain")]);
    let call = account.post(sidecar().await, "/none/a/b?c=d", &json!({"e": 1}));
    let answer = call.header(SCRIPT, &script.id).send().await.is(200);
    assert_eq!(
        (answer.text().as_str(), answer.header("x-kept")),
        ("plain", Some("1"))
    );
    assert_eq!(script.arrived()[0].line, "POST /a/b?c=d HTTP/1.1");
    assert_eq!(script.arrived()[0].body, br#"{"e":1}"#);
    assert!(account.records().await.is_empty());
}
