//! What comes with an answer that was served, and what never comes through.

use serde_json::{Value, json};

use crate::harness::account::{chat, credits, streamed_chat};
use crate::harness::client::{Answer, Client};
use crate::harness::installation::{
    EMBEDDING_MODEL, INPUT_NANOS, MODEL, OUTPUT_NANOS, installation, sidecar,
};
use crate::harness::upstream::{
    Act, DONE, Gate, answer, chunk, completion, events_head, json_answer, last_chunk, script, send,
    usage_event,
};

#[tokio::test]
async fn a_call_says_its_reservation_its_charge_and_the_balance_it_leaves() {
    let account = installation().await.account("1");
    let script = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let call = account.scripted_chat(sidecar().await, &script, &chat(5));
    let answer = call.send().await.is(200);
    let charge = 9 * INPUT_NANOS + 3 * OUTPUT_NANOS;
    assert_eq!(
        answer.header("x-tollgate-charge"),
        Some(credits(charge).as_str())
    );
    let balance = credits(1_000_000_000 - charge);
    assert_eq!(answer.header("x-tollgate-balance"), Some(balance.as_str()));
    let record = account.until_record().await;
    assert_eq!(
        answer.header("x-tollgate-reservation"),
        Some(record.id.to_string().as_str())
    );
    assert_eq!(record.charged, charge);
    assert_eq!(account.available(), 1_000_000_000 - charge);
    assert_eq!(
        answer.json(),
        completion(MODEL, 9, 3),
        "the body is the upstream's"
    );
}

#[tokio::test]
async fn a_stream_says_its_reservation_and_the_balance_without_what_it_holds() {
    let account = installation().await.account("1");
    let script = script([
        events_head(),
        chunk(usage_event(MODEL, 9, 3)),
        chunk(DONE),
        last_chunk(),
    ]);
    let call = account.scripted_chat(sidecar().await, &script, &streamed_chat(5));
    let answer = call.send().await.is(200);
    let record = account.until_record().await;
    assert_eq!(
        answer.header("x-tollgate-reservation"),
        Some(record.id.to_string().as_str())
    );
    assert_eq!(
        answer.header("x-tollgate-charge"),
        None,
        "nobody knows it yet"
    );
    let balance = credits(1_000_000_000 - record.reserved);
    assert_eq!(answer.header("x-tollgate-balance"), Some(balance.as_str()));
}

#[tokio::test]
async fn a_large_answer_goes_without_its_charge_and_is_charged_all_the_same() {
    let account = installation().await.account("1");
    let mut body = completion(MODEL, 9, 3);
    body["choices"][0]["message"]["content"] = json!("x".repeat(3 << 20));
    let script = script([json_answer(200, &body)]);
    let call = account.scripted_chat(sidecar().await, &script, &chat(5));
    let answer = call.send().await.is(200);
    assert_eq!(answer.json(), body);
    assert_eq!(answer.header("x-tollgate-charge"), None);
    assert!(answer.header("x-tollgate-reservation").is_some());
    assert_eq!(
        account.until_record().await.charged,
        9 * INPUT_NANOS + 3 * OUTPUT_NANOS
    );
}

#[tokio::test]
async fn embeddings_are_charged_by_their_input() {
    let account = installation().await.account("1");
    let body = json!({"model": EMBEDDING_MODEL, "input": ["one two three", "four"]});
    let call = account.post(sidecar().await, "/openai/v1/embeddings", &body);
    let answer = call.send().await.is(200);
    let tokens = answer.json()["usage"]["total_tokens"]
        .as_i64()
        .expect("tokens");
    let record = account.until_record().await;
    assert_eq!((record.input_tokens, record.output_tokens), (tokens, 0));
    assert_eq!(record.charged, tokens * INPUT_NANOS);
    assert!(record.charged <= record.reserved);
}

fn number(answer: &Answer, name: &str) -> i64 {
    let text = answer
        .header(name)
        .unwrap_or_else(|| panic!("{name}: {:?}", answer.headers));
    text.parse().expect("a number")
}

