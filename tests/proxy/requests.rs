//! Requests that make no sense, are too large, or ask for a model without a price: refused before anything is held.

use serde_json::{Value, json};

use crate::harness::account::{Account, chat};
use crate::harness::client::{Call, get};
use crate::harness::installation::{
    DEAR_MODEL, EMBEDDING_MODEL, INPUT_NANOS, MODEL, installation, sidecar,
};
use crate::harness::upstream::{SCRIPT, Script, completion, json_answer, script};

const CHAT: &str = "/scripted/v1/chat/completions";

fn served() -> Script {
    script([json_answer(200, &completion(MODEL, 9, 3))])
}

/// A call with this body, whatever it is.
async fn raw(account: &Account<'_>, script: &Script, body: impl Into<bytes::Bytes>) -> Call {
    let call = account.post(sidecar().await, CHAT, &Value::Null);
    call.header(SCRIPT, &script.id).body(body)
}

#[tokio::test]
async fn a_malformed_body_is_400_invalid_request() {
    let account = installation().await.account("1");
    let script = served();
    let with = |name: &str, value: Value| {
        let mut body = chat(5);
        body[name] = value;
        body.to_string()
    };
    let mut no_model = chat(5);
    no_model.as_object_mut().expect("an object").remove("model");
    let bodies = [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "{} trailing".to_owned(),
        no_model.to_string(),
        with("model", json!(7)),
        with("model", json!("")),
        with("messages", json!("hello")),
        with("max_tokens", json!(-1)),
        with("max_tokens", json!("many")),
        with("max_tokens", json!(1.5)),
        with("max_completion_tokens", json!(-1)),
        with("n", json!(0)),
        with("n", json!(-3)),
        with("stream", json!("yes")),
        // Absurd amounts are refused, not wrapped round into small ones.
        with("max_tokens", json!(u64::MAX)),
        with("n", json!(i64::MAX)),
        // Whoever writes a key twice may mean one thing and be charged for another.
        r#"{"model":"house-chat","messages":[],"max_tokens":1,"max_tokens":100000}"#.to_owned(),
    ];
    for body in bodies {
        let refused = raw(&account, &script, body.clone()).await.send().await;
        assert_eq!(refused.status, 400, "{body}: {}", refused.text());
        let refused = refused.refused(400, "invalid_request");
        let error = &refused.json()["error"];
        assert_eq!(error["type"], "invalid_request_error", "{body}");
        assert!(error["message"].is_string(), "{body}");
    }
    assert!(script.arrived().is_empty());
    assert!(account.records().await.is_empty());
    assert_eq!(account.held(), 0);
}

#[tokio::test]
async fn tags_and_scopes_that_cannot_be_recorded_are_400() {
    let account = installation().await.account("1");
    let script = served();
    let long = "x".repeat(200);
    for (name, value) in [
        ("x-tollgate-user", long.as_str()),
        ("x-tollgate-project", ""),
        ("x-tollgate-tags", "no-equals-sign"),
    ] {
        let call = account
            .scripted_chat(sidecar().await, &script, &chat(5))
            .header(name, value);
        call.send().await.refused(400, "invalid_request");
    }
    assert!(script.arrived().is_empty());
}

#[tokio::test]
async fn a_body_too_large_is_413_whether_its_length_is_said_or_not() {
    let account = installation().await.account("1");
    let script = served();
    let mut body = chat(5);
    body["messages"][0]["content"] = json!("word ".repeat(300));
    let call = account.post(sidecar().await, "/small/v1/chat/completions", &body);
    let call = call.header(SCRIPT, &script.id);
    let refused = call.clone().send().await.refused(413, "request_too_large");
    assert_eq!(refused.json()["error"]["type"], "invalid_request_error");

    // The same in pieces, whose sum nobody says beforehand.
    let head = format!(
        "POST /small/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
         {SCRIPT}: {}\r\ntransfer-encoding: chunked\r\n\r\n",
        account.key, script.id
    );
    let mut wire = crate::harness::client::Wire::connect(&sidecar().await.proxy).await;
    wire.write(head.as_bytes()).await;
    for _ in 0..3 {
        wire.write(format!("190\r\n{}\r\n", "x".repeat(400)).as_bytes())
            .await;
    }
    let came = wire.read_until(b"\r\n\r\n").await;
    let said = String::from_utf8_lossy(&came);
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
    assert!(script.arrived().is_empty());
    assert_eq!(account.held(), 0);
}

#[tokio::test]
async fn a_body_too_large_for_a_route_that_only_passes_it_on_is_413_and_free() {
    let account = installation().await.account("1");
    let script = served();
    let large = "x".repeat(2000);
    let call = account
        .get(sidecar().await, "/flat/small/x")
        .header(SCRIPT, &script.id);
    let refused = call
        .body(large.clone())
        .send()
        .await
        .refused(413, "request_too_large");
    assert_eq!(
        refused.header("content-type"),
        Some("application/problem+json")
    );
    assert_eq!(refused.json()["status"], 413);
    let head = format!(
        "POST /flat/small/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\n\
         transfer-encoding: chunked\r\n\r\n7d0\r\n{large}\r\n0\r\n\r\n",
        account.key, script.id
    );
    let mut wire = crate::harness::client::Wire::connect(&sidecar().await.proxy).await;
    wire.write(head.as_bytes()).await;
    let came = wire.read_until(b"\r\n\r\n").await;
    let said = String::from_utf8_lossy(&came);
    assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
    account.until_nothing_held().await;
    assert_eq!(account.available(), 1_000_000_000);
}

