//! Streams: passed on byte for byte, as they come, with the usage event only for those who asked for it.

use serde_json::{Value, json};

use crate::harness::account::streamed_chat;
use crate::harness::installation::{INPUT_NANOS, MODEL, OUTPUT_NANOS, installation, sidecar};
use crate::harness::upstream::{
    Act, DONE, Gate, Script, chunk, delta, events_head, last_chunk, script, usage_event,
};

/// The scripted stream of two words, with comments, odd line ends and fields that nobody needs, and its usage.
fn odd_stream() -> (String, String) {
    let head = format!(
        ": a comment\n\n{}event: message\nid: 7\nretry: 10\ndata:{}\n\n{}",
        delta(MODEL, " one"),
        json!({"choices": [{"index": 0, "delta": {"content": " two"}}], "extra": "\u{1F980} \u{0}"}),
        delta(MODEL, "").replace('\n', "\r\n"),
    );
    (head, usage_event(MODEL, 9, 2))
}

fn cut(text: &str, size: usize) -> Script {
    let pieces = text.as_bytes().chunks(size).map(chunk);
    script(
        [events_head()]
            .into_iter()
            .chain(pieces)
            .chain([last_chunk()]),
    )
}

fn asked() -> Value {
    let mut body = streamed_chat(50);
    body["stream_options"] = json!({"include_usage": true});
    body
}

#[tokio::test]
async fn a_stream_passes_byte_for_byte_however_it_is_cut() {
    let installation = installation().await;
    let account = installation.account("1");
    let (head, usage) = odd_stream();
    let whole = format!("{head}{usage}{DONE}");
    let sizes = [1, 2, 3, 7, 50, 1000, whole.len()];
    for size in sizes {
        let script = cut(&whole, size);
        let answer = account
            .scripted_chat(sidecar().await, &script, &asked())
            .send()
            .await
            .is(200);
        assert_eq!(answer.text(), whole, "in pieces of {size}");
        let kind = answer.header("content-type").expect("a content type");
        assert!(kind.starts_with("text/event-stream"), "{kind}");
    }
    let records = account.until_records(sizes.len()).await;
    for record in records {
        assert_eq!((record.input_tokens, record.output_tokens), (9, 2));
        assert_eq!(record.charged, 9 * INPUT_NANOS + 2 * OUTPUT_NANOS);
        assert_eq!(record.outcome, "settled");
    }
    installation.verify();
}

#[tokio::test]
async fn the_usage_event_is_hidden_from_those_who_did_not_ask() {
    let account = installation().await.account("1");
    let (head, usage) = odd_stream();
    let mut asked_not = streamed_chat(50);
    asked_not["stream_options"] = json!({"include_usage": false});
    let mut asked_null = streamed_chat(50);
    asked_null["stream_options"] = Value::Null;
    let mut count = 0;
    for body in [streamed_chat(50), asked_not, asked_null] {
        for size in [1, 10, 10_000] {
            let script = cut(&format!("{head}{usage}{DONE}"), size);
            let call = account.scripted_chat(sidecar().await, &script, &body);
            let answer = call.send().await.is(200);
            assert_eq!(
                answer.text(),
                format!("{head}{DONE}"),
                "in pieces of {size}"
            );
            let sent: Value = serde_json::from_slice(&script.arrived()[0].body).expect("JSON");
            assert_eq!(
                sent["stream_options"]["include_usage"], true,
                "the upstream is asked"
            );
            assert_eq!(sent["messages"], body["messages"]);
            assert_eq!(sent["max_tokens"], body["max_tokens"]);
            count += 1;
        }
    }
    let records = account.until_records(count).await;
    assert!(
        records
            .iter()
            .all(|r| r.charged == 9 * INPUT_NANOS + 2 * OUTPUT_NANOS)
    );
}

#[tokio::test]
async fn other_stream_options_survive() {
    let account = installation().await.account("1");
    let script = cut(DONE, 100);
    let mut body = streamed_chat(50);
    body["stream_options"] = json!({"include_obfuscation": false});
    account
        .scripted_chat(sidecar().await, &script, &body)
        .send()
        .await
        .is(200);
    let sent: Value = serde_json::from_slice(&script.arrived()[0].body).expect("JSON");
    let options = json!({"include_obfuscation": false, "include_usage": true});
    assert_eq!(sent["stream_options"], options);
}

#[tokio::test]
async fn a_body_that_needs_no_change_arrives_byte_for_byte() {
    let account = installation().await.account("1");
    let script = cut(DONE, 100);
    let text = format!(
        r#"{{ "stream":true, "model" :"{MODEL}","stream_options":{{"include_usage":true}}, "unknown": [1.0, 1e2],
            "messages":[{{"role":"user","content":"\u00e4 ä"}}],"max_tokens":5 }}"#
    );
    let call = account
        .scripted_chat(sidecar().await, &script, &Value::Null)
        .body(text.clone());
    call.send().await.is(200);
    assert_eq!(String::from_utf8_lossy(&script.arrived()[0].body), text);
}