#[tokio::test]
async fn rate_limits_are_the_accounts_and_not_the_upstreams() {
    let installation = installation().await;
    let plan = installation.plan(
        r#"{ resource = "requests", window = "month", limit = 100 },
           { resource = "requests", window = "overall", limit = 1000 },
           { resource = "tokens", window = "month", limit = 50000 }"#,
    );
    let account = installation.account_on(&plan, "1");
    let theirs = [
        ("x-ratelimit-limit-requests", "9"),
        ("x-ratelimit-remaining-requests", "8"),
        ("x-ratelimit-reset-requests", "7s"),
        ("x-ratelimit-limit-tokens", "6"),
        ("x-ratelimit-remaining-tokens", "5"),
        ("x-ratelimit-reset-tokens", "4s"),
        ("content-type", "application/json"),
        ("x-request-id", "req_1"),
    ];
    let body = completion(MODEL, 9, 3).to_string();
    let script = script([answer(200, &theirs, body.as_bytes())]);
    let call = account.scripted_chat(sidecar().await, &script, &chat(5));
    let first = call.clone().send().await.is(200);
    account.until_records(1).await;
    let second = call.send().await.is(200);

    for (answer, requests, tokens_before) in [(&first, 99, 0), (&second, 98, 12)] {
        assert_eq!(number(answer, "x-ratelimit-limit-requests"), 100);
        assert_eq!(number(answer, "x-ratelimit-remaining-requests"), requests);
        assert_eq!(number(answer, "x-ratelimit-limit-tokens"), 50_000);
        let tokens = number(answer, "x-ratelimit-remaining-tokens");
        // Between what it used and what it held.
        assert!(
            (49_900..=50_000 - tokens_before - 12).contains(&tokens),
            "{tokens}"
        );
        let reset = answer.header("x-ratelimit-reset-requests").expect("a time");
        assert!(!reset.is_empty() && reset != "7s", "{reset}");
        let policy = answer.header("ratelimit-policy").expect("policies");
        assert!(
            policy.contains("q=100;") && policy.contains("q=50000;"),
            "{policy}"
        );
        let limit = answer.header("ratelimit").expect("limits");
        assert!(limit.contains(&format!("r={requests};t=")), "{limit}");
        assert_eq!(answer.header("x-request-id"), Some("req_1"));
    }
}

#[tokio::test]
async fn without_limits_the_upstreams_rate_limits_are_hidden_too() {
    let account = installation().await.account("1");
    let answer = account.chat(sidecar().await, &chat(5)).send().await.is(200);
    let theirs = |name: &&http::HeaderName| name.as_str().starts_with("x-ratelimit");
    let shown: Vec<_> = answer.headers.keys().filter(theirs).collect();
    assert!(
        shown.is_empty(),
        "they speak of the operator's account: {shown:?}"
    );
}

#[tokio::test]
async fn hop_by_hop_headers_stop_at_the_proxy_in_both_directions() {
    let account = installation().await.account("1");
    let body = completion(MODEL, 9, 3).to_string();
    let theirs = [
        ("connection", "keep-alive, x-theirs"),
        ("keep-alive", "timeout=5"),
        ("x-theirs", "1"),
        ("proxy-authenticate", "Basic"),
        ("upgrade", "h2c"),
        ("content-type", "application/json"),
        ("x-kept", "2"),
    ];
    let script = script([answer(200, &theirs, body.as_bytes())]);
    let call = account.scripted_chat(sidecar().await, &script, &chat(5));
    let call = call.header("connection", "x-mine").header("x-mine", "1");
    let call = call
        .header("keep-alive", "timeout=9")
        .header("te", "trailers");
    let call = call
        .header("proxy-authorization", "Basic eA==")
        .header("proxy-connection", "close");
    let call = call.header("upgrade", "websocket").header("x-stays", "3");
    let mut wire = call.header("expect", "100-continue").wire().await;
    let came = wire.read_until(body.as_bytes()).await;
    let came = String::from_utf8_lossy(&came).to_ascii_lowercase();
    assert!(came.contains("http/1.1 200"), "{came}");
    assert!(came.contains("x-kept: 2"), "{came}");
    for name in [
        "keep-alive: timeout",
        "x-theirs",
        "proxy-authenticate",
        "upgrade:",
    ] {
        assert!(!came.contains(name), "{name}: {came}");
    }
    let arrived = &script.arrived()[0];
    assert_eq!(arrived.header("x-stays"), Some("3"));
    let gone = [
        "x-mine",
        "keep-alive",
        "te",
        "proxy-authorization",
        "proxy-connection",
        "upgrade",
        "expect",
    ];
    for name in gone {
        assert_eq!(arrived.header(name), None, "{arrived:?}");
    }
    assert_ne!(arrived.header("connection"), Some("x-mine"));
    account.until_record().await;
}

#[tokio::test]
async fn a_usage_cannot_come_compressed() {
    let account = installation().await.account("1");
    let script = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let call = account.scripted_chat(sidecar().await, &script, &chat(5));
    call.header("accept-encoding", "gzip, br")
        .send()
        .await
        .is(200);
    assert_eq!(
        script.arrived()[0].header("accept-encoding"),
        Some("identity")
    );
    account.until_record().await;
}

#[tokio::test]
async fn an_answer_without_a_usage_is_charged_as_what_it_is_and_says_so() {
    let installation = installation().await;
    let mut no_usage = completion(MODEL, 9, 3);
    no_usage.as_object_mut().expect("an object").remove("usage");
    let odd: [Vec<u8>; 3] = [
        no_usage.to_string().into(),
        b"not JSON".to_vec(),
        Vec::new(),
    ];
    for body in odd {
        let account = installation.account("1");
        let script = script([answer(200, &[("content-type", "application/json")], &body)]);
        let call = account.scripted_chat(sidecar().await, &script, &chat(5));
        let answer = call.send().await.is(200);
        assert_eq!(answer.body, body);
        let record = account.until_record().await;
        assert_eq!(record.outcome, "settled");
        assert!(record.charged >= record.input_tokens * INPUT_NANOS && record.charged > 0);
        assert!(record.charged <= record.reserved, "{record:?}");
        assert!(
            record.properties.to_string().contains("unmetered"),
            "{record:?}"
        );
    }
    installation.verify();
}

