//! What a sidecar takes upon itself is bounded, is given back however a call ends, and no account's flood takes it all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::account::{Account, chat, streamed_chat};
use crate::harness::client::{Answer, Call, Wire};
use crate::harness::configuration::Settings;
use crate::harness::installation::{MODEL, installation_with_room};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{
    Act, DONE, Gate, SCRIPT, Script, chunk, completion, delta, events_head, json_answer,
    last_chunk, script,
};
use crate::harness::wait::until;

fn shedding(more: &str) -> Settings {
    Settings {
        more: format!("[shed]\n{more}\n"),
        ..Settings::default()
    }
}

/// A stream that waits in its middle.
fn waiting_stream(gate: &Gate) -> Script {
    script([
        events_head(),
        chunk(delta(MODEL, " one")),
        Act::Wait(gate.clone()),
        chunk(DONE),
        last_chunk(),
    ])
}

#[track_caller]
fn violation(refused: &Answer) -> Value {
    refused.explanation()["violations"][0].clone()
}

/// Opens a stream and reads its beginning.
async fn in_flight(account: &Account<'_>, sidecar: &Sidecar, script: &Script) -> Wire {
    let call = account.scripted_chat(sidecar, script, &streamed_chat(5));
    let mut wire = call.wire().await;
    wire.read_until(b" one").await;
    wire
}

