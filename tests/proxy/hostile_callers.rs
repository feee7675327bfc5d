//! Callers who mean harm.
//!
//! | what they send | what becomes of it | where |
//! |---|---|---|
//! | malformed JSON, wrong types, negative and huge `max_tokens`, unknown models | 400 | `requests` |
//! | bodies of 10 MiB | 413 beyond the route's bound, else as any other | here |
//! | a mebibyte of headers, long paths | 431, 414 | here |
//! | invalid UTF-8 | 400 | here |
//! | deep nesting | 400, or forwarded as it came | here |
//! | half-closed sockets, heads and bodies that trickle, answers that nobody reads | ended, as a hang-up is | `slow` |
//! | lengths and chunks that hide another call | 400, or one call, and the connection ends | `smuggling` |
//! | encoded and dotted paths | 403 | `paths`, `tricks` |
//! | texts that are hard to tokenise | bounded work, and others are served meanwhile | here |
//! | guesses at a key | 401, looked up by hash | `identify` |
//! | all of that | memory is bounded, nothing of it is logged | here |
//! | floods | 429, 503 | `fairness`, `throttle` |

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::harness::account::{Account, chat};
use crate::harness::client::{Call, Client, Wire};
use crate::harness::configuration::Settings;
use crate::harness::installation::{
    CREDENTIAL, MODEL, installation, installation_with_room, sidecar,
};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{SCRIPT, Script, completion, json_answer, script};

const MIB: usize = 1024 * 1024;
const CHAT: &str = "/scripted/v1/chat/completions";
/// What must be nowhere afterwards.
const MARKER: &str = "canary-of-the-hostile";

fn served() -> Script {
    script([json_answer(200, &completion(MODEL, 9, 3))])
}

/// A call with this body, whatever it is.
fn raw(account: &Account<'_>, sidecar: &Sidecar, script: &Script, body: Vec<u8>) -> Call {
    let call = account.post(sidecar, CHAT, &Value::Null);
    call.header(SCRIPT, &script.id).body(body)
}

/// A chat whose one message says this.
fn saying(text: &str) -> Vec<u8> {
    let mut body = chat(5);
    body["messages"][0]["content"] = json!(text);
    body.to_string().into_bytes()
}

async fn nothing_happened(account: &Account<'_>, script: &Script) {
    assert!(script.arrived().is_empty(), "{:?}", script.arrived().len());
    account.until_nothing_held().await;
    assert!(account.records().await.is_empty());
    assert_eq!(account.available(), 1_000_000_000);
}

#[tokio::test]
async fn what_is_not_utf8_is_400() {
    let account = installation().await.account("1");
    let script = served();
    let good = saying("hello");
    for bad in [
        b"\xff".as_slice(),
        b"\xc3\x28",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc0\xaf",
    ] {
        for at in [0, 1, 9, good.len() / 2, good.len() - 1, good.len()] {
            let body = [&good[..at], bad, &good[at..]].concat();
            let call = raw(&account, sidecar().await, &script, body);
            call.send().await.refused(400, "invalid_request");
        }
    }
    // A lone surrogate is no text either.
    let escaped = String::from_utf8(good).unwrap().replace("hello", "\\ud800");
    let call = raw(&account, sidecar().await, &script, escaped.into_bytes());
    call.send().await.refused(400, "invalid_request");
    for name in [
        "x-tollgate-user",
        "x-tollgate-project",
        "x-tollgate-tags",
        "x-tollgate-max-charge",
    ] {
        let mut wire = Wire::connect(&sidecar().await.proxy).await;
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\nconnection: close\r\n{name}: ",
            account.key, script.id
        );
        let body = chat(5).to_string();
        let tail = format!("\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        wire.write(&[head.as_bytes(), b"a=\xff\xfe", tail.as_bytes()].concat())
            .await;
        let said = String::from_utf8_lossy(&wire.read_to_end().await).into_owned();
        assert!(said.starts_with("HTTP/1.1 400 "), "{name}: {said}");
    }
    nothing_happened(&account, &script).await;
}

