//! The example app, as it is in the ConfigMap: beside a sidecar, with the variables that its pod gives it.

use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::kubernetes;
use crate::harness::client::get;
use crate::harness::installation::{MODEL, installation, sidecar};
use crate::harness::python::python;
use crate::harness::sidecar::DIES_WITH_US;

#[tokio::test]
async fn the_example_app_calls_through_the_sidecar_shows_refusals_and_ends_when_told() {
    let account = installation().await.account("0");
    let mut app = Command::new("sh")
        .args(["-c", DIES_WITH_US, "sh"])
        .arg(python())
        .args(["-B", "-u"])
        .arg(kubernetes().join("app/app.py"))
        .env(
            "OPENAI_BASE_URL",
            format!("{}/openai/v1", sidecar().await.proxy),
        )
        .envs([
            ("OPENAI_API_KEY", account.key.as_str()),
            ("MODEL", MODEL),
            ("PORT", "0"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("sh runs");
    // Held, because waiting for it would close it, which kills it.
    let _alive = app.stdin.take();
    let mut said = BufReader::new(app.stdout.take().expect("a pipe")).lines();
    let said = said.next_line().await.expect("text").expect("a line");
    let port = said
        .strip_prefix("listening on ")
        .expect("it says its port");
    let address = format!("http://127.0.0.1:{port}");

    let health = get(format!("{address}/healthz")).send().await.is(200);
    assert_eq!(health.json(), json!({"ok": true}));
    let refused = get(format!("{address}/ask")).send().await.is(402);
    assert_eq!(refused.json()["error"]["code"], "insufficient_quota");
    account.grant("1");
    get(format!("{address}/ask")).send().await.is(200);
    account.until_record().await;

    let pid = app.id().expect("it runs").to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status().await;
    assert!(told.expect("kill runs").success());
    let ended = app.wait().await.expect("a child");
    assert!(ended.success(), "{ended}");
}