#[tokio::test]
async fn what_is_in_flight_is_bounded_until_its_last_byte_and_shared() {
    let installation = installation_with_room().await;
    let sidecar = installation.sidecar(&shedding("max_in_flight = 4"));
    let [a, b, c, d] = [(); 4].map(|()| installation.account("1"));
    let gate = Gate::new();
    let script = waiting_stream(&gate);
    let call = |account: &Account| account.scripted_chat(&sidecar, &script, &streamed_chat(5));

    let mut wires = vec![
        in_flight(&a, &sidecar, &script).await,
        in_flight(&a, &sidecar, &script).await,
    ];
    let refused = call(&a).send().await.refused(429, "rate_limit_exceeded");
    let numbers = json!({
        "account": a.id, "scope": "account", "resource": "requests", "window": "in_flight",
        "limit": 2, "used": 0, "held": 2, "requested": 1, "resets_at": null,
    });
    assert_eq!(violation(&refused), numbers);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(
        refused.header("connection"),
        Some("close"),
        "its body was not read"
    );
    wires.push(in_flight(&b, &sidecar, &script).await);
    wires.push(in_flight(&c, &sidecar, &script).await);
    let refused = call(&d).send().await.refused(503, "overloaded");
    assert_eq!(refused.explanation()["type"], "server_error");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let flat = d.get(&sidecar, "/flat/x").header(SCRIPT, &script.id);
    let refused = flat.send().await.refused(503, "overloaded");
    assert_eq!(refused.json()["title"], "Service Unavailable");

    gate.open();
    for mut wire in wires {
        wire.read_until(b"[DONE]").await;
    }
    until("there is room again", async || {
        let answer = call(&d).send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(
        d.until_records(1).await.len(),
        1,
        "what was refused left no record"
    );
}

#[tokio::test]
async fn a_call_gives_its_place_back_however_it_ends() {
    static TURNED_AWAY: AtomicUsize = AtomicUsize::new(0);
    let installation = installation_with_room().await;
    let sidecar = installation.sidecar(&shedding("max_in_flight = 4"));
    let account = installation.account("1");
    let poor = installation.account("0");
    let never = Gate::new();
    let endless = waiting_stream(&never);
    let ended = waiting_stream(&{
        let gate = Gate::new();
        gate.open();
        gate
    });
    let broken = script([events_head(), chunk(delta(MODEL, " one")), Act::Close]);
    let whole = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let failing = script([json_answer(500, &json!({}))]);
    let silent = script([Act::Wait(never.clone())]);
    let stream = |script: &Script| account.scripted_chat(&sidecar, script, &streamed_chat(5));
    let chat_at = |route: &str, script: &Script| {
        let path = format!("{route}/v1/chat/completions");
        let call = account.post(&sidecar, &path, &chat(5));
        call.header(SCRIPT, &script.id)
    };
    let let_in = async |call: &Call| {
        until("a call is let in", async || {
            let answer = call.clone().send().await;
            let turned_away = answer.status == 429 || answer.status == 503;
            (!turned_away).then_some(answer)
        })
        .await
    };
    // Each way more often than there are places.
    for _ in 0..3 {
        let_in(&stream(&ended)).await.is(200);
        let_in(&chat_at("/scripted", &whole)).await.is(200);
        let_in(&chat_at("/scripted", &failing)).await.is(500);
        let_in(&chat_at("/gone", &whole)).await.is(502);
        let_in(&chat_at("/impatient", &silent)).await.is(504);
        let_in(&chat_at("/small", &whole).body("x".repeat(2000)))
            .await
            .is(413);
        let_in(&chat_at("/scripted", &whole).body("{"))
            .await
            .is(400);
        let_in(&account.get(&sidecar, "/none/x").header(SCRIPT, &whole.id))
            .await
            .is(200);
        let_in(&account.get(&sidecar, "/flat/x").header(SCRIPT, &whole.id))
            .await
            .is(200);
        let_in(&poor.scripted_chat(&sidecar, &whole, &chat(5)))
            .await
            .is(402);
        for reset in [true, false] {
            let wire = in_flight(&account, &sidecar, &endless).await;
            if reset {
                wire.reset();
            } else {
                wire.hang_up();
            }
            let mut wire = stream(&broken).wire().await;
            wire.read_to_end().await;
            // In the middle of its body.
            let call = stream(&whole).bytes();
            let mut wire = Wire::connect(&sidecar.proxy).await;
            wire.write(&call[..call.len() - 5]).await;
            if reset {
                wire.reset();
            } else {
                wire.hang_up();
            }
            let_in(&chat_at("/scripted", &whole)).await.is(200);
        }
    }
    endless.until_abandoned(6).await;
    // The share of one account, at the same time: so no place is missing.
    let gate = Gate::new();
    let held = script([
        Act::Wait(gate.clone()),
        json_answer(200, &completion(MODEL, 9, 3)),
    ]);
    let mut calls = JoinSet::new();
    for _ in 0..2 {
        calls.spawn(insist(chat_at("/scripted", &held), &TURNED_AWAY));
    }
    held.until_arrived(2).await;
    gate.open();
    calls.join_all().await;
    installation.verify();
}

#[tokio::test]
async fn a_call_whose_caller_is_gone_keeps_its_place_until_its_answer_has_been_read() {
    let installation = installation_with_room().await;
    let sidecar = installation.sidecar(&shedding("max_in_flight = 2"));
    let account = installation.account("1");
    let gate = Gate::new();
    let slow = script([
        Act::Wait(gate.clone()),
        json_answer(200, &completion(MODEL, 9, 3)),
    ]);
    let wire = account
        .scripted_chat(&sidecar, &slow, &chat(5))
        .wire()
        .await;
    slow.until_arrived(1).await;
    wire.hang_up();
    // Whoever hangs up and calls again has no more in flight than whoever waits.
    let call = account.scripted_chat(&sidecar, &slow, &chat(5));
    for _ in 0..20 {
        call.clone()
            .send()
            .await
            .refused(429, "rate_limit_exceeded");
    }
    gate.open();
    until("its answer has been read", async || {
        let answer = call.clone().send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    account.until_records(2).await;
}

/// Calls until it is let in, as an SDK would, and says when it is turned away.
async fn insist(call: Call, turned_away: &AtomicUsize) {
    loop {
        let answer = call.clone().send().await;
        if answer.status == 200 {
            return;
        }
        let answer = answer.refused(429, "rate_limit_exceeded");
        assert_eq!(violation(&answer)["window"], "in_flight");
        turned_away.fetch_add(1, Ordering::Relaxed);
        let ms = answer.header("retry-after-ms").expect("milliseconds");
        tokio::time::sleep(Duration::from_millis(ms.parse().expect("a number"))).await;
    }
}

async fn until_turned_away(turned_away: &AtomicUsize, times: usize) {
    until("the flood is turned away", async || {
        (turned_away.load(Ordering::Relaxed) >= times).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_one_account_does_not_starve_another() {
    static TURNED_AWAY: AtomicUsize = AtomicUsize::new(0);
    const FLOOD: usize = 500;
    let installation = installation_with_room().await;
    let sidecar = installation.sidecar(&shedding("max_in_flight = 100"));
    let (flooding, other) = (installation.account("10"), installation.account("1"));
    let gate = Gate::new();
    let slow = script([
        Act::Wait(gate.clone()),
        json_answer(200, &completion(MODEL, 9, 3)),
    ]);
    let quick = script([json_answer(200, &completion(MODEL, 9, 3))]);

    let mut flood = JoinSet::new();
    for _ in 0..FLOOD {
        let call = flooding.scripted_chat(&sidecar, &slow, &chat(5));
        flood.spawn(insist(call, &TURNED_AWAY));
    }
    slow.until_arrived(50).await;
    until_turned_away(&TURNED_AWAY, FLOOD).await;
    for _ in 0..20 {
        let call = other.scripted_chat(&sidecar, &quick, &chat(5));
        call.send().await.is(200);
    }
    assert_eq!(
        slow.arrived().len(),
        50,
        "half of the places, and never more"
    );
    gate.open();
    flood.join_all().await;
    flooding.until_records(FLOOD).await;
    other.until_records(20).await;
    installation.verify();
}

/// A chat of so many bytes, of which every word is counted.
fn long_chat(bytes: usize) -> Value {
    let mut body = chat(5);
    body["messages"][0]["content"] = json!("another word ".repeat(bytes / 13));
    body
}

/// A chat of a little more than so many bytes, of which hardly any need be counted.
fn padded_chat(bytes: usize) -> String {
    chat(5).to_string() + &" ".repeat(bytes)
}

#[tokio::test]
async fn a_flood_of_large_bodies_does_not_starve_another_account() {
    static TURNED_AWAY: AtomicUsize = AtomicUsize::new(0);
    const BODY: usize = 256 * 1024;
    const FLOOD: usize = 100;
    let installation = installation_with_room().await;
    let sidecar = installation.sidecar(&shedding("max_buffered_bytes = 12000000"));
    let (flooding, other) = (installation.account("100"), installation.account("100"));
    let quick = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let body = long_chat(BODY);

    let mut flood = JoinSet::new();
    for _ in 0..FLOOD {
        let call = flooding.scripted_chat(&sidecar, &quick, &body);
        flood.spawn(insist(call, &TURNED_AWAY));
    }
    until_turned_away(&TURNED_AWAY, 1).await;
    for _ in 0..3 {
        let call = other.scripted_chat(&sidecar, &quick, &body);
        call.send().await.is(200);
    }
    flood.join_all().await;
    flooding.until_records(FLOOD).await;
    other.until_records(3).await;
}

#[tokio::test]
async fn bodies_that_do_not_come_take_no_room_from_others_and_not_for_ever() {
    const BODY: usize = 1024 * 1024;
    let installation = installation_with_room().await;
    let sidecar = installation.sidecar(&shedding("max_buffered_bytes = 12000000"));
    let (stalling, other) = (installation.account("100"), installation.account("100"));
    let quick = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let body = padded_chat(BODY);
    let call = stalling.scripted_chat(&sidecar, &quick, &chat(5));
    let call = call.body(body.clone());
    let mut wires = Vec::new();
    let refused = until("it has its share", async || {
        let mut wire = Wire::connect(&sidecar.proxy).await;
        wire.write(&call.bytes()[..500]).await;
        wires.push(wire);
        let answer = call.clone().send().await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    let refused = refused.refused(429, "rate_limit_exceeded");
    assert_eq!(violation(&refused)["resource"], "body_bytes");
    assert_eq!(
        violation(&refused)["held"],
        6 * i64::try_from(body.len()).unwrap()
    );
    assert_eq!(refused.header("connection"), Some("close"));
    for _ in 0..3 {
        let call = other.scripted_chat(&sidecar, &quick, &chat(5));
        call.body(body.clone()).send().await.is(200);
    }
    drop(wires);
    until("the room is there again", async || {
        let answer = call.clone().send().await;
        (answer.status == 200).then_some(())
    })
    .await;

    // One that stays connected is not waited for longer than an answer would be.
    let path = "/impatient/v1/chat/completions";
    let call = stalling.post(&sidecar, path, &chat(5)).bytes();
    let mut wire = Wire::connect(&sidecar.proxy).await;
    wire.write(&call[..call.len() - 5]).await;
    let answer = wire.read_to_end().await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("request_timeout"), "{answer}");
}

#[tokio::test]
async fn a_body_whose_length_nobody_says_takes_room_as_it_comes() {
    let installation = installation_with_room().await;
    let sidecar = installation.sidecar(&shedding("max_buffered_bytes = 12000000"));
    let account = installation.account("100");
    let quick = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let head = format!(
        "POST /scripted/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\n\
         transfer-encoding: chunked\r\n\r\n",
        account.key, quick.id
    );
    let framed = |act: Act| match act {
        Act::Send(bytes) => bytes,
        Act::Wait(_) | Act::Close => unreachable!("it is a piece of a body"),
    };
    for (bytes, status) in [(2_900_000, "200"), (5_999_000, "429")] {
        let mut wire = Wire::connect(&sidecar.proxy).await;
        wire.write(head.as_bytes()).await;
        let body = padded_chat(bytes - chat(5).to_string().len());
        for piece in body.as_bytes().chunks(100_000) {
            wire.write(&framed(chunk(piece))).await;
        }
        // What is beyond half of the room is refused as soon as it comes.
        let last = match status {
            "200" => framed(last_chunk()),
            _ => framed(chunk(" ".repeat(4_000))),
        };
        wire.write(&last).await;
        let answer = wire.read_until(b"}").await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert_eq!(answer.contains("body_bytes"), status == "429", "{answer}");
    }
}
