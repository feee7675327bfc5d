//! The store loses what it had while calls are under way: it heals by itself, and nothing is lost, charged twice or left
//! held (rules 21 to 23; invariants 2, 3, 4, 6).

use crate::harness::account::{Account, Record, chat, streamed_chat};
use crate::harness::client::Opened;
use crate::harness::configuration::Settings;
use crate::harness::installation::{INPUT_NANOS, Installation, MODEL, OUTPUT_NANOS};
use crate::harness::redis::Server;
use crate::harness::relay::Relay;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{
    Act, DONE, Gate, Script, chunk, completion, delta, events_head, json_answer, last_chunk,
    script, usage_event,
};
use crate::harness::wait::until;

const GRANTED: i64 = 1_000_000_000;
const CHARGE: i64 = 9 * INPUT_NANOS + 3 * OUTPUT_NANOS;
const STREAMS: usize = 12;

/// Streams that have begun and wait in the middle.
struct Streams {
    gate: Gate,
    _script: Script,
    open: Vec<Opened>,
}

impl Streams {
    async fn begin(account: &Account<'_>, sidecar: &Sidecar) -> Self {
        let gate = Gate::new();
        let script = script([
            events_head(),
            chunk(delta(MODEL, " one")),
            Act::Wait(gate.clone()),
            chunk(usage_event(MODEL, 9, 3)),
            chunk(DONE),
            last_chunk(),
        ]);
        let mut open = Vec::new();
        for _ in 0..STREAMS {
            let call = account.scripted_chat(sidecar, &script, &streamed_chat(50));
            let mut stream = call.open().await;
            assert!(stream.piece().await.is_some());
            open.push(stream);
        }
        Self {
            gate,
            _script: script,
            open,
        }
    }

    /// Lets them end, as their callers expect.
    async fn end(self) {
        self.gate.open();
        for stream in self.open {
            let text = stream.read().await.text();
            assert!(text.ends_with(DONE), "the caller does not notice: {text}");
        }
    }
}

async fn until_served(account: &Account<'_>, sidecar: &Sidecar) {
    let script = script([json_answer(200, &completion(MODEL, 9, 3))]);
    until("calls are served", async || {
        let call = account.scripted_chat(sidecar, &script, &chat(5));
        let answer = call.send().await;
        (answer.status != 503).then(|| answer.is(200))
    })
    .await;
}

/// A call that was refused because its reserve got no answer leaves the record of a release (rule 5).
async fn until_settled(account: &Account<'_>, count: usize) -> Vec<Record> {
    let what = format!("{count} calls are settled");
    let settled = until(&what, async || {
        let mut records = account.records().await;
        records.retain(|record| record.outcome != "released");
        (records.len() >= count).then_some(records)
    })
    .await;
    assert_eq!(settled.len(), count, "{settled:#?}");
    let right = |record: &Record| record.outcome == "settled" && record.charged == CHARGE;
    assert!(settled.iter().all(right), "{settled:#?}");
    settled
}

/// So many calls were charged, nothing is held, and all books say so.
async fn balances(account: &Account<'_>, calls: usize) {
    until_settled(account, calls).await;
    account.until_nothing_held().await;
    let charged = CHARGE * i64::try_from(calls).expect("few calls");
    until("the balance says what the records say", async || {
        (account.available() == GRANTED - charged).then_some(())
    })
    .await;
    account.installation.verify();
}

/// The store loses everything while streams are under way, as told.
async fn survives(mut store: Server, lose: impl FnOnce(&mut Server)) {
    let installation = Installation::on_servers(&store.url()).await;
    let sidecar = installation.sidecar(&Settings::default());
    let account = installation.account("1");
    until_served(&account, &sidecar).await;
    let streams = Streams::begin(&account, &sidecar).await;
    let held = account.held();
    assert!(held > 0);

    lose(&mut store);
    // Long before the next heartbeat, which is 20 seconds away.
    until("all that was held is held again", async || {
        (account.held() == held).then_some(())
    })
    .await;
    until_served(&account, &sidecar).await;
    sidecar.until_ready_is(200).await;
    assert!(sidecar.metric("tollgate_epochs_total").await > 0);
    let held_again = sidecar.metric("tollgate_holds_made_again_total").await;
    assert_eq!(held_again, STREAMS as u64);

    streams.end().await;
    balances(&account, STREAMS + 2).await;
}

