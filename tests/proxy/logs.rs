//! The log for machines: whatever happens, each line is one JSON object.

use serde_json::Value;

use crate::harness::account::chat;
use crate::harness::configuration::Settings;
use crate::harness::installation::{Installation, MODEL};
use crate::harness::redis::Server;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{completion, json_answer, script};

#[tokio::test]
async fn every_line_is_json_through_a_start_a_refusal_an_outage_and_a_stop() {
    let mut store = Server::with_options(&["--appendonly", "yes", "--appendfsync", "always"]);
    let installation = Installation::on_servers(&store.url()).await;
    let config = installation.config(&Settings::default());
    let json = ("TOLLGATE__LOG__FORMAT", "json");
    let mut sidecar = Sidecar::start_with(&config, &[json]);
    let account = installation.account("0.000001");
    let served = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let call = || account.scripted_chat(&sidecar, &served, &chat(5));
    call().send().await.refused(402, "insufficient_quota");

    store.kill();
    sidecar.until_ready_is(503).await;
    call().send().await.refused(503, "quota_unavailable");
    store.restart();
    sidecar.until_ready_is(200).await;
    account.grant("1");
    call().send().await.is(200);
    account.until_records(1).await;
    sidecar.ask_to_stop();
    assert!(sidecar.exited().await.success());

    let said = sidecar.said();
    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "{field} in {line}");
        }
    }
    let away = |line: &Value| line["what"] == "store" && line["message"] == "is away";
    let ending = |line: &Value| line["message"] == "ending: calls in flight may finish";
    assert!(lines.iter().any(away), "{said}");
    assert!(lines.iter().any(ending), "{said}");
    // A call that goes as it should writes none, and neither does one that is refused.
    for secret in [&account.key, &account.id] {
        assert!(!said.contains(secret), "{said}");
    }
}

#[tokio::test]
async fn a_start_that_fails_says_so_in_json_too() {
    let installation = Installation::embedded();
    let config = installation.config(&Settings::default());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let environment = [
        ("TOLLGATE__LOG__FORMAT", "json"),
        ("TOLLGATE__LISTEN__PROXY", &taken),
    ];
    let failed = Sidecar::try_start(&config, &environment).err();
    let said = failed.expect("the address is taken").said;
    assert!(said.contains(&taken), "{said}");
    for line in said.lines() {
        let line: Result<Value, _> = serde_json::from_str(line);
        assert!(line.is_ok_and(|line| line.is_object()), "{said}");
    }
}
