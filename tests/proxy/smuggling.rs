//! Calls that hide another call: whatever their heads and chunks claim, at most one reaches the upstream, framed anew, and
//! where the framing is in doubt the connection ends.

use crate::harness::account::Account;
use crate::harness::client::Wire;
use crate::harness::installation::{MODEL, installation, sidecar};
use crate::harness::upstream::{SCRIPT, Script, answer, completion, json_answer, script};

/// The call that must not be seen.
fn hidden(account: &Account<'_>, script: &Script) -> String {
    format!(
        "GET /none/hidden HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\n\r\n",
        account.key, script.id
    )
}

/// Sends these bytes and returns all that is said until the connection ends.
async fn said_to(bytes: &[u8]) -> String {
    let mut wire = Wire::connect(&sidecar().await.proxy).await;
    wire.write(bytes).await;
    String::from_utf8_lossy(&wire.read_to_end().await).into_owned()
}

/// One answer and no more.
#[track_caller]
fn is_one(said: &str, status: u16, what: &str) {
    assert!(
        said.starts_with(&format!("HTTP/1.1 {status} ")),
        "{what}: {said}"
    );
    assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{what}: {said}");
}

#[tokio::test]
async fn a_call_whose_framing_is_in_doubt_is_400_and_the_last_of_its_connection() {
    let account = installation().await.account("1");
    let script = script([answer(200, &[], b"served")]);
    let framings: [&[u8]; 26] = [
        b"content-length: 5\r\ncontent-length: 0",
        b"content-length: 0\r\nContent-Length: 5",
        b"content-length: 5, 5",
        b"content-length: 5, 0",
        b"content-length: +5",
        b"content-length: -5",
        b"content-length: 0x5",
        b"content-length: 5 5",
        b"content-length:",
        b"content-length: 99999999999999999999999999",
        b"content-length: 18446744073709551615",
        b"content-length : 5",
        b"transfer-encoding : chunked",
        b"transfer-encoding: identity",
        b"transfer-encoding: xchunked",
        b"transfer-encoding: chunked, identity",
        b"transfer-encoding: gzip, chunked",
        b"transfer-encoding: chunked\x0b",
        b"transfer-encoding: identity\r\ntransfer-encoding: chunked",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        b"transfer-encoding:\r\n chunked",
        b"x-folded: a\r\n\tb\r\ncontent-length: 5",
        b"x-nul: a\0b\r\ncontent-length: 5",
        b"x-cr: a\rb\r\ncontent-length: 5",
        b"host: y\r\ncontent-length: 5",
        b"\x7f: a\r\ncontent-length: 5",
    ];
    let hidden = hidden(&account, &script);
    for framing in framings {
        let shown = String::from_utf8_lossy(framing);
        let head = format!(
            "POST /none/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\n",
            account.key, script.id
        );
        let tail = format!("\r\n\r\n0\r\n\r\n{hidden}");
        let said = said_to(&[head.as_bytes(), framing, tail.as_bytes()].concat()).await;
        // What is more than any body can have counts as a head that is too large.
        let status = if shown.ends_with("51615") { 431 } else { 400 };
        is_one(&said, status, &shown);
    }
    let arrived = script.arrived();
    assert!(arrived.is_empty(), "{arrived:?}");
    assert!(account.records().await.is_empty());
}