#[tokio::test]
async fn each_piece_leaves_at_once() {
    let account = installation().await.account("1");
    let gates: [Gate; 3] = std::array::from_fn(|_| Gate::new());
    let words = [" one", " two", " three"];
    let steps = gates
        .iter()
        .zip(words)
        .flat_map(|(gate, word)| [Act::Wait(gate.clone()), chunk(delta(MODEL, word))]);
    let acts = [events_head()]
        .into_iter()
        .chain(steps)
        .chain([chunk(DONE), last_chunk()]);
    let script = script(acts);
    // The head is here before the first word is.
    let mut opened = account
        .scripted_chat(sidecar().await, &script, &streamed_chat(50))
        .open()
        .await;
    assert_eq!(opened.status, 200);
    for (gate, word) in gates.iter().zip(words) {
        gate.open();
        let mut came = Vec::new();
        while came != delta(MODEL, word).into_bytes() {
            came.extend(opened.piece().await.expect("a word"));
        }
    }
    assert_eq!(opened.read().await.text(), DONE);
}

#[tokio::test]
async fn a_stream_that_never_says_its_usage_is_charged_by_its_words() {
    let account = installation().await.account("1");
    let words: String = [" one", " two", " three"]
        .map(|word| delta(MODEL, word))
        .concat();
    let script = cut(&format!("{words}{DONE}"), 10_000);
    account
        .scripted_chat(sidecar().await, &script, &streamed_chat(50))
        .send()
        .await
        .is(200);
    let record = account.until_record().await;
    assert_eq!(record.output_tokens, 3);
    assert_eq!(
        record.charged,
        record.input_tokens * INPUT_NANOS + 3 * OUTPUT_NANOS
    );
    // Never silent: the record says that it was counted here.
    assert!(
        record.properties.to_string().contains("unmetered"),
        "{}",
        record.properties
    );
}

/// An event beyond what is read, and the words before and after it.
fn stream_with_an_oversized_event() -> Vec<String> {
    let long = "x".repeat(1 << 20);
    vec![
        delta(MODEL, " one"),
        delta(MODEL, &long),
        delta(MODEL, " two"),
    ]
}

#[tokio::test]
async fn what_passed_unread_is_charged_all_that_was_held_if_no_usage_comes() {
    let account = installation().await.account("1");
    let whole = stream_with_an_oversized_event().concat() + DONE;
    let script = cut(&whole, 10_000);
    let call = account.scripted_chat(sidecar().await, &script, &streamed_chat(50));
    let answer = call.send().await.is(200);
    assert!(answer.text() == whole, "bytes were changed");
    let record = account.until_record().await;
    assert_eq!(record.output_tokens, 50, "{record:?}");
    assert_eq!(record.charged, record.reserved, "{record:?}");
    let properties = record.properties.to_string();
    assert!(properties.contains("unmetered"), "{properties}");
}

#[tokio::test]
async fn what_passed_unread_does_not_matter_if_the_usage_comes() {
    let account = installation().await.account("1");
    let events = stream_with_an_oversized_event().concat();
    let script = cut(
        &format!("{events}{}{DONE}", usage_event(MODEL, 9, 12)),
        10_000,
    );
    let call = account.scripted_chat(sidecar().await, &script, &streamed_chat(50));
    let answer = call.send().await.is(200);
    assert!(answer.text() == events + DONE, "bytes were changed");
    let record = account.until_record().await;
    assert_eq!(record.charged, 9 * INPUT_NANOS + 12 * OUTPUT_NANOS);
    let properties = record.properties.to_string();
    assert!(!properties.contains("unmetered"), "{properties}");
}

#[tokio::test]
async fn a_stream_uses_more_than_was_held_and_is_charged_in_full() {
    let installation = installation().await;
    let account = installation.account("1");
    let script = cut(
        &format!(
            "{}{}{DONE}",
            delta(MODEL, " one"),
            usage_event(MODEL, 9, 700)
        ),
        100,
    );
    account
        .scripted_chat(sidecar().await, &script, &streamed_chat(5))
        .send()
        .await
        .is(200);
    let record = account.until_record().await;
    assert!(record.overrun, "{record:?}");
    assert_eq!(record.charged, 9 * INPUT_NANOS + 700 * OUTPUT_NANOS);
    assert!(record.charged > record.reserved);
    assert_eq!(account.available(), 1_000_000_000 - record.charged);
    installation.verify();
}
