//! Names and numbers that nobody sane would send: whatever they are, the call ends once, is recorded, and stops nobody
//! else's records on their way to the ledger.

use serde_json::{Value, json};

use crate::harness::account::{Account, Record, chat, streamed_chat};
use crate::harness::installation::{INPUT_NANOS, MODEL, OUTPUT_NANOS, installation, sidecar};
use crate::harness::upstream::{
    DONE, SCRIPT, Script, answer, chunk, completion, delta, events_head, json_answer, last_chunk,
    script,
};

/// One such answer, and the record it leads to.
async fn recorded(account: &Account<'_>, body: &Value) -> Record {
    let script = script([json_answer(200, body)]);
    let call = account.scripted_chat(sidecar().await, &script, &chat(5));
    let answer = call.send().await.is(200);
    assert_eq!(answer.json(), *body, "it passes as it came");
    let record = account.until_record().await;
    assert_eq!(record.outcome, "settled");
    account.until_nothing_held().await;
    record
}

#[tokio::test]
async fn a_usage_that_makes_no_sense_is_never_free() {
    let installation = installation().await;
    let usages = [
        json!({"prompt_tokens": -9, "completion_tokens": -3, "total_tokens": -12}),
        json!({"prompt_tokens": 9.5, "completion_tokens": 3.25, "total_tokens": 12.75}),
        json!({"prompt_tokens": "9", "completion_tokens": "3"}),
        json!({"prompt_tokens": null, "completion_tokens": null}),
        json!({"prompt_tokens": 9, "completion_tokens": -3}),
        json!({"prompt_tokens": 9, "completion_tokens": 3.0}),
        json!({"prompt_tokens": 9, "completion_tokens": "3"}),
        json!({"completion_tokens": 0}),
        json!({}),
        json!([]),
        json!("usage"),
        Value::Null,
    ];
    for usage in usages {
        let account = installation.account("1");
        let mut body = completion(MODEL, 9, 3);
        body["usage"] = usage.clone();
        let record = recorded(&account, &body).await;
        assert!(record.charged > 0, "{usage}: {record:?}");
        assert!(record.charged <= record.reserved, "{usage}: {record:?}");
        assert!(!record.overrun, "{usage}: {record:?}");
        assert!(
            record.properties.to_string().contains("unmetered"),
            "{usage}: {record:?}"
        );
    }
    installation.verify();
}

#[tokio::test]
async fn a_usage_that_says_nothing_was_used_is_believed() {
    let account = installation().await.account("1");
    let record = recorded(&account, &completion(MODEL, 0, 0)).await;
    assert_eq!((record.charged, record.outcome.as_str()), (0, "settled"));
}

#[tokio::test]
async fn more_cached_tokens_than_there_were_make_nothing_cheaper() {
    let account = installation().await.account("1");
    let mut body = completion(MODEL, 9, 3);
    body["usage"]["prompt_tokens_details"] = json!({"cached_tokens": 9000});
    let record = recorded(&account, &body).await;
    // A provider that contradicts itself is charged for each part it names.
    let least = 9 * INPUT_NANOS + 3 * OUTPUT_NANOS;
    assert!(record.charged >= least, "{record:?}");
    assert_eq!(account.available(), 1_000_000_000 - record.charged);
}

#[tokio::test]
async fn a_usage_beyond_all_bounds_is_charged_to_the_bound_and_recorded() {
    let installation = installation().await;
    for tokens in [
        i64::MAX.to_string(),
        u64::MAX.to_string(),
        "1e300".into(),
        "9".repeat(400),
    ] {
        let account = installation.account("1");
        let text = format!(
            r#"{{"id":"x","object":"chat.completion","model":"{MODEL}","choices":[],
                "usage":{{"prompt_tokens":{tokens},"completion_tokens":{tokens},"total_tokens":{tokens}}}}}"#
        );
        let script = script([answer(
            200,
            &[("content-type", "application/json")],
            text.as_bytes(),
        )]);
        let call = account.scripted_chat(sidecar().await, &script, &chat(5));
        assert_eq!(call.send().await.is(200).text(), text);
        let record = account.until_record().await;
        assert!(record.charged > 0, "{tokens}: {record:?}");
        account.until_nothing_held().await;
        assert_eq!(account.available(), 1_000_000_000 - record.charged);
    }
    installation.verify();
}

#[tokio::test]
async fn a_usage_of_megabytes_does_not_keep_its_record_from_the_ledger() {
    let installation = installation().await;
    for parts in [500, 2_000, 20_000] {
        let account = installation.account("1");
        let mut body = completion(MODEL, 9, 3);
        let details: Vec<_> = (0..parts)
            .map(|part| (format!("part_{part}"), json!(part)))
            .collect();
        body["usage"]["details"] = Value::Object(details.into_iter().collect());
        let record = recorded(&account, &body).await;
        // Either it was read, or it counts as not said.
        let exact = 9 * INPUT_NANOS + 3 * OUTPUT_NANOS;
        let unread = record.properties.to_string().contains("unmetered");
        assert!(
            record.charged == exact || (unread && record.charged <= record.reserved),
            "{record:?}"
        );
        assert_eq!(unread, parts == 20_000, "{record:?}");
    }
    installation.verify();
}

