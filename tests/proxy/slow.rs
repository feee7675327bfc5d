//! Callers who take their time: over a head, over a body, over an answer, or who never end what they began. None of them
//! is waited for without an end, and nothing stays held for them.

use std::time::Duration;

use serde_json::Value;

use crate::harness::account::{Account, chat, streamed_chat};
use crate::harness::client::{Answer, Wire};
use crate::harness::configuration::Settings;
use crate::harness::installation::{
    FLAT_NANOS, Installation, MODEL, installation, installation_with_room, sidecar,
};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{
    Act, Gate, HASTY, SCRIPT, Script, answer, chunk, completion, delta, events_head, json_answer,
    last_chunk, script, send,
};
use crate::harness::wait::until_within;

/// More than the buffers of a connection take.
const LARGE: usize = 48 << 20;

fn served() -> Script {
    script([json_answer(200, &completion(MODEL, 9, 3))])
}

#[tokio::test]
async fn a_head_that_never_ends_ends_its_connection() {
    let account = installation().await.account("1");
    let script = served();
    let head = format!(
        "GET /none/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\nx-slow: ",
        account.key, script.id
    );
    let trickled = async |beginning: &str| {
        let mut wire = Wire::connect(&sidecar().await.proxy).await;
        wire.write(beginning.as_bytes()).await;
        wire.trickle(b"x").await
    };
    // And one that says nothing at all.
    let silent = async {
        let mut wire = Wire::connect(&sidecar().await.proxy).await;
        wire.read_to_end().await
    };
    let came = tokio::join!(
        trickled(&head),
        trickled("GE"),
        trickled("GET /none/x"),
        silent
    );
    for came in [came.0, came.1, came.2, came.3] {
        let said = String::from_utf8_lossy(&came);
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 408 "),
            "{said}"
        );
    }
    assert!(script.arrived().is_empty());
}

/// The beginning of a call whose body is still to come.
fn beginning(account: &Account<'_>, script: &Script, path: &str, framing: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\n{framing}\r\n\r\n",
        account.key, script.id
    )
}

#[tokio::test]
async fn a_body_that_trickles_is_408_and_nothing_is_held() {
    let account = installation().await.account("1");
    let script = served();
    let framings = [
        ("content-length: 100000", b" ".as_slice()),
        ("transfer-encoding: chunked", b"1\r\n \r\n"),
    ];
    let shapes = [
        ("/brief-body/v1/chat/completions", "\"request_timeout\""),
        ("/brief-body/v1/embeddings", "\"request_timeout\""),
        ("/flat/brief-body/x", "application/problem+json"),
    ];
    let calls = framings
        .iter()
        .flat_map(|framing| shapes.iter().map(move |shape| (framing, shape)));
    let calls = calls.map(async |((framing, bytes), (path, shape))| {
        let mut wire = Wire::connect(&sidecar().await.proxy).await;
        let head = beginning(&account, &script, path, framing);
        wire.write(head.as_bytes()).await;
        // It never pauses, so that only the whole of it takes too long.
        let came = wire.trickle(bytes).await;
        let said = String::from_utf8_lossy(&came);
        assert!(
            said.starts_with("HTTP/1.1 408 "),
            "{path}, {framing}: {said}"
        );
        assert!(
            said.contains("connection: close"),
            "{path}, {framing}: {said}"
        );
        assert!(said.contains(shape), "{path}, {framing}: {said}");
        assert!(
            said.contains("body_timeout_ms"),
            "{path}, {framing}: {said}"
        );
    });
    futures_util::future::join_all(calls).await;
    assert!(script.arrived().is_empty(), "none was ever whole");
    // What went upstream as it came may have done its work there: as where the caller hangs up, it is charged.
    let records = account.until_records(2).await;
    assert!(
        records.iter().all(|record| record.charged == FLAT_NANOS),
        "{records:?}"
    );
    account.until_nothing_held().await;
}

#[tokio::test]
async fn a_body_that_is_half_there_and_then_ends_is_not_forwarded() {
    let account = installation().await.account("1");
    let script = served();
    for framing in ["content-length: 100", "transfer-encoding: chunked"] {
        for body in ["", "{", "5\r\n{\"mod", "5\r\n"] {
            let mut wire = Wire::connect(&sidecar().await.proxy).await;
            let head = beginning(&account, &script, "/scripted/v1/chat/completions", framing);
            wire.write(format!("{head}{body}").as_bytes()).await;
            wire.send_no_more().await;
            let came = wire.read_to_end().await;
            let said = String::from_utf8_lossy(&came);
            assert!(
                said.is_empty() || said.starts_with("HTTP/1.1 400 "),
                "{said}"
            );
        }
    }
    assert!(script.arrived().is_empty());
    account.until_nothing_held().await;
    assert!(account.records().await.is_empty());
    assert_eq!(account.available(), 1_000_000_000);
}

