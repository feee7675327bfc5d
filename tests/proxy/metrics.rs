//! What the metrics page shows of calls that were made.

use crate::harness::account::{chat, credits};
use crate::harness::client::get;
use crate::harness::configuration::Settings;
use crate::harness::installation::{Installation, MODEL, on_embedded};
use crate::harness::redis;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Act, Gate, SCRIPT, completion, json_answer, script};
use crate::harness::wait::until;

/// Waits until the page has this line.
async fn until_page_has(sidecar: &Sidecar, line: &str) {
    until(&format!("the page has {line}"), async || {
        let page = get(format!("{}/metrics", sidecar.health)).send().await;
        let page = page.is(200).text();
        page.lines().any(|there| there == line).then_some(())
    })
    .await;
}

async fn installation() -> Installation {
    if on_embedded() {
        Installation::embedded()
    } else {
        Installation::new(&redis::server().url()).await
    }
}

#[tokio::test]
async fn calls_are_counted_by_route_and_what_is_in_flight_is_shown_as_held() {
    let installation = installation().await;
    let sidecar = installation.sidecar(&Settings::default());
    let account = installation.account("1");
    for gauge in ["ready", "store_up", "ledger_up", "store_noeviction"] {
        until_page_has(&sidecar, &format!("tollgate_{gauge} 1")).await;
    }
    let gate = Gate::new();
    let answer = json_answer(200, &completion(MODEL, 9, 3));
    let slow = script([Act::Wait(gate.clone()), answer.clone()]);
    let call = account.scripted_chat(&sidecar, &slow, &chat(5));
    let call = tokio::spawn(call.send());
    slow.until_arrived(1).await;
    until_page_has(&sidecar, "tollgate_open_calls 1").await;
    let held = account.held();
    assert!(held > 0);
    until_page_has(
        &sidecar,
        &format!("tollgate_held_credits {}", credits(held)),
    )
    .await;
    gate.open();
    call.await.expect("no panic").is(200);

    let failing = script([json_answer(500, &serde_json::json!({}))]);
    let call = account.scripted_chat(&sidecar, &failing, &chat(5));
    call.send().await.is(500);
    let served = script([answer]);
    let free = account.get(&sidecar, "/none/x").header(SCRIPT, &served.id);
    free.send().await.is(200);
    get(format!("{}/nowhere", sidecar.proxy))
        .send()
        .await
        .is(404);
    account.until_records(2).await;
    for line in [
        "tollgate_admissions_total{route=\"/scripted\"} 2",
        "tollgate_admissions_total{route=\"/flat\"} 0",
        "tollgate_refusals_total{route=\"none\",code=\"unknown_route\"} 1",
        "tollgate_upstream_answers_total{route=\"/scripted\",class=\"2xx\"} 1",
        "tollgate_upstream_answers_total{route=\"/scripted\",class=\"5xx\"} 1",
        "tollgate_upstream_first_byte_seconds_count{route=\"/scripted\"} 2",
        "tollgate_free_calls_total{route=\"/none\"} 1",
        "tollgate_admit_seconds_count 2",
        "tollgate_held_credits 0",
        "tollgate_open_calls 0",
        "tollgate_endings_waiting 0",
        "tollgate_outbox_entries 0",
        "tollgate_outbox_age_seconds 0",
        "tollgate_quarantined_entries 0",
    ] {
        until_page_has(&sidecar, line).await;
    }
}