#[tokio::test]
async fn an_answer_whose_model_has_an_odd_name_is_recorded() {
    let installation = installation().await;
    for name in [
        "",
        "\u{0}",
        "a\u{0}b",
        "\u{1F980}\u{7}\r\n",
        &"x".repeat(100_000),
        "'; DROP TABLE account; --",
    ] {
        let account = installation.account("1");
        let record = recorded(&account, &completion(name, 9, 3)).await;
        // None of these has a price of its own, so the held one counts.
        assert_eq!(
            record.charged,
            9 * INPUT_NANOS + 3 * OUTPUT_NANOS,
            "{record:?}"
        );

        let account = installation.account("1");
        let events = [
            events_head(),
            chunk(delta(name, " one")),
            chunk(DONE),
            last_chunk(),
        ];
        let script = script(events);
        let call = account.scripted_chat(sidecar().await, &script, &streamed_chat(5));
        call.send().await.is(200);
        let record = account.until_record().await;
        assert_eq!(
            (record.outcome.as_str(), record.output_tokens),
            ("settled", 1)
        );
    }
    installation.verify();
}

#[tokio::test]
async fn a_request_for_a_model_with_an_odd_name_is_refused_or_recorded_but_never_stuck() {
    let installation = installation().await;
    for name in [
        "\u{0}",
        "a\u{0}b",
        "\u{1F980}\u{7}\r\n",
        &"x".repeat(100_000),
    ] {
        let account = installation.account("1");
        let script = script([json_answer(200, &completion(MODEL, 9, 3))]);
        let mut body = chat(5);
        body["model"] = json!(name);
        let call = account.post(sidecar().await, "/unpriced/v1/chat/completions", &body);
        let answer = call.header(SCRIPT, &script.id).send().await;
        if answer.status == 200 {
            account.until_record().await;
        } else {
            answer.refused(400, "invalid_request");
        }
        account.until_nothing_held().await;
    }
    installation.verify();
}

#[tokio::test]
async fn a_compressed_answer_that_nobody_asked_for_passes_and_is_charged_as_held() {
    let installation = installation().await;
    let account = installation.account("1");
    let headers = [
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ];
    let bytes = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3, 4];
    let whole = script([answer(200, &headers, &bytes)]);
    let call = account.scripted_chat(sidecar().await, &whole, &chat(5));
    assert_eq!(call.send().await.is(200).body.as_ref(), bytes);
    let stream = script([answer(200, &headers, &bytes)]);
    let call = account.scripted_chat(sidecar().await, &stream, &streamed_chat(5));
    assert_eq!(call.send().await.is(200).body.as_ref(), bytes);
    for record in account.until_records(2).await {
        assert_eq!(record.charged, record.reserved, "{record:?}");
        assert!(
            record.properties.to_string().contains("unmetered"),
            "{record:?}"
        );
    }
    installation.verify();
}

#[tokio::test]
async fn a_stream_of_noise_passes_and_is_charged_for_its_input() {
    let account = installation().await.account("1");
    let noise: Vec<u8> = (0..200_000_u32)
        .map(|number| (number * 7919 % 251) as u8)
        .collect();
    let pieces = noise.chunks(1500).map(chunk);
    let babbling: Script = script(
        [events_head()]
            .into_iter()
            .chain(pieces)
            .chain([last_chunk()]),
    );
    let call = account.scripted_chat(sidecar().await, &babbling, &streamed_chat(5));
    assert!(call.send().await.is(200).body == noise, "byte for byte");
    let record = account.until_record().await;
    assert!(record.charged >= record.input_tokens * INPUT_NANOS && record.charged > 0);
}

#[tokio::test]
async fn one_event_of_megabytes_passes_and_does_not_fill_the_memory() {
    let account = installation().await.account("1");
    let event = delta(MODEL, &" one".repeat(1 << 20));
    let pieces = event.as_bytes().chunks(64 * 1024).map(chunk);
    let long = script(
        [events_head()]
            .into_iter()
            .chain(pieces)
            .chain([chunk(DONE), last_chunk()]),
    );
    let call = account.scripted_chat(sidecar().await, &long, &streamed_chat(5));
    let answer = call.send().await.is(200);
    assert_eq!(answer.body.len(), event.len() + DONE.len());
    let record = account.until_record().await;
    assert!(record.charged > 0, "{record:?}");
    account.until_nothing_held().await;
}