#[tokio::test]
async fn streams_under_way_are_held_again_when_the_store_is_emptied() {
    let store = Server::start();
    survives(store, |store| store.command::<()>(&["FLUSHALL"])).await;
}

#[tokio::test]
async fn streams_under_way_are_held_again_when_the_store_is_killed_and_comes_back_empty() {
    let store = Server::start();
    let kill = |store: &mut Server| {
        store.kill();
        store.restart();
    };
    survives(store, kill).await;
}

#[tokio::test]
async fn a_store_that_restarts_with_all_it_had_keeps_every_hold() {
    let mut store = Server::with_options(&["--appendonly", "yes", "--appendfsync", "always"]);
    let installation = Installation::on_servers(&store.url()).await;
    let sidecar = installation.sidecar(&Settings::default());
    let account = installation.account("1");
    until_served(&account, &sidecar).await;
    let streams = Streams::begin(&account, &sidecar).await;
    let held = account.held();
    store.kill();
    sidecar.until_ready_is(503).await;
    store.restart();
    sidecar.until_ready_is(200).await;
    until_served(&account, &sidecar).await;
    until("what was held is held", async || {
        (account.held() == held).then_some(())
    })
    .await;
    assert!(sidecar.metric("tollgate_epochs_total").await > 0);
    let held_again = sidecar.metric("tollgate_holds_made_again_total").await;
    assert_eq!(held_again, 0, "the store had them all");
    streams.end().await;
    balances(&account, STREAMS + 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_while_the_ledger_was_away_is_not_lost_with_the_store() {
    let store = Server::start();
    let installation = Installation::on_servers(&store.url()).await;
    let (relay, url) = Relay::to(&installation.ledger_url).await;
    let sidecar = installation.sidecar(&Settings {
        ledger_url: Some(url),
        ..Settings::default()
    });
    let account = installation.account("1");
    until_served(&account, &sidecar).await;
    account.until_records(1).await;
    let streams = Streams::begin(&account, &sidecar).await;
    relay.cut();
    streams.end().await;
    until("the store has every ending", async || {
        (sidecar.metric("tollgate_endings_waiting").await == 0).then_some(())
    })
    .await;
    assert_eq!(
        account.records().await.len(),
        1,
        "the ledger has heard nothing"
    );
    store.command::<()>(&["FLUSHALL"]);
    relay.mend();
    balances(&account, STREAMS + 1).await;
    let again = sidecar.metric("tollgate_endings_settled_again_total").await;
    assert_eq!(again, STREAMS as u64);
}

#[tokio::test]
async fn a_sidecar_that_ends_cleanly_leaves_nothing_behind_after_a_loss() {
    let store = Server::start();
    let installation = Installation::on_servers(&store.url()).await;
    let mut sidecar = installation.sidecar(&Settings::default());
    let account = installation.account("1");
    until_served(&account, &sidecar).await;
    let streams = Streams::begin(&account, &sidecar).await;
    store.command::<()>(&["FLUSHALL"]);
    sidecar.ask_to_stop();
    streams.end().await;
    let status = sidecar.exited().await;
    assert_eq!(status.code(), Some(0), "{}", sidecar.said());
    let records = account.records().await;
    assert_eq!(records.len(), STREAMS + 1, "already there: {records:#?}");
    // The shards that it did not get to are the next one's to recover.
    let _next = installation.sidecar(&Settings::default());
    balances(&account, STREAMS + 1).await;
}
