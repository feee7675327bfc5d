//! Callers and upstreams who do not play by the rules: what was served is charged, and no more than was held for nothing.

use http::Method;
use serde_json::{Value, json};

use crate::harness::account::{chat, streamed_chat};
use crate::harness::client::{Call, Wire};
use crate::harness::installation::{
    FLAT_NANOS, INPUT_NANOS, MODEL, OUTPUT_NANOS, installation, sidecar,
};
use crate::harness::upstream::{
    Act, Gate, HASTY, SCRIPT, answer, chunk, completion, delta, events_head, json_answer, script,
    send,
};

#[tokio::test]
async fn a_trace_that_would_show_the_routes_credential_is_not_forwarded() {
    let account = installation().await.account("1");
    let script = script([answer(200, &[], b"an echo of the request")]);
    for path in ["/flat/x", "/none/x", "/open/v1/files"] {
        let url = format!("{}{path}", sidecar().await.proxy);
        let call = Call::new(Method::TRACE, url).key(&account.key);
        let refused = call.header(SCRIPT, &script.id).send().await;
        refused.refused(403, "path_not_allowed");
    }
    assert!(script.arrived().is_empty(), "{:?}", script.arrived());
    assert!(account.records().await.is_empty());
}

#[tokio::test]
async fn a_flat_call_whose_caller_breaks_off_its_own_body_is_charged() {
    let account = installation().await.account("1");
    // It may have done all there is to do from the head alone.
    let script = script([Act::Wait(Gate::new())]);
    let head = format!(
        "POST /flat/mail?to=x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\n{HASTY}: 1\r\n\
         content-length: 5\r\n\r\n",
        account.key, script.id
    );
    let mut wire = Wire::connect(&sidecar().await.proxy).await;
    wire.write(head.as_bytes()).await;
    script.until_arrived(1).await;
    wire.hang_up();
    let record = account.until_record().await;
    assert_eq!(
        (record.outcome.as_str(), record.charged),
        ("settled", FLAT_NANOS)
    );
    account.until_nothing_held().await;
}

#[tokio::test]
async fn a_stream_that_is_answered_whole_is_charged_what_the_answer_says() {
    let account = installation().await.account("1");
    let script = script([json_answer(200, &completion(MODEL, 9, 4))]);
    let call = account.scripted_chat(sidecar().await, &script, &streamed_chat(5));
    let answer = call.send().await.is(200);
    assert_eq!(answer.json(), completion(MODEL, 9, 4));
    let record = account.until_record().await;
    assert_eq!(record.charged, 9 * INPUT_NANOS + 4 * OUTPUT_NANOS);
    assert_eq!(record.properties, json!({}));
}

#[tokio::test]
async fn a_stream_that_is_answered_with_anything_else_is_charged_for_what_it_is() {
    let account = installation().await.account("1");
    let script = script([answer(
        200,
        &[("content-type", "text/plain")],
        b"one two three",
    )]);
    let call = account.scripted_chat(sidecar().await, &script, &streamed_chat(5));
    call.send().await.is(200);
    let record = account.until_record().await;
    assert_eq!(record.output_tokens, 3, "{record:?}");
    let charge = record.input_tokens * INPUT_NANOS + 3 * OUTPUT_NANOS;
    assert_eq!(record.charged, charge);
}

#[tokio::test]
async fn a_stream_that_is_answered_whole_is_not_free_to_whoever_leaves_before_its_end() {
    let account = installation().await.account("1");
    // Larger than what is held back until it is whole, so the caller gets the beginning early.
    let mut body = completion(MODEL, 9, 4);
    body["choices"][0]["message"]["content"] = json!("x".repeat(3 << 20));
    let body = body.to_string();
    let (early, late) = body.split_at(2 << 20);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let gate = Gate::new();
    let script = script([
        send(head),
        send(early.to_owned()),
        Act::Wait(gate.clone()),
        send(late.to_owned()),
    ]);
    let call = account.scripted_chat(sidecar().await, &script, &streamed_chat(5));
    let mut wire = call.wire().await;
    wire.read_until(b"xxxx").await;
    wire.hang_up();
    gate.open();
    let record = account.until_record().await;
    let charge = 9 * INPUT_NANOS + 4 * OUTPUT_NANOS;
    assert_eq!(record.charged, charge, "{record:?}");
}

#[tokio::test]
async fn an_answer_compressed_all_the_same_is_charged_no_more_than_was_held() {
    let account = installation().await.account("1");
    let body: Vec<u8> = (0..=255).collect();
    for request in [chat(5), streamed_chat(5)] {
        let script = script([answer(200, &[("content-encoding", "gzip")], &body)]);
        let call = account.scripted_chat(sidecar().await, &script, &request);
        call.send().await.is(200);
    }
    for record in account.until_records(2).await {
        assert_eq!(record.charged, record.reserved, "{record:?}");
        assert!(!record.overrun);
    }
}

#[tokio::test]
async fn a_usage_said_too_early_does_not_make_the_rest_of_a_stream_free() {
    let account = installation().await.account("1");
    let mut first: Value = json!({
        "model": MODEL, "choices": [{"index": 0, "delta": {"content": ""}}],
    });
    first["usage"] = json!({"prompt_tokens": 0, "completion_tokens": 0});
    let script = script([
        events_head(),
        chunk(format!("data: {first}\n\n")),
        chunk(delta(MODEL, " one")),
        chunk(delta(MODEL, " two")),
        Act::Wait(Gate::new()),
    ]);
    let call = account.scripted_chat(sidecar().await, &script, &streamed_chat(5));
    let mut wire = call.wire().await;
    wire.read_until(b" two").await;
    wire.hang_up();
    let record = account.until_record().await;
    assert_eq!(record.output_tokens, 2, "{record:?}");
    let seen = record.input_tokens * INPUT_NANOS + 2 * OUTPUT_NANOS;
    assert!(
        record.charged == seen && record.input_tokens > 0,
        "{record:?}"
    );
}
