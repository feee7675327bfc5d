//! Told to stop: readiness goes first, calls in flight finish, and what they used is in the ledger before the process
//! is gone.

use crate::harness::account::{chat, streamed_chat};
use crate::harness::client::Client;
use crate::harness::configuration::Settings;
use crate::harness::installation::{INPUT_NANOS, MODEL, OUTPUT_NANOS, installation_with_room};
use crate::harness::upstream::{
    Act, DONE, Gate, chunk, completion, delta, events_head, json_answer, script, stream_that_waits,
};
use crate::harness::wait::until;

#[tokio::test]
async fn calls_in_flight_finish_and_are_in_the_ledger_when_it_exits() {
    let installation = installation_with_room().await;
    let account = installation.account("1");
    let mut stopping = installation.sidecar(&Settings::default());
    stopping.until_ready_is(200).await;
    let gate = Gate::new();
    let whole = script([
        Act::Wait(gate.clone()),
        json_answer(200, &completion(MODEL, 9, 3)),
    ]);
    let stream = stream_that_waits(&gate, MODEL, 9, 4);
    let whole_call = account.scripted_chat(&stopping, &whole, &chat(5));
    let whole_call = tokio::spawn(async move { Client::new().send(whole_call).await });
    let mut streamed = account
        .scripted_chat(&stopping, &stream, &streamed_chat(5))
        .open()
        .await;
    assert!(streamed.piece().await.is_some());
    whole.until_arrived(1).await;

    stopping.ask_to_stop();
    stopping.until_ready_is(503).await;
    until("no new call is taken", async || {
        let call = account.scripted_chat(&stopping, &whole, &chat(5));
        Client::new().try_send(call).await.is_err().then_some(())
    })
    .await;
    assert!(stopping.is_running(), "{}", stopping.said());
    gate.open();
    whole_call.await.expect("no panic").is(200);
    assert!(streamed.read().await.text().ends_with(DONE));

    let status = stopping.exited().await;
    assert_eq!(status.code(), Some(0), "{}", stopping.said());
    let records = account.records().await;
    let mut charges: Vec<_> = records.iter().map(|record| record.charged).collect();
    charges.sort_unstable();
    let charge = |output| 9 * INPUT_NANOS + output * OUTPUT_NANOS;
    assert_eq!(
        charges,
        [charge(3), charge(4)],
        "already there: {records:?}"
    );
    assert_eq!(account.held(), 0);
    installation.verify();
}

#[tokio::test]
async fn a_call_that_outlasts_the_drain_is_cut_off_and_charged_for_what_was_seen() {
    let installation = installation_with_room().await;
    let account = installation.account("1");
    let mut stopping = installation.sidecar(&Settings {
        drain_s: 1,
        ..Settings::default()
    });
    let script = script([
        events_head(),
        chunk(delta(MODEL, " one")),
        Act::Wait(Gate::new()),
    ]);
    let call = account.scripted_chat(&stopping, &script, &streamed_chat(5));
    let mut streamed = call.open().await;
    assert!(streamed.piece().await.is_some());
    stopping.ask_to_stop();
    let status = stopping.exited().await;
    assert_eq!(status.code(), Some(0), "{}", stopping.said());
    assert!(streamed.try_read().await.is_err());
    let records = account.records().await;
    assert_eq!(records.len(), 1, "already there: {records:?}");
    assert_eq!(records[0].output_tokens, 1);
    assert_eq!(records[0].outcome, "settled");
    installation.verify();
}

#[tokio::test]
async fn an_idle_sidecar_stops_at_once() {
    let installation = installation_with_room().await;
    let mut idle = installation.sidecar(&Settings::default());
    idle.ask_to_stop();
    assert_eq!(idle.exited().await.code(), Some(0), "{}", idle.said());
}
