//! The ledger goes away: who is known goes on, who is not is asked to wait, and nothing is lost (rule 32).

use crate::harness::account::{Account, chat};
use crate::harness::configuration::Settings;
use crate::harness::installation::{INPUT_NANOS, Installation, MODEL, OUTPUT_NANOS};
use crate::harness::redis;
use crate::harness::relay::Relay;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{completion, json_answer, script};
use crate::harness::wait::until;

const CHARGE: i64 = 9 * INPUT_NANOS + 3 * OUTPUT_NANOS;

async fn installation() -> (Installation, Relay, Sidecar) {
    let installation = Installation::on_servers(&redis::server().url()).await;
    let (relay, url) = Relay::to(&installation.ledger_url).await;
    let sidecar = installation.sidecar(&Settings {
        ledger_url: Some(url),
        ..Settings::default()
    });
    (installation, relay, sidecar)
}

/// Known callers are served all the time, others once the wire is whole again, and every record arrives.
async fn goes_on_without(break_it: impl FnOnce(&Relay)) {
    let (installation, relay, sidecar) = installation().await;
    let script = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let known = installation.account("1");
    let cold = installation.account("1");
    let call = |account: &Account<'_>| account.scripted_chat(&sidecar, &script, &chat(5));
    call(&known).send().await.is(200);
    known.until_records(1).await;

    break_it(&relay);
    let unready = sidecar.until_ready_is(503).await;
    assert!(
        unready.text().contains("ledger"),
        "it says which: {}",
        unready.text()
    );
    for _ in 0..20 {
        call(&known).send().await.is(200);
    }
    let refused = call(&cold).send().await.refused(503, "quota_unavailable");
    assert!(refused.header("retry-after").is_some());
    // An unknown key may be a new one: 401 would be a lie.
    let stranger = Account {
        key: format!("{}x", known.key),
        id: known.id.clone(),
        key_id: known.key_id.clone(),
        installation: &installation,
    };
    call(&stranger)
        .send()
        .await
        .refused(503, "quota_unavailable");
    assert_eq!(
        known.records().await.len(),
        1,
        "the ledger has heard nothing"
    );

    relay.mend();
    sidecar.until_ready_is(200).await;
    until("cold accounts are served", async || {
        (call(&cold).send().await.status == 200).then_some(())
    })
    .await;
    call(&stranger).send().await.refused(401, "invalid_api_key");
    known.until_records(21).await;
    cold.until_records(1).await;
    assert_eq!(known.available(), 1_000_000_000 - 21 * CHARGE);
    installation.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_32_calls_of_loaded_accounts_go_on_while_the_ledger_is_cut_off() {
    goes_on_without(Relay::cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_loaded_accounts_go_on_while_the_ledger_says_nothing() {
    goes_on_without(Relay::silence).await;
}