#[tokio::test]
async fn headers_that_mean_nothing_to_the_proxy_go_upstream() {
    let account = installation().await.account("1");
    let script = served();
    let theirs = [
        ("idempotency-key", "once"),
        ("openai-beta", "x=1"),
        ("user-agent", "test/1"),
        ("x-twice", "a"),
    ];
    let mut call = account.scripted_chat(sidecar().await, &script, &chat(5));
    for (name, value) in theirs {
        call = call.header(name, value);
    }
    call.header("x-twice", "b").send().await.is(200);
    let arrived = &script.arrived()[0];
    for (name, value) in theirs {
        assert_eq!(arrived.header(name), Some(value));
    }
    let twice = arrived
        .headers
        .iter()
        .filter(|(name, _)| name == "x-twice")
        .count();
    assert_eq!(twice, 2);
    let host = crate::harness::upstream::scripted().strip_prefix("http://");
    assert_eq!(arrived.header("host"), host, "the upstream's own name");
    account.until_record().await;
}

#[tokio::test]
async fn no_such_route_is_404_unknown_route() {
    let account = installation().await.account("1");
    for path in ["/", "/nowhere", "/openaix/v1/chat/completions", "/scripte"] {
        let refused = account
            .get(sidecar().await, path)
            .send()
            .await
            .refused(404, "unknown_route");
        assert_eq!(
            refused.header("content-type"),
            Some("application/problem+json")
        );
    }
    let keyless = get(format!("{}/nowhere", sidecar().await.proxy))
        .send()
        .await;
    keyless.refused(404, "unknown_route");
}

#[tokio::test]
async fn a_model_without_a_price_is_400_model_not_priced() {
    let account = installation().await.account("1");
    let script = served();
    let mut body = chat(5);
    body["model"] = json!("nobody-knows-this-model");
    let call = account.scripted_chat(sidecar().await, &script, &body);
    let refused = call.send().await.refused(400, "model_not_priced");
    assert_eq!(refused.json()["error"]["param"], "model");
    // A price that lacks a part the call needs is no price (an embedding model has no output).
    body["model"] = json!(EMBEDDING_MODEL);
    let call = account.scripted_chat(sidecar().await, &script, &body);
    call.send().await.refused(400, "model_not_priced");
    assert!(script.arrived().is_empty());
    assert!(account.records().await.is_empty());
}

#[tokio::test]
async fn a_route_may_let_a_model_without_a_price_pass_free_but_recorded() {
    let account = installation().await.account("0");
    let script = script([json_answer(
        200,
        &completion("nobody-knows-this-model", 9, 3),
    )]);
    let mut body = chat(5);
    body["model"] = json!("nobody-knows-this-model");
    let call = account.post(sidecar().await, "/unpriced/v1/chat/completions", &body);
    call.header(SCRIPT, &script.id).send().await.is(200);
    let record = account.until_record().await;
    assert_eq!((record.reserved, record.charged), (0, 0));
    assert_eq!((record.input_tokens, record.output_tokens), (9, 3));
    assert_eq!(record.model, "nobody-knows-this-model");
}

#[tokio::test]
async fn the_charge_follows_the_model_that_answered_if_it_is_priced() {
    let installation = installation().await;
    let account = installation.account("1");
    for (answered, factor) in [(DEAR_MODEL, 10), ("nobody-knows-this-model", 1)] {
        let script = script([json_answer(200, &completion(answered, 9, 3))]);
        let call = account.scripted_chat(sidecar().await, &script, &chat(5));
        let answer = call.send().await.is(200);
        let id = answer
            .header("x-tollgate-reservation")
            .expect("an id")
            .to_owned();
        let records = account
            .until_records(if factor == 10 { 1 } else { 2 })
            .await;
        let record = records
            .iter()
            .find(|record| record.id.to_string() == id)
            .expect("its record");
        assert_eq!(
            record.charged,
            factor * (9 * INPUT_NANOS + 6 * INPUT_NANOS),
            "{record:?}"
        );
        assert_eq!(record.model, answered, "{record:?}");
    }
    installation.verify();
}

#[tokio::test]
async fn what_a_caller_says_of_itself_is_recorded() {
    let installation = installation().await;
    let account = installation.account("1");
    let script = served();
    let call = account.scripted_chat(sidecar().await, &script, &chat(5));
    let call = call
        .header("x-tollgate-user", "u-1")
        .header("x-tollgate-project", "p-1");
    call.header("x-tollgate-tags", "team=red, env=test")
        .send()
        .await
        .is(200);
    let record = account.until_record().await;
    let (key, user, project, tags): (uuid::Uuid, String, String, Value) = installation
        .row(
            "SELECT api_key_id, user_ref, project_ref, tags FROM usage_record WHERE id = $1",
            record.id,
        )
        .await;
    assert_eq!(key.to_string(), account.key_id);
    assert_eq!((user.as_str(), project.as_str()), ("u-1", "p-1"));
    assert_eq!(tags, json!({"team": "red", "env": "test"}));
    assert_eq!(record.route, "/scripted");
}