#[tokio::test]
async fn a_first_line_that_may_be_read_in_two_ways_is_4xx() {
    let account = installation().await.account("1");
    let script = script([answer(200, &[], b"served")]);
    let hidden = hidden(&account, &script);
    for line in [
        "POST  /none/x HTTP/1.1",
        "POST /none/x  HTTP/1.1",
        "POST /none/x HTTP/1.1 HTTP/1.1",
        "POST /none/x HTTP/1.2",
        "POST /none/x HTTP/2.0",
        "POST /none/x HTTP/1.1\0",
        "POST /none/x\tHTTP/1.1",
        "PO ST /none/x HTTP/1.1",
        "POST none/x HTTP/1.1",
        "POST * HTTP/1.1",
        "CONNECT /none/x HTTP/1.1",
        "CONNECT none:80 HTTP/1.1",
        "(POST) /none/x HTTP/1.1",
    ] {
        let said = said_to(
            format!(
                "{line}\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\nconnection: close\r\n\
                 content-length: 0\r\n\r\n{hidden}",
                account.key, script.id
            )
            .as_bytes(),
        )
        .await;
        // What is no HTTP at all gets no answer in HTTP.
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 4"),
            "{line}: {said}"
        );
        assert!(said.matches("HTTP/1.1 ").count() <= 1, "{line}: {said}");
    }
    let arrived = script.arrived();
    assert!(arrived.is_empty(), "{arrived:?}");
}

#[tokio::test]
async fn a_length_beside_chunks_counts_for_nothing_and_nothing_follows() {
    let account = installation().await.account("1");
    for framing in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "Content-Length: 0\r\nTRANSFER-ENCODING: CHUNKED",
        "transfer-encoding: chunked\r\ncontent-length: 9\r\ncontent-length: 4",
    ] {
        let script = script([answer(200, &[], b"served")]);
        let said = said_to(
            format!(
                "POST /none/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\n{framing}\r\n\r\n\
                 3\r\none\r\n0\r\n\r\n{}",
                account.key,
                script.id,
                hidden(&account, &script)
            )
            .as_bytes(),
        )
        .await;
        is_one(&said, 200, framing);
        let arrived = script.arrived();
        assert_eq!(arrived.len(), 1, "{framing}: {arrived:?}");
        assert_eq!(arrived[0].body, b"one", "{framing}: {arrived:?}");
        let framings = ["content-length", "transfer-encoding"];
        let framed = framings.map(|name| arrived[0].header(name).is_some());
        assert_ne!(
            framed[0], framed[1],
            "{framing}: one of the two: {arrived:?}"
        );
    }
}

#[tokio::test]
async fn a_call_in_a_body_stays_a_body() {
    let account = installation().await.account("1");
    for method in ["GET", "POST", "DELETE", "OPTIONS"] {
        let script = script([answer(200, &[], b"served")]);
        let hidden = hidden(&account, &script);
        let said = said_to(
            format!(
                "{method} /none/x HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{SCRIPT}: {}\r\n\
                 content-length: {}\r\ncontent-length: {}\r\nconnection: close, content-length\r\n\r\n{hidden}",
                account.key,
                script.id,
                hidden.len(),
                hidden.len(),
            )
            .as_bytes(),
        )
        .await;
        is_one(&said, 200, method);
        let arrived = script.arrived();
        assert_eq!(arrived.len(), 1, "{method}: {arrived:?}");
        assert_eq!(arrived[0].body, hidden.as_bytes(), "{method}: {arrived:?}");
    }
}

#[tokio::test]
async fn chunks_that_are_none_are_400_and_the_last_of_their_connection() {
    let account = installation().await.account("1");
    let script = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let hidden = hidden(&account, &script);
    for chunks in [
        "x\r\n",
        "-1\r\n",
        "+3\r\n{} \r\n0\r\n\r\n",
        "0x3\r\n{} \r\n0\r\n\r\n",
        "3\r\n{}  \r\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2\n{}\r\n0\r\n\r\n",
        "2;a=\r\r\n{}\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "ffffffffffffffff\r\n",
        "\r\n0\r\n\r\n",
    ] {
        let said = said_to(
            format!(
                "POST /brief-body/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
                 {SCRIPT}: {}\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{hidden}",
                account.key, script.id
            )
            .as_bytes(),
        )
        .await;
        let status = said.get(9..12).unwrap_or_default();
        assert!(
            ["400", "408", "413"].contains(&status),
            "{chunks:?}: {said}"
        );
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{chunks:?}: {said}");
    }
    let arrived = script.arrived();
    assert!(arrived.is_empty(), "{arrived:?}");
    account.until_nothing_held().await;
    assert!(account.records().await.is_empty());
}
