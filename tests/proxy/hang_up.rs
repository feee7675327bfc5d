//! Callers who hang up: wherever they do, there is one record, it charges what was seen, and nothing stays held (rule 8).

use serde_json::json;

use crate::harness::account::{Account, Record, chat, streamed_chat};
use crate::harness::installation::{INPUT_NANOS, MODEL, OUTPUT_NANOS, installation, sidecar};
use crate::harness::upstream::{
    Act, DONE, Gate, Script, chunk, completion, delta, events_head, json_answer, last_chunk,
    script, send, usage_event,
};

/// Each is one token.
const WORDS: [&str; 5] = [" one", " two", " three", " four", " five"];

/// One record with so many tokens of output, and nothing held.
async fn ended_once(account: &Account<'_>, output_tokens: i64) -> Record {
    let record = account.until_record().await;
    assert_eq!(record.outcome, "settled", "{record:?}");
    assert_eq!(record.output_tokens, output_tokens, "{record:?}");
    assert!(record.input_tokens > 0, "{record:?}");
    let charge = record.input_tokens * INPUT_NANOS + output_tokens * OUTPUT_NANOS;
    assert_eq!(record.charged, charge, "{record:?}");
    account.until_nothing_held().await;
    assert_eq!(account.available(), 1_000_000_000 - charge);
    record
}

/// Calls, reads until `read` has come, and hangs up as told.
async fn hang_up_after(account: &Account<'_>, script: &Script, read: &str, reset: bool) {
    let call = account.scripted_chat(sidecar().await, script, &streamed_chat(50));
    let mut wire = call.wire().await;
    wire.read_until(read.as_bytes()).await;
    if reset {
        wire.reset();
    } else {
        wire.hang_up();
    }
    script.until_abandoned(1).await;
}

#[tokio::test]
async fn rule_08_at_every_boundary_of_a_stream_the_words_that_went_by_are_charged() {
    let installation = installation().await;
    let boundaries = (0..=WORDS.len()).map(async |spoken| {
        let account = installation.account("1");
        let mut acts = vec![events_head()];
        acts.push(chunk(delta(MODEL, "")));
        acts.extend(WORDS[..spoken].iter().map(|word| chunk(delta(MODEL, word))));
        acts.push(Act::Wait(Gate::new()));
        let script = script(acts);
        let read = match spoken {
            0 => "data: ",
            spoken => WORDS[spoken - 1],
        };
        hang_up_after(&account, &script, read, spoken % 2 == 1).await;
        ended_once(&account, spoken.try_into().unwrap())
            .await
            .input_tokens
    });
    let inputs = futures_util::future::join_all(boundaries).await;
    assert!(
        inputs.iter().all(|input| *input == inputs[0]),
        "the same input: {inputs:?}"
    );
    installation.verify();
}

#[tokio::test]
async fn inside_an_event_only_the_whole_ones_are_charged() {
    let installation = installation().await;
    let event = delta(MODEL, WORDS[1]);
    let cuts = (1..event.len()).step_by(event.len() / 6).map(async |cut| {
        let account = installation.account("1");
        let script = script([
            events_head(),
            chunk(delta(MODEL, WORDS[0])),
            chunk(&event[..cut]),
            Act::Wait(Gate::new()),
        ]);
        hang_up_after(&account, &script, WORDS[0], cut % 2 == 0).await;
        ended_once(&account, 1).await;
    });
    futures_util::future::join_all(cuts).await;
}

#[tokio::test]
async fn inside_a_chunk_of_http_only_the_whole_events_are_charged() {
    let account = installation().await.account("1");
    let event = delta(MODEL, WORDS[1]);
    // A chunk that promises more bytes than come.
    let promised = format!("{:x}\r\n{}", event.len() + 100, &event[..event.len() - 1]);
    let script = script([
        events_head(),
        chunk(delta(MODEL, WORDS[0])),
        send(promised),
        Act::Wait(Gate::new()),
    ]);
    hang_up_after(&account, &script, WORDS[0], true).await;
    ended_once(&account, 1).await;
}

#[tokio::test]
async fn when_the_upstream_then_refuses_nothing_is_charged() {
    let account = installation().await.account("1");
    let gate = Gate::new();
    let script = script([Act::Wait(gate.clone()), json_answer(500, &json!({}))]);
    let call = account.scripted_chat(sidecar().await, &script, &chat(50));
    let wire = call.wire().await;
    script.until_arrived(1).await;
    wire.hang_up();
    gate.open();
    let record = account.until_record().await;
    assert_eq!((record.outcome.as_str(), record.charged), ("released", 0));
    account.until_nothing_held().await;
}

