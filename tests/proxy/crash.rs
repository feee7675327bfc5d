//! A sidecar that dies: what it held lapses by itself, once, and is nobody's problem afterwards (invariant 2).

use std::time::{Duration, Instant};

use serde_json::json;
use time::OffsetDateTime;

use crate::harness::account::{Account, chat, credits, streamed_chat};
use crate::harness::client::{Client, Opened};
use crate::harness::configuration::Settings;
use crate::harness::installation::{
    INPUT_NANOS, MODEL, OUTPUT_NANOS, SWEEP_MS, installation, installation_with_room, sidecar,
};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Act, Gate, chunk, delta, events_head, script};
use crate::harness::wait::until;

const IN_FLIGHT: usize = 100;
const DEADLINE_S: u32 = 2;
/// A busy machine's share in a bound that is otherwise exact.
const SLACK: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_hundred_holds_of_a_killed_sidecar_lapse_within_a_deadline_and_a_sweep() {
    let installation = installation_with_room().await;
    let body = chat(50);
    let estimate = estimate(&body).await;
    // Exactly enough, so that a hold that never went away would refuse somebody.
    let account = installation.account(&credits(estimate * 100));
    let mut doomed = short_lived(&account);
    let script = script([Act::Wait(Gate::new())]);
    let callers = (0..IN_FLIGHT).map(|_| {
        let call = account.scripted_chat(&doomed, &script, &body);
        tokio::spawn(async move { Client::new().try_send(call).await })
    });
    let callers: Vec<_> = callers.collect();
    script.until_arrived(IN_FLIGHT).await;
    assert_eq!(account.held(), estimate * 100);
    let witness = if installation.is_embedded() {
        &doomed
    } else {
        sidecar().await
    };
    account
        .chat(witness, &body)
        .send()
        .await
        .refused(429, "budget_in_flight");

    let killed = OffsetDateTime::now_utc();
    doomed.kill();
    for caller in callers {
        assert!(
            caller.await.expect("no panic").is_err(),
            "nobody answers for the dead"
        );
    }

    let next = successor(&account);
    let records = account.until_records(IN_FLIGHT).await;
    let bound = Duration::from_secs(DEADLINE_S.into()) + Duration::from_millis(SWEEP_MS) + SLACK;
    for record in &records {
        assert_eq!(record.outcome, "lapsed");
        assert_eq!(record.reserved, estimate);
        // It was forwarded, so its input is charged (rule 6).
        assert_eq!(
            record.charged,
            record.input_tokens * INPUT_NANOS,
            "{record:?}"
        );
        assert!(record.charged > 0);
        assert!(record.occurred_at - killed < bound, "{killed} {record:?}");
    }
    account.until_nothing_held().await;
    let charged: i64 = records.iter().map(|record| record.charged).sum();
    assert_eq!(account.available(), estimate * 100 - charged);
    let witness = match &next {
        Some(next) => next,
        None => sidecar().await,
    };
    account.chat(witness, &body).send().await.is(200);
    account.until_records(IN_FLIGHT + 1).await;
    installation.verify();
}

#[tokio::test]
async fn rule_09_a_killed_sidecars_streams_are_charged_what_their_last_heartbeat_said() {
    let installation = installation_with_room().await;
    let account = installation.account("1");
    let mut doomed = short_lived(&account);
    let words = [" one", " two", " three"].map(|word| chunk(delta(MODEL, word)));
    let acts = [events_head()]
        .into_iter()
        .chain(words)
        .chain([Act::Wait(Gate::new())]);
    let script = script(acts);
    let opened = account
        .scripted_chat(&doomed, &script, &streamed_chat(50))
        .open()
        .await;
    let stream = read_three(opened).await;

    // A hold without heartbeats would have lapsed by then.
    let two_deadlines = Duration::from_secs(2 * u64::from(DEADLINE_S));
    let began = Instant::now();
    until("two deadlines have passed", async || {
        assert!(
            account.records().await.is_empty(),
            "it lapsed although its sidecar lives"
        );
        (began.elapsed() > two_deadlines).then_some(())
    })
    .await;
    doomed.kill();
    drop(stream);

    let _next = successor(&account);
    let record = account.until_record().await;
    assert_eq!(record.outcome, "lapsed");
    assert_eq!(record.output_tokens, 3);
    let charge = record.input_tokens * INPUT_NANOS + 3 * OUTPUT_NANOS;
    assert_eq!(record.charged, charge);
    installation.verify();
}

async fn read_three(mut opened: Opened) -> Opened {
    let mut came = Vec::new();
    while !String::from_utf8_lossy(&came).contains("three") {
        came.extend(opened.piece().await.expect("three words"));
    }
    opened
}

fn short_lived(account: &Account<'_>) -> Sidecar {
    account.installation.sidecar(&Settings {
        deadline_s: DEADLINE_S,
        ..Settings::default()
    })
}

/// Others sweep up after the dead; where there are none, whoever opens its file next.
fn successor(account: &Account<'_>) -> Option<Sidecar> {
    let is_embedded = account.installation.is_embedded();
    is_embedded.then(|| short_lived(account))
}

/// What such a call holds.
async fn estimate(body: &serde_json::Value) -> i64 {
    let probe = installation().await.account("1");
    probe.chat(sidecar().await, body).send().await.is(200);
    let record = probe.until_record().await;
    assert_ne!(body["model"], json!(null));
    record.reserved
}
