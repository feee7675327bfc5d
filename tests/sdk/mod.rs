//! The official `openai` package, as callers use it: it is served, it raises its own exceptions on refusals, and it
//! never storms a proxy that has refused for good.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::account::{Account, chat, credits};
use crate::harness::installation::{
    EMBEDDING_MODEL, INPUT_NANOS, MODEL, OUTPUT_NANOS, installation, sidecar,
};
use crate::harness::python::python;

/// Runs a script that says what it saw in one line of JSON.
async fn run(script: &str, arguments: &[&str]) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/sdk")
        .join(script);
    let base_url = format!("{}/openai/v1", sidecar().await.proxy);
    let mut command = Command::new(python());
    // -B: it leaves no compiled files behind.
    command.arg("-B").arg(path).arg(base_url).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.expect("no panic").expect("python runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{script}: {}\n{out}{err}",
        output.status
    );
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{script}: {error}: {out}{err}"))
}

/// The plain and the streamed call, refused after one request each: no retry storm.
async fn refused_once(
    account: &Account<'_>,
    model: &str,
    exception: &str,
    status: u16,
    code: &str,
) -> Value {
    let seen = run("refused.py", &[&account.key, model]).await;
    for seen in [&seen["plain"], &seen["streamed"]] {
        assert_eq!(seen["exception"], exception, "{seen}");
        assert_eq!(seen["status"], status, "{seen}");
        assert_eq!(seen["code"], code, "{seen}");
        assert_eq!(seen["requests"], 1, "{seen}");
    }
    seen["plain"].clone()
}

#[tokio::test]
async fn it_does_chat_streams_embeddings_and_models() {
    let installation = installation().await;
    let account = installation.account("1");
    let seen = run("served.py", &[&account.key, MODEL, EMBEDDING_MODEL]).await;
    let result = |call: &str| {
        assert_eq!(seen[call]["requests"], 1, "{seen}");
        seen[call]["result"].clone()
    };
    let text = " one two three four five";
    assert_eq!(result("chat"), json!({"text": text, "output": 5}));
    assert_eq!(
        result("stream"),
        json!({"text": text, "output": null, "without_choices": 0})
    );
    let with_usage = json!({"text": text, "output": 5, "without_choices": 1});
    assert_eq!(result("stream_with_usage"), with_usage);
    assert_eq!(result("embeddings"), json!({"vectors": 2, "input": 2}));
    assert!(result("models")["models"].as_u64() > Some(0));

    let records = account.until_records(5).await;
    let outputs: Vec<_> = records.iter().map(|record| record.output_tokens).collect();
    assert_eq!(outputs, [5, 4, 5, 5, 0]);
    for record in &records {
        let charge = record.input_tokens * INPUT_NANOS + record.output_tokens * OUTPUT_NANOS;
        assert_eq!(record.charged, charge, "{record:?}");
    }
    assert_eq!(result("raw_chat")["charge"], credits(records[1].charged));
    installation.verify();
}

#[tokio::test]
async fn a_wrong_key_is_an_authentication_error() {
    let mut account = installation().await.account("1");
    account.key.push('x');
    refused_once(
        &account,
        MODEL,
        "AuthenticationError",
        401,
        "invalid_api_key",
    )
    .await;
}

#[tokio::test]
async fn an_empty_wallet_is_an_api_status_error_with_the_code_and_one_request() {
    let account = installation().await.account("0");
    let seen = refused_once(&account, MODEL, "APIStatusError", 402, "insufficient_quota").await;
    assert_eq!(seen["type"], "insufficient_quota");
    assert_eq!(seen["body"]["violations"][0]["limit"], 0, "{seen}");
    assert!(
        seen["message"]
            .as_str()
            .is_some_and(|said| said.contains(&account.id)),
        "{seen}"
    );
}

#[tokio::test]
async fn a_spent_window_is_a_rate_limit_error_after_one_request() {
    let installation = installation().await;
    let plan = installation.plan(r#"{ resource = "requests", window = "month", limit = 1 }"#);
    let account = installation.account_on(&plan, "1");
    account.chat(sidecar().await, &chat(5)).send().await.is(200);
    account.until_record().await;
    refused_once(
        &account,
        MODEL,
        "RateLimitError",
        429,
        "rate_limit_exceeded",
    )
    .await;
}

#[tokio::test]
async fn a_suspended_account_is_a_permission_error_after_one_request() {
    let account = installation().await.account("1");
    account
        .installation
        .run(&["account", "set", &account.id, "--suspend"]);
    refused_once(
        &account,
        MODEL,
        "PermissionDeniedError",
        403,
        "account_suspended",
    )
    .await;
}

#[tokio::test]
async fn a_model_without_a_price_is_a_bad_request_error_after_one_request() {
    let account = installation().await.account("1");
    refused_once(
        &account,
        "no-such-model",
        "BadRequestError",
        400,
        "model_not_priced",
    )
    .await;
}

#[tokio::test]
async fn calls_in_flight_are_waited_for_and_then_a_rate_limit_error() {
    let installation = installation().await;
    // Enough for one such call, not for two.
    let account = installation.account(&credits(80 * OUTPUT_NANOS));
    let seen = run("in_flight.py", &[&account.key, MODEL]).await;
    let never = &seen["never"];
    assert_eq!(never["exception"], "RateLimitError", "{seen}");
    assert_eq!(never["code"], "budget_in_flight", "{seen}");
    assert_eq!(never["requests"], 3, "the SDK tries twice more: {seen}");
    let meanwhile = &seen["meanwhile"];
    assert_eq!(meanwhile["result"], "served", "{seen}");
    assert!(meanwhile["requests"].as_u64() <= Some(3), "{seen}");
    account.until_records(2).await;
    account.until_nothing_held().await;
    installation.verify();
}