#[tokio::test]
async fn an_answer_that_cannot_be_counted_is_charged_all_that_was_held() {
    let installation = installation().await;
    let json = ("content-type", "application/json");
    let large = json!({"model": MODEL, "choices": "x".repeat(2 << 20)}).to_string();
    let odd = [
        ("identity", large.as_bytes()),
        ("gzip", b"\x1f\x8b\x08".as_slice()),
    ];
    for (encoding, body) in odd {
        let account = installation.account("1");
        let headers = [json, ("content-encoding", encoding)];
        let script = script([answer(200, &headers, body)]);
        let mut two_choices = chat(5);
        two_choices["n"] = json!(2);
        let call = account.scripted_chat(sidecar().await, &script, &two_choices);
        let answer = call.send().await.is(200);
        assert_eq!(answer.body, body);
        let record = account.until_record().await;
        assert_eq!(record.output_tokens, 2 * 5, "of each choice: {record:?}");
        assert_eq!(record.charged, record.reserved, "{record:?}");
        assert!(!record.overrun, "{record:?}");
        let properties = record.properties.to_string();
        assert!(properties.contains("unmetered"), "{record:?}");
    }
    installation.verify();
}

#[tokio::test]
async fn words_that_are_counted_are_never_free_and_never_more_than_was_held() {
    let installation = installation().await;
    for (words, most) in [
        ("one two three", 500),
        ("one two three ".repeat(500).as_str(), 7),
    ] {
        let account = installation.account("1");
        let mut body = completion(MODEL, 9, 3);
        body["choices"][0]["message"]["content"] = json!(words);
        body.as_object_mut().expect("an object").remove("usage");
        let script = script([json_answer(200, &body)]);
        let call = account.scripted_chat(sidecar().await, &script, &chat(most));
        call.send().await.is(200);
        let record = account.until_record().await;
        assert!((3..=most).contains(&record.output_tokens), "{record:?}");
        let charge = record.input_tokens * INPUT_NANOS + record.output_tokens * OUTPUT_NANOS;
        assert_eq!(record.charged, charge, "{record:?}");
    }
}

#[tokio::test]
async fn an_overrun_is_charged_in_full_and_recorded_as_one() {
    let installation = installation().await;
    // The wallet goes below zero by it: what was used is owed.
    let account = installation.account("0.001");
    let script = script([json_answer(200, &completion(MODEL, 9, 100_000))]);
    let call = account.scripted_chat(sidecar().await, &script, &chat(5));
    let answer = call.clone().send().await.is(200);
    let charge = 9 * INPUT_NANOS + 100_000 * OUTPUT_NANOS;
    assert_eq!(
        answer.header("x-tollgate-charge"),
        Some(credits(charge).as_str())
    );
    let record = account.until_record().await;
    assert!(record.overrun, "{record:?}");
    assert_eq!(record.charged, charge);
    assert_eq!(account.available(), 1_000_000 - charge);
    call.send().await.refused(402, "insufficient_quota");
    // The next grant pays the debt first.
    account.grant("0.2");
    installation.verify();
    assert_eq!(account.available(), 201_000_000 - charge);
}

#[tokio::test]
async fn what_the_assumed_output_does_not_cover_is_an_overrun() {
    let account = installation().await.account("1");
    let script = script([json_answer(200, &completion(MODEL, 1, 70))]);
    let mut body = chat(5);
    body.as_object_mut()
        .expect("an object")
        .remove("max_tokens");
    let call = account.post(sidecar().await, "/brief/v1/chat/completions", &body);
    call.header("x-script", &script.id).send().await.is(200);
    let record = account.until_record().await;
    assert!(record.overrun, "{record:?}");
    assert_eq!(record.charged, INPUT_NANOS + 70 * OUTPUT_NANOS);
}

#[tokio::test]
async fn two_calls_over_one_connection_do_not_mix() {
    let account = installation().await.account("1");
    let client = Client::new();
    for output in 1..=3 {
        let script = script([json_answer(200, &completion(MODEL, 9, output))]);
        let call = account.scripted_chat(sidecar().await, &script, &chat(5));
        let answer = client.send(call).await.is(200);
        let used: &Value = &answer.json()["usage"]["completion_tokens"];
        assert_eq!(used, &json!(output));
    }
    account.until_records(3).await;
}

#[tokio::test]
async fn the_answer_does_not_wait_for_the_settle_of_another_call() {
    let account = installation().await.account("1");
    let gate = Gate::new();
    let slow = script([
        Act::Wait(gate.clone()),
        json_answer(200, &completion(MODEL, 9, 3)),
    ]);
    let sidecar = sidecar().await;
    let slow_call = account.scripted_chat(sidecar, &slow, &chat(5));
    let slow_call = tokio::spawn(async move { Client::new().send(slow_call).await });
    slow.until_arrived(1).await;
    let quick = script([send(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    )]);
    account
        .scripted_chat(sidecar, &quick, &chat(5))
        .send()
        .await
        .is(200);
    gate.open();
    slow_call.await.expect("no panic").is(200);
    account.until_records(2).await;
}
