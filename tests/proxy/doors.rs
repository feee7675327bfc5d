//! The other doors of a sidecar: for probes, and for the app beside it.

use crate::harness::account::chat;
use crate::harness::client::get;
use crate::harness::configuration::Settings;
use crate::harness::installation::{MODEL, installation_with_room};
use crate::harness::upstream::{completion, json_answer, script};
use crate::harness::wait::until;

#[tokio::test]
async fn a_sidecar_that_says_it_is_ready_serves_its_first_call() {
    let installation = installation_with_room().await;
    let account = installation.account("1");
    let served = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let sidecar = installation.sidecar(&Settings::default());
    account
        .scripted_chat(&sidecar, &served, &chat(5))
        .send()
        .await
        .is(200);
    assert_eq!(sidecar.readiness().await.status, 200);
    account.until_record().await;
}

#[tokio::test]
async fn liveness_and_metrics_are_open_and_the_decision_api_says_that_it_is_not_built() {
    let installation = installation_with_room().await;
    let sidecar = installation.sidecar(&Settings::default());
    get(format!("{}/livez", sidecar.health))
        .send()
        .await
        .is(200);
    get(format!("{}/nothing", sidecar.health))
        .send()
        .await
        .is(404);
    let control = get(format!("{}/v1/check", sidecar.control))
        .send()
        .await
        .is(501);
    assert_eq!(
        control.header("content-type"),
        Some("application/problem+json")
    );

    let account = installation.account("0");
    let served = script([json_answer(200, &completion(MODEL, 9, 3))]);
    account
        .scripted_chat(&sidecar, &served, &chat(5))
        .send()
        .await
        .is(402);
    until("the refusal is counted", async || {
        let metrics = get(format!("{}/metrics", sidecar.health))
            .send()
            .await
            .is(200)
            .text();
        metrics.contains("insufficient_quota").then_some(())
    })
    .await;
}