#[tokio::test]
async fn after_the_usage_was_said_it_is_charged() {
    let account = installation().await.account("1");
    let script = script([
        events_head(),
        chunk(delta(MODEL, WORDS[0])),
        chunk(usage_event(MODEL, 9, 40) + &delta(MODEL, "")),
        Act::Wait(Gate::new()),
    ]);
    let mut body = streamed_chat(50);
    body["stream_options"] = json!({"include_usage": true});
    let call = account.scripted_chat(sidecar().await, &script, &body);
    let mut wire = call.wire().await;
    wire.read_until(b"total_tokens").await;
    wire.hang_up();
    let record = ended_once(&account, 40).await;
    assert_eq!(record.input_tokens, 9);
}

#[tokio::test]
async fn before_the_answer_begins_the_input_is_charged() {
    let account = installation().await.account("1");
    let script = script([Act::Wait(Gate::new())]);
    let wire = account
        .scripted_chat(sidecar().await, &script, &streamed_chat(50))
        .wire()
        .await;
    script.until_arrived(1).await;
    wire.hang_up();
    ended_once(&account, 0).await;
}

#[tokio::test]
async fn before_the_request_is_whole_nothing_is_held_and_nothing_recorded() {
    let account = installation().await.account("1");
    let script = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let call = account.scripted_chat(sidecar().await, &script, &chat(50));
    let bytes = call.bytes();
    for cut in [10, bytes.len() / 2, bytes.len() - 1] {
        let mut wire = crate::harness::client::Wire::connect(&sidecar().await.proxy).await;
        wire.write(&bytes[..cut]).await;
        wire.hang_up();
    }
    // A call that is made now ends after those would have.
    call.send().await.is(200);
    assert_eq!(
        account.until_record().await.charged,
        9 * INPUT_NANOS + 3 * OUTPUT_NANOS
    );
    assert_eq!(script.arrived().len(), 1);
    assert_eq!(account.held(), 0);
}

#[tokio::test]
async fn during_a_call_that_is_not_streamed_its_true_usage_is_still_charged() {
    let account = installation().await.account("1");
    let gate = Gate::new();
    let script = script([
        Act::Wait(gate.clone()),
        json_answer(200, &completion(MODEL, 9, 21)),
    ]);
    let wire = account
        .scripted_chat(sidecar().await, &script, &chat(50))
        .wire()
        .await;
    script.until_arrived(1).await;
    wire.hang_up();
    assert!(
        account.records().await.is_empty(),
        "its upstream is still at work"
    );
    gate.open();
    let record = ended_once(&account, 21).await;
    assert_eq!(record.input_tokens, 9);
}

#[tokio::test]
async fn in_the_middle_of_an_answer_that_is_not_streamed_its_true_usage_is_still_charged() {
    let account = installation().await.account("1");
    let gate = Gate::new();
    // Larger than what is held back until it is whole, so the caller gets the beginning early.
    let mut body = completion(MODEL, 9, 21);
    body["choices"][0]["message"]["content"] = json!("x".repeat(3 << 20));
    let text = body.to_string();
    let (early, late) = text.split_at(2 << 20);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        text.len()
    );
    let script = script([
        send(head),
        send(early.to_owned()),
        Act::Wait(gate.clone()),
        send(late.to_owned()),
    ]);
    let mut wire = account
        .scripted_chat(sidecar().await, &script, &chat(50))
        .wire()
        .await;
    wire.read_until(b"xxxx").await;
    wire.reset();
    gate.open();
    let record = ended_once(&account, 21).await;
    assert_eq!(record.input_tokens, 9);
}

#[tokio::test]
async fn at_the_end_of_a_stream_nothing_is_charged_twice() {
    let account = installation().await.account("1");
    let script = script([
        events_head(),
        chunk(delta(MODEL, WORDS[0])),
        chunk(usage_event(MODEL, 9, 1)),
        chunk(DONE),
        last_chunk(),
    ]);
    let call = account.scripted_chat(sidecar().await, &script, &streamed_chat(50));
    let mut wire = call.wire().await;
    wire.read_until(b"[DONE]").await;
    wire.reset();
    let record = ended_once(&account, 1).await;
    assert_eq!(record.input_tokens, 9);
}