#[tokio::test]
async fn too_much_head_is_431_or_414_also_for_a_caller_that_sends_all_of_it_first() {
    let account = installation().await.account("1");
    let script = served();
    let head = format!(
        "GET /none/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\n",
        account.key, script.id
    );
    let mut many = head.clone();
    for number in 0..20_000 {
        let _ = write!(many, "x-header-{number}: {MARKER}{number}\r\n");
    }
    let large = format!("{head}x-wide: {}\r\n\r\n", "x".repeat(MIB));
    let unending = format!("{head}x-wide: {}", "x".repeat(MIB));
    let name = format!("{head}{}: x\r\n\r\n", "x".repeat(MIB));
    let some = format!("{head}{}\r\n", "x-one: 1\r\n".repeat(101));
    let path = head.replace("/none/x", &format!("/none/{}", "x".repeat(100_000))) + "\r\n";
    for (what, bytes, statuses) in [
        ("many", many, ["431", "431"]),
        ("large", large, ["431", "431"]),
        ("unending", unending, ["431", "431"]),
        ("a name", name, ["431", "400"]),
        ("101", some, ["431", "431"]),
        ("a path", path, ["414", "414"]),
    ] {
        let mut wire = Wire::connect(&sidecar().await.proxy).await;
        wire.write(bytes.as_bytes()).await;
        let said = String::from_utf8_lossy(&wire.read_to_end().await).into_owned();
        let status = said.get(9..12).unwrap_or_default();
        assert!(statuses.contains(&status), "{what}: {said}");
    }
    nothing_happened(&account, &script).await;
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_413_also_for_a_caller_that_sends_all_of_it_first() {
    let account = installation().await.account("1");
    let script = served();
    for framing in ["content-length", "transfer-encoding"] {
        let mut wire = Wire::connect(&sidecar().await.proxy).await;
        let length = 16 * MIB;
        let framing = match framing {
            "content-length" => format!("content-length: {length}\r\n\r\n"),
            _ => format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n"),
        };
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\n{framing}",
            account.key, script.id
        );
        wire.write(head.as_bytes()).await;
        wire.write(&vec![b' '; length]).await;
        let said = String::from_utf8_lossy(&wire.read_to_end().await).into_owned();
        assert!(said.starts_with("HTTP/1.1 413 "), "{framing}: {said}");
        assert!(said.contains("connection: close"), "{framing}: {said}");
    }
    nothing_happened(&account, &script).await;
}

