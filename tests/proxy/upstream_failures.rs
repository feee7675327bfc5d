//! Upstreams that refuse, break, fall silent or are not there: whoever was not served is not charged.

use serde_json::json;

use crate::harness::account::{Account, chat, streamed_chat};
use crate::harness::client::Client;
use crate::harness::installation::{INPUT_NANOS, MODEL, OUTPUT_NANOS, installation, sidecar};
use crate::harness::upstream::{
    Act, Gate, SCRIPT, answer, chunk, completion, delta, events_head, json_answer, script, send,
};

async fn released(account: &Account<'_>, records: usize) {
    for record in account.until_records(records).await {
        assert_eq!(
            (record.outcome.as_str(), record.charged),
            ("released", 0),
            "{record:?}"
        );
    }
    assert_eq!(account.held(), 0);
    assert_eq!(account.available(), 1_000_000_000);
}

#[tokio::test]
async fn a_refusal_of_the_upstream_passes_through_whole() {
    let installation = installation().await;
    let account = installation.account("1");
    let mut count = 0;
    for status in [400, 401, 403, 404, 409, 422, 429, 500, 502, 503, 529] {
        for body in [chat(5), streamed_chat(5)] {
            let error = json!({"error": {"message": "no", "code": format!("theirs_{status}")}});
            let theirs = [
                ("content-type", "application/json"),
                ("retry-after", "7"),
                ("x-ratelimit-remaining-requests", "0"),
                ("x-should-retry", "true"),
            ];
            let script = script([answer(status, &theirs, error.to_string().as_bytes())]);
            let answer = account
                .scripted_chat(sidecar().await, &script, &body)
                .send()
                .await;
            let answer = answer.is(status);
            assert_eq!(answer.json(), error);
            for (name, value) in theirs {
                assert_eq!(answer.header(name), Some(value));
            }
            count += 1;
        }
    }
    released(&account, count).await;
    installation.verify();
}

#[tokio::test]
async fn nobody_at_the_upstreams_address_is_502_and_free() {
    let account = installation().await.account("1");
    for body in [chat(5), streamed_chat(5)] {
        let call = account.post(sidecar().await, "/gone/v1/chat/completions", &body);
        let refused = call.send().await.refused(502, "upstream_unreachable");
        assert_eq!(refused.json()["error"]["type"], "server_error");
    }
    let refused = account.get(sidecar().await, "/flat/gone/x").send().await;
    let refused = refused.refused(502, "upstream_unreachable");
    assert_eq!(
        refused.header("content-type"),
        Some("application/problem+json")
    );
    released(&account, 3).await;
}

#[tokio::test]
async fn an_upstream_that_hangs_up_before_it_answers_is_502_and_free() {
    let account = installation().await.account("1");
    for body in [chat(5), streamed_chat(5)] {
        let script = script([Act::Close]);
        let call = account.scripted_chat(sidecar().await, &script, &body);
        call.send().await.refused(502, "upstream_unreachable");
        assert_eq!(
            script.arrived().len(),
            1,
            "a call that may have been served is never repeated"
        );
    }
    released(&account, 2).await;
}

#[tokio::test]
async fn an_upstream_that_never_begins_is_504_and_free() {
    let account = installation().await.account("1");
    for body in [chat(5), streamed_chat(5)] {
        let script = script([Act::Wait(Gate::new())]);
        let call = account.post(sidecar().await, "/impatient/v1/chat/completions", &body);
        call.header(SCRIPT, &script.id)
            .send()
            .await
            .refused(504, "upstream_timeout");
        script.until_abandoned(1).await;
    }
    released(&account, 2).await;
}

#[tokio::test]
async fn a_stream_that_its_upstream_breaks_is_charged_for_what_was_seen() {
    let installation = installation().await;
    let account = installation.account("1");
    let words = [" one", " two"].map(|word| chunk(delta(MODEL, word)));
    let acts = [events_head()].into_iter().chain(words).chain([Act::Close]);
    let script = script(acts);
    let call = account.scripted_chat(sidecar().await, &script, &streamed_chat(5));
    let broken = Client::new().try_send(call).await;
    assert!(
        broken.is_err(),
        "the caller must see that it is not whole: {broken:?}"
    );
    let record = account.until_record().await;
    assert_eq!(
        (record.outcome.as_str(), record.output_tokens),
        ("settled", 2)
    );
    assert_eq!(
        record.charged,
        record.input_tokens * INPUT_NANOS + 2 * OUTPUT_NANOS
    );
    installation.verify();
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_broken_off_and_charged_for_what_was_seen() {
    let account = installation().await.account("1");
    let acts = [
        events_head(),
        chunk(delta(MODEL, " one")),
        Act::Wait(Gate::new()),
    ];
    let script = script(acts);
    let call = account.post(
        sidecar().await,
        "/impatient/v1/chat/completions",
        &streamed_chat(5),
    );
    let broken = Client::new()
        .try_send(call.header(SCRIPT, &script.id))
        .await;
    assert!(broken.is_err(), "{broken:?}");
    script.until_abandoned(1).await;
    let record = account.until_record().await;
    assert_eq!(
        (record.outcome.as_str(), record.output_tokens),
        ("settled", 1)
    );
}

#[tokio::test]
async fn an_answer_that_breaks_half_way_is_charged_for_what_was_seen() {
    let installation = installation().await;
    let account = installation.account("1");
    let whole = completion(MODEL, 9, 3).to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        whole.len()
    );
    let script = script([
        send(head),
        send(whole[..whole.len() / 2].to_owned()),
        Act::Close,
    ]);
    let call = account.scripted_chat(sidecar().await, &script, &chat(5000));
    let seen = Client::new().try_send(call).await;
    assert!(
        seen.is_err(),
        "the caller must see that it is not whole: {seen:?}"
    );
    let record = account.until_record().await;
    assert_eq!(record.outcome, "settled", "{record:?}");
    // Counted with the JSON around it, which is at most a token a byte.
    let most = i64::try_from(whole.len() / 2).unwrap();
    assert!((1..=most).contains(&record.output_tokens), "{record:?}");
    let charge = record.input_tokens * INPUT_NANOS + record.output_tokens * OUTPUT_NANOS;
    assert_eq!(record.charged, charge, "{record:?}");
    account.until_nothing_held().await;
    installation.verify();
}

#[tokio::test]
async fn an_answer_that_is_no_stream_to_a_call_that_asked_for_one_is_metered_all_the_same() {
    let account = installation().await.account("1");
    let script = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let call = account.scripted_chat(sidecar().await, &script, &streamed_chat(5));
    let answer = call.send().await.is(200);
    assert_eq!(answer.json(), completion(MODEL, 9, 3));
    let record = account.until_record().await;
    assert_eq!((record.input_tokens, record.output_tokens), (9, 3));
    assert_eq!(record.charged, 9 * INPUT_NANOS + 3 * OUTPUT_NANOS);
}