#[tokio::test]
async fn a_caller_that_closes_its_half_after_the_call_ends_it_once() {
    let account = installation().await.account("1");
    let gate = Gate::new();
    let waiting = script([
        Act::Wait(gate.clone()),
        json_answer(200, &completion(MODEL, 9, 3)),
    ]);
    let streaming = script([
        events_head(),
        chunk(delta(MODEL, " one")),
        Act::Wait(gate.clone()),
        last_chunk(),
    ]);
    for (script, body) in [(&waiting, chat(5)), (&streaming, streamed_chat(5))] {
        let call = account.scripted_chat(sidecar().await, script, &body);
        let mut wire = call.wire().await;
        script.until_arrived(1).await;
        wire.send_no_more().await;
        // It counts as gone, as far as the connection can tell.
        wire.read_to_end().await;
    }
    gate.open();
    let records = account.until_records(2).await;
    assert!(
        records.iter().all(|record| record.outcome == "settled"),
        "{records:?}"
    );
    account.until_nothing_held().await;
}

/// A sidecar on which an account has one place, and nobody is waited for longer than a second.
fn one_place(installation: &Installation) -> Sidecar {
    let settings = Settings {
        more: "[shed]\nmax_in_flight = 2\n".to_owned(),
        ..Settings::default()
    };
    let brief = [("TOLLGATE__LISTEN__WRITE_TIMEOUT_S", "1")];
    Sidecar::start_with(&installation.config(&settings), &brief)
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up_and_charged_for_what_went_by() {
    let installation = installation_with_room().await;
    let sidecar = one_place(&installation);
    let words = delta(MODEL, " one").repeat(LARGE / 4 / delta(MODEL, " one").len());
    let stream = [events_head()]
        .into_iter()
        .chain((0..4).map(|_| chunk(&words)))
        .chain([Act::Wait(Gate::new())]);
    let mut whole = completion(MODEL, 9, 3);
    whole["choices"][0]["message"]["content"] = Value::from("x".repeat(LARGE));
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
    let passing = [send(head), send("x".repeat(LARGE))];
    for (acts, path, body) in [
        (
            stream.collect(),
            "/scripted/v1/chat/completions",
            streamed_chat(5),
        ),
        (
            vec![json_answer(200, &whole)],
            "/scripted/v1/chat/completions",
            chat(5),
        ),
        (passing.to_vec(), "/flat/x", chat(5)),
        (passing.to_vec(), "/none/x", chat(5)),
    ] {
        let account = installation.account("1000");
        let large = script(acts);
        let call = account
            .post(&sidecar, path, &body)
            .header(SCRIPT, &large.id);
        let wire = call.wire().await;
        large.until_arrived(1).await;
        let quick = served();
        let other = account.scripted_chat(&sidecar, &quick, &chat(5));
        let what = format!("the place of the call to {path} is free again");
        let served = until_within(Duration::from_mins(1), &what, async || {
            let answer: Answer = other.clone().send().await;
            (answer.status == 200).then_some(())
        });
        served.await;
        let records = account
            .until_records(if path == "/none/x" { 1 } else { 2 })
            .await;
        assert!(
            records.iter().all(|record| record.outcome == "settled"),
            "{records:?}"
        );
        assert!(
            records.iter().all(|record| record.charged > 0),
            "{records:?}"
        );
        account.until_nothing_held().await;
        // It was there all the time.
        wire.hang_up();
    }
    installation.verify();
}

#[tokio::test]
async fn an_upstream_that_answers_at_once_does_not_free_a_caller_from_sending() {
    let account = installation().await.account("1");
    // The answer is whole before the body is; the connection ends with it.
    let hasty = script([answer(200, &[], b"done")]);
    let framing = format!("{HASTY}: 1\r\ncontent-length: 100000");
    let mut wire = Wire::connect(&sidecar().await.proxy).await;
    let head = beginning(&account, &hasty, "/flat/brief-body/x", &framing);
    wire.write(head.as_bytes()).await;
    wire.trickle(b" ").await;
    let record = account.until_record().await;
    assert_eq!(
        (record.outcome.as_str(), record.charged),
        ("settled", FLAT_NANOS)
    );
    account.until_nothing_held().await;
}