#[tokio::test]
async fn however_deep_a_body_is_nested_it_is_answered() {
    let account = installation().await.account("1");
    let script = served();
    let deep =
        |open: &str, close: &str, depth: usize| open.repeat(depth) + "1" + &close.repeat(depth);
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}"), (r#"{"a":["#, "]}")] {
        for depth in [200, 100_000, MIB / open.len()] {
            let nested = deep(open, close, depth);
            for body in [
                nested.clone(),
                open.repeat(depth),
                format!(r#"{{"model":"{MODEL}","max_tokens":5,"messages":{nested}}}"#),
                format!(r#"{{"model":"{MODEL}","max_tokens":{nested},"messages":[]}}"#),
                format!(r#"{{"model":{nested},"messages":[]}}"#),
                format!(r#"{{"model":"{MODEL}","messages":[{{"role":"user","content":{nested}"#),
            ] {
                let call = raw(&account, sidecar().await, &script, body.into_bytes());
                call.send().await.refused(400, "invalid_request");
            }
        }
    }
    nothing_happened(&account, &script).await;
    // Where it is nobody's business how deep a field is, it is counted and goes on.
    let account = installation().await.account("100");
    let nested = deep("[", "]", 50_000);
    let body = format!(r#"{{"model":"{MODEL}","max_tokens":5,"messages":[],"tools":{nested}}}"#);
    let call = raw(&account, sidecar().await, &script, body.into_bytes());
    call.send().await.is(200);
    assert!(account.until_record().await.reserved > 0);
    account.until_nothing_held().await;
}

/// Texts that a tokeniser has the most work with, each of so many bytes.
fn bombs(bytes: usize) -> Vec<(&'static str, String)> {
    let fill = |piece: &str| piece.repeat(bytes / piece.len());
    let mut noise = 1_u64;
    let base64: String = (0..bytes)
        .map(|_| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            char::from(alphabet[usize::try_from(noise >> 58).unwrap()])
        })
        .collect();
    vec![
        ("one letter", fill("a")),
        ("spaces", fill(" ")),
        ("line ends", fill("\r\n")),
        ("spaces before line ends", fill("  \n")),
        ("tabs", fill("\t")),
        ("dashes", fill("-")),
        ("base64", base64),
        ("marks", fill("\u{301}")),
        ("faces", fill("👩‍👩‍👧‍👦")),
        ("letters of another script", fill("漢字")),
        ("apostrophes", fill("'s")),
        ("digits", fill("1234567890")),
        ("nothing to see", fill("\u{200b}")),
    ]
}

#[tokio::test]
async fn whoever_sends_texts_that_are_hard_to_tokenise_keeps_nobody_waiting_for_ever() {
    let installation = installation_with_room().await;
    // All calls on one thread, as on the smallest machine.
    let one = [("TOLLGATE__LISTEN__THREADS", "1")];
    let sidecar = Sidecar::start_with(&installation.config(&Settings::default()), &one);
    let (hostile, other) = (installation.account("1000"), installation.account("1"));
    let script = served();
    let mut bombs: Vec<_> = bombs(3 * MIB)
        .into_iter()
        .map(|(name, text)| {
            let call = raw(&hostile, &sidecar, &script, saying(&text));
            tokio::spawn(async move { (name, call.send().await) })
        })
        .collect();
    let client = Client::new();
    let mut served_meanwhile = 0;
    while !bombs.iter().all(tokio::task::JoinHandle::is_finished) {
        let call = other.scripted_chat(&sidecar, &script, &chat(5));
        client.send(call).await.is(200);
        served_meanwhile += 1;
    }
    assert!(served_meanwhile > 0);
    let count = bombs.len();
    for bomb in bombs.drain(..) {
        let (name, answer) = bomb.await.expect("a task");
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
    }
    hostile.until_records(count).await;
    hostile.until_nothing_held().await;
}

#[tokio::test]
async fn a_flood_of_hostile_bodies_leaves_no_more_memory_behind_than_is_configured() {
    const BUFFERED: usize = 32 * MIB;
    /// What everything else may come to: buffers of connections, of the allocator, of threads.
    const MARGIN: usize = 200 * MIB;
    let installation = installation_with_room().await;
    let settings = Settings {
        more: format!("[shed]\nmax_buffered_bytes = {BUFFERED}\n"),
        ..Settings::default()
    };
    let sidecar = installation.sidecar(&settings);
    let account = installation.account("1");
    let script = served();
    // The tables of the tokeniser are there from now on.
    let warm = raw(&account, &sidecar, &script, saying("hello"));
    warm.send().await.is(200);
    let before = sidecar.peak_memory_kib();

    let large = |byte: u8| vec![byte; 10 * MIB - 100];
    let bodies = [
        large(b'['),
        large(b' '),
        large(0xff),
        large(b'"'),
        large(b'{'),
    ];
    let head = "x".repeat(MIB);
    for _ in 0..6 {
        let calls = bodies.iter().flat_map(|body| {
            let body = raw(&account, &sidecar, &script, body.clone());
            let head = raw(&account, &sidecar, &script, Vec::new()).header("x-wide", &head);
            [body.clone(), body, head]
        });
        let calls = calls.map(async |call: Call| {
            let mut wire = Wire::connect(&sidecar.proxy).await;
            // It may be refused before all of it is there.
            let _ = wire.try_write(&call.bytes()).await;
            let said = String::from_utf8_lossy(&wire.read_at_most(12).await).into_owned();
            let status = said.get(9..12).unwrap_or_default().to_owned();
            let refused = ["400", "413", "429", "431", "503"].contains(&status.as_str());
            assert!(refused, "{said}");
        });
        futures_util::future::join_all(calls).await;
    }
    let grown = usize::try_from(sidecar.peak_memory_kib() - before).unwrap() * 1024;
    assert!(grown < BUFFERED + MARGIN, "it has grown by {grown} bytes");
    assert_eq!(script.arrived().len(), 1);
    account.until_nothing_held().await;
    assert_eq!(account.records().await.len(), 1);
}

#[tokio::test]
async fn nothing_of_a_hostile_call_is_in_the_log() {
    let installation = installation_with_room().await;
    let settings = Settings {
        log_level: "trace",
        ..Settings::default()
    };
    let brief = [("TOLLGATE__ROUTE__1__BODY_TIMEOUT_MS", "300")];
    let sidecar = Sidecar::start_with(&installation.config(&settings), &brief);
    let account = installation.account("1");
    let script = served();
    let key = &account.key;
    let bodies = [
        format!("{{\"model\": \"{MARKER}"),
        format!("{{\"model\": \"{MARKER}\", \"messages\": []}}"),
        format!("{{\"model\": \"{MODEL}\", \"messages\": \"{MARKER}\"}}"),
        format!("{{\"model\": \"{MODEL}\", \"messages\": [{{\"{MARKER}\": {MARKER}}}]}}"),
        format!("{{\"model\": \"{MODEL}\", \"messages\": [], \"max_tokens\": \"{MARKER}\"}}"),
        format!("{MARKER}{}", "[".repeat(MIB)),
    ];
    for body in bodies {
        let answer = raw(&account, &sidecar, &script, body.into_bytes())
            .send()
            .await;
        assert_eq!(answer.status, 400);
    }
    let head = format!(
        "host: x\r\nauthorization: Bearer {key}\r\n{SCRIPT}: {}",
        script.id
    );
    for bytes in [
        format!(
            "POST {CHAT} HTTP/1.1\r\n{head}\r\nx-wide: {MARKER}{}\r\n\r\n",
            "x".repeat(MIB)
        ),
        format!("POST {CHAT}?{MARKER} HTTP/1.1\r\n{head}\r\ncontent-length: {MARKER}\r\n\r\n"),
        format!("POST {CHAT} HTTP/1.1\r\n{head}\r\ntransfer-encoding: {MARKER}\r\n\r\n"),
        format!("POST {CHAT} HTTP/1.1\r\n{head}\r\ntransfer-encoding: chunked\r\n\r\n{MARKER}\r\n"),
        format!(
            "POST /{MARKER}/../x HTTP/1.1\r\n{head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ),
        format!(
            "POST /none/{MARKER}/../x HTTP/1.1\r\n{head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ),
        format!("{MARKER} {key}\r\n\r\n"),
        format!(
            "GET /none/x HTTP/1.1\r\nhost: x\r\nauthorization: {MARKER}\r\nconnection: close\r\n\r\n"
        ),
        format!(
            "GET /none/x HTTP/1.1\r\nhost: x\r\nx-api-key: {MARKER}\r\nconnection: close\r\n\r\n"
        ),
    ] {
        let mut wire = Wire::connect(&sidecar.proxy).await;
        wire.write(bytes.as_bytes()).await;
        let said = String::from_utf8_lossy(&wire.read_to_end().await).into_owned();
        assert!(said.starts_with("HTTP/1.1 4"), "{said}");
    }
    let mut wire = Wire::connect(&sidecar.proxy).await;
    let slow = format!("POST {CHAT} HTTP/1.1\r\n{head}\r\ncontent-length: 1000\r\n\r\n{MARKER}");
    wire.write(slow.as_bytes()).await;
    let said = wire.trickle(b" ").await;
    assert!(said.starts_with(b"HTTP/1.1 408 "));
    nothing_happened(&account, &script).await;
    let log = sidecar.said();
    for secret in [MARKER, key, CREDENTIAL.trim_start_matches("Bearer ")] {
        assert!(!log.contains(secret), "{secret} is in the log: {log}");
    }
}
