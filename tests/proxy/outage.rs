//! The store goes away: calls are refused within a bound, readiness says so, and the sidecar recovers by itself
//! (invariant 8).

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::account::{Account, chat, streamed_chat};
use crate::harness::client::Client;
use crate::harness::configuration::Settings;
use crate::harness::installation::{INPUT_NANOS, Installation, MODEL, OUTPUT_NANOS};
use crate::harness::redis::{self, Server};
use crate::harness::relay::Relay;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{
    Act, DONE, Gate, SCRIPT, Script, chunk, completion, delta, events_head, json_answer,
    last_chunk, script, usage_event,
};
use crate::harness::wait::until;

const CHARGE: i64 = 9 * INPUT_NANOS + 3 * OUTPUT_NANOS;
/// What is configured for a command, and room for a busy machine.
const REFUSED_WITHIN: Duration = Duration::from_secs(6);

fn served() -> Script {
    script([json_answer(200, &completion(MODEL, 9, 3))])
}

/// A Redis that remembers what it acknowledged, whatever happens to it.
fn durable() -> Server {
    Server::with_options(&["--appendonly", "yes", "--appendfsync", "always"])
}

async fn refused_as_configured(account: &Account<'_>, sidecar: &Sidecar) {
    let script = served();
    for path in ["/scripted/v1/chat/completions", "/flat/x"] {
        let began = Instant::now();
        let call = account
            .post(sidecar, path, &chat(5))
            .header(SCRIPT, &script.id);
        let refused = call.send().await.refused(503, "quota_unavailable");
        assert!(began.elapsed() < REFUSED_WITHIN, "{:?}", began.elapsed());
        assert!(refused.header("retry-after").is_some());
        let shape = refused.header("content-type").expect("a content type");
        assert_eq!(shape == "application/problem+json", path == "/flat/x");
    }
    assert!(
        script.arrived().is_empty(),
        "nothing is forwarded that was not held"
    );
}

async fn until_served(account: &Account<'_>, sidecar: &Sidecar) {
    let script = served();
    until("calls are served again", async || {
        let answer = account
            .scripted_chat(sidecar, &script, &chat(5))
            .send()
            .await;
        let away = answer.status == 503;
        (!away).then(|| answer.is(200))
    })
    .await;
}

#[tokio::test]
async fn a_store_that_was_killed_and_comes_back_is_taken_up_again_without_a_restart() {
    let mut store = durable();
    let installation = Installation::on_servers(&store.url()).await;
    let sidecar = installation.sidecar(&Settings::default());
    let account = installation.account("1");
    sidecar.until_ready_is(200).await;
    account
        .scripted_chat(&sidecar, &served(), &chat(5))
        .send()
        .await
        .is(200);
    account.until_records(1).await;

    // A call is under way while the store is away: it ends when it is back.
    let gate = Gate::new();
    let slow = script([
        events_head(),
        chunk(delta(MODEL, " one")),
        Act::Wait(gate.clone()),
        chunk(usage_event(MODEL, 9, 3)),
        chunk(DONE),
        last_chunk(),
    ]);
    let mut stream = account
        .scripted_chat(&sidecar, &slow, &streamed_chat(5))
        .open()
        .await;
    assert!(stream.piece().await.is_some());

    store.kill();
    refused_as_configured(&account, &sidecar).await;
    let unready = sidecar.until_ready_is(503).await;
    assert!(
        unready.text().contains("store"),
        "it says which: {}",
        unready.text()
    );
    gate.open();
    assert!(
        stream.read().await.text().ends_with(DONE),
        "the caller does not notice"
    );

    store.restart();
    until_served(&account, &sidecar).await;
    sidecar.until_ready_is(200).await;
    // A call that was refused because its reserve got no answer in time leaves the record of a release (rule 5).
    let settled = until("three calls are settled", async || {
        let records = account.records().await;
        let settled: Vec<_> = records
            .into_iter()
            .filter(|record| record.outcome == "settled")
            .collect();
        (settled.len() >= 3).then_some(settled)
    })
    .await;
    assert!(
        settled.len() == 3 && settled.iter().all(|record| record.charged == CHARGE),
        "{settled:#?}"
    );
    account.until_nothing_held().await;
    assert_eq!(account.available(), 1_000_000_000 - 3 * CHARGE);
    installation.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_says_nothing_is_away_within_its_bound_and_keeps_no_hold() {
    let installation = Installation::on_servers(&redis::server().url()).await;
    let (relay, url) = Relay::to(&installation.store_url).await;
    let sidecar = installation.sidecar(&Settings {
        store_url: Some(url),
        response_timeout_ms: 500,
        ..Settings::default()
    });
    let account = installation.account("1");
    account
        .scripted_chat(&sidecar, &served(), &chat(5))
        .send()
        .await
        .is(200);
    account.until_records(1).await;
    relay.silence();
    refused_as_configured(&account, &sidecar).await;
    sidecar.until_ready_is(503).await;
    relay.mend();
    until_served(&account, &sidecar).await;
    sidecar.until_ready_is(200).await;
    // What the store heard and could not answer may have been held; it was released all the same (rule 5).
    account.until_nothing_held().await;
    let charged: i64 = account
        .records()
        .await
        .iter()
        .map(|record| record.charged)
        .sum();
    assert_eq!(account.available(), 1_000_000_000 - charged);
    installation.verify();
}

#[tokio::test]
async fn a_sidecar_that_starts_before_its_store_gets_ready_when_the_store_is_there() {
    let mut store = durable();
    let installation = Installation::on_servers(&store.url()).await;
    let account = installation.account("1");
    store.kill();
    let sidecar = installation.sidecar(&Settings::default());
    sidecar.until_ready_is(503).await;
    refused_as_configured(&account, &sidecar).await;
    store.restart();
    sidecar.until_ready_is(200).await;
    until_served(&account, &sidecar).await;
}

#[tokio::test]
async fn a_store_that_may_evict_is_not_ready() {
    let store = Server::start();
    let installation = Installation::on_servers(&store.url()).await;
    let sidecar = installation.sidecar(&Settings::default());
    sidecar.until_ready_is(200).await;
    store.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let unready = sidecar.until_ready_is(503).await;
    assert!(unready.text().contains("noeviction"), "{}", unready.text());
    store.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    sidecar.until_ready_is(200).await;
}

#[tokio::test]
async fn free_paths_need_the_store_as_well_because_an_account_may_be_suspended() {
    let mut store = durable();
    let installation = Installation::on_servers(&store.url()).await;
    let sidecar = installation.sidecar(&Settings::default());
    let account = installation.account("1");
    let models = account.get(&sidecar, "/openai/v1/models");
    models.clone().send().await.is(200);
    store.kill();
    // What was known a moment ago may be believed for a second (rule 13).
    let refused = until("models are refused", async || {
        let answer = models.clone().send().await;
        (answer.status != 200).then(|| answer.refused(503, "quota_unavailable"))
    })
    .await;
    assert_eq!(refused.json()["error"]["type"], Value::from("server_error"));
    store.restart();
    until("models are listed again", async || {
        let answer = Client::new().send(models.clone()).await;
        (answer.status == 200).then_some(())
    })
    .await;
}
