//! Bounded routes: while the store is away calls go on within their bound, and are charged when it is back (rule 31,
//! invariants 3, 6, 8).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use tempfile::TempDir;

use crate::harness::account::{Account, Record, chat};
use crate::harness::client::Answer;
use crate::harness::configuration::Settings;
use crate::harness::installation::{FLAT_NANOS, INPUT_NANOS, Installation};
use crate::harness::redis::Server;
use crate::harness::relay::Relay;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Act, Gate, SCRIPT, Script, json_answer, script};
use crate::harness::wait::until;

const GRANTED: i64 = 1_000_000_000;
/// What fits into the bound below on the flat route.
const CALLS: usize = 4;

struct Outage {
    store: Mutex<Server>,
    installation: Installation,
    _directory: TempDir,
    journal: PathBuf,
    served: Script,
}

impl Outage {
    async fn new() -> Self {
        let store = Server::with_options(&["--appendonly", "yes", "--appendfsync", "always"]);
        let directory = TempDir::new().expect("a directory");
        Self {
            installation: Installation::on_servers(&store.url()).await,
            journal: directory.path().join("bounded.jsonl"),
            store: Mutex::new(store),
            _directory: directory,
            served: script([json_answer(200, &serde_json::json!({}))]),
        }
    }

    fn sidecar(&self) -> Sidecar {
        self.installation.sidecar(&self.settings())
    }

    fn settings(&self) -> Settings {
        let journal = self.journal.display();
        Settings {
            store_more: format!(
                "on_store_down = \"bounded\"\nbounded_credits = \"0.02\"\nbounded_journal = \"{journal}\""
            ),
            ..Settings::default()
        }
    }

    async fn call(&self, account: &Account<'_>, sidecar: &Sidecar) -> Answer {
        let call = account.post(sidecar, "/flat/x", &chat(5));
        call.header(SCRIPT, &self.served.id).send().await
    }

    async fn stop_store(&self, sidecar: &Sidecar) {
        self.store.lock().unwrap().kill();
        let unready = sidecar.until_ready_is(503).await;
        assert!(unready.text().contains("store"), "{}", unready.text());
    }

    /// Calls until the bound is reached, which must let `CALLS` pass.
    async fn exhaust(&self, account: &Account<'_>, sidecar: &Sidecar) {
        for _ in 0..CALLS {
            self.call(account, sidecar).await.is(200);
        }
        for _ in 0..2 {
            let refused = self.call(account, sidecar).await;
            refused.refused(503, "quota_unavailable");
        }
    }
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).expect("the journal is there").len()
}

fn bounded(records: &[Record]) -> usize {
    let marked = records.iter().filter(|r| r.properties["bounded"] == true);
    marked.count()
}

/// All is charged, nothing is held, nothing is left in the journal.
async fn balances(outage: &Outage, account: &Account<'_>, charged: i64) {
    account.until_nothing_held().await;
    until("the journal is empty", async || {
        (length(&outage.journal) == 0).then_some(())
    })
    .await;
    assert_eq!(account.available(), GRANTED - charged);
    outage.installation.verify();
}

#[tokio::test]
async fn rule_31_calls_go_on_up_to_the_bound_and_are_charged_when_the_store_is_back() {
    let outage = Outage::new().await;
    let sidecar = outage.sidecar();
    let account = outage.installation.account("1");
    let stranger = outage.installation.account("1");
    outage.call(&account, &sidecar).await.is(200);
    account.until_records(1).await;
    for round in 1..=2 {
        outage.stop_store(&sidecar).await;
        outage.exhaust(&account, &sidecar).await;
        let unknown = outage.call(&stranger, &sidecar).await;
        unknown.refused(503, "quota_unavailable");
        assert!(length(&outage.journal) > 0);
        outage.store.lock().unwrap().restart();
        sidecar.until_ready_is(200).await;
        let records = account.until_records(1 + round * CALLS).await;
        assert_eq!(bounded(&records), round * CALLS, "{records:#?}");
        assert!(records.iter().all(|record| record.charged == FLAT_NANOS));
        let calls = i64::try_from(1 + round * CALLS).expect("few calls");
        balances(&outage, &account, calls * FLAT_NANOS).await;
    }
}

#[tokio::test]
async fn a_sidecar_that_is_killed_meanwhile_is_made_up_for_at_its_next_start() {
    let outage = Outage::new().await;
    let mut sidecar = outage.sidecar();
    let account = outage.installation.account("1");
    outage.call(&account, &sidecar).await.is(200);
    account.until_records(1).await;
    outage.stop_store(&sidecar).await;
    for _ in 0..2 {
        outage.call(&account, &sidecar).await.is(200);
    }
    let hanging = script([Act::Wait(Gate::new())]);
    let call = account.scripted_chat(&sidecar, &hanging, &chat(5));
    let wire = call.wire().await;
    hanging.until_arrived(1).await;
    sidecar.kill();
    drop(wire);
    outage.store.lock().unwrap().restart();
    assert!(length(&outage.journal) > 0);

    let sidecar = outage.sidecar();
    sidecar.until_ready_is(200).await;
    let records = account.until_records(4).await;
    assert_eq!(bounded(&records), 3, "{records:#?}");
    let floor = records.iter().find(|record| record.route == "/scripted");
    let floor = floor.expect("the call that hung");
    assert!(
        floor.input_tokens > 0 && floor.output_tokens == 0,
        "{floor:#?}"
    );
    assert_eq!(floor.charged, floor.input_tokens * INPUT_NANOS);
    balances(&outage, &account, 3 * FLAT_NANOS + floor.charged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_says_nothing_may_have_held_them_and_charges_them_once() {
    let outage = Outage::new().await;
    let (relay, url) = Relay::to(&outage.installation.store_url).await;
    let sidecar = outage.installation.sidecar(&Settings {
        store_url: Some(url),
        response_timeout_ms: 500,
        ..outage.settings()
    });
    let account = outage.installation.account("1");
    outage.call(&account, &sidecar).await.is(200);
    account.until_records(1).await;
    relay.silence();
    outage.exhaust(&account, &sidecar).await;
    sidecar.until_ready_is(503).await;
    relay.mend();
    sidecar.until_ready_is(200).await;
    // Those that were refused may have been held, and were released then.
    let settled = until("all calls are settled", async || {
        let mut records = account.records().await;
        records.retain(|record| record.outcome != "released");
        (records.len() > CALLS).then_some(records)
    })
    .await;
    assert_eq!((settled.len(), bounded(&settled)), (CALLS + 1, CALLS));
    let calls = i64::try_from(CALLS + 1).expect("few calls");
    balances(&outage, &account, calls * FLAT_NANOS).await;
}

#[tokio::test]
async fn what_costs_nothing_goes_on_for_whoever_is_known() {
    let outage = Outage::new().await;
    let sidecar = outage.sidecar();
    let (account, stranger) = (
        outage.installation.account("1"),
        outage.installation.account("1"),
    );
    let models = |account: &Account<'_>| account.get(&sidecar, "/openai/v1/models").send();
    models(&account).await.is(200);
    outage.stop_store(&sidecar).await;
    models(&account).await.is(200);
    let refused = models(&stranger).await;
    refused.refused(503, "quota_unavailable");
}

#[tokio::test]
async fn two_sidecars_cannot_share_a_journal() {
    let outage = Outage::new().await;
    let _first = outage.sidecar();
    let config = outage.installation.config(&outage.settings());
    let second = Sidecar::try_start(&config, &[])
        .err()
        .expect("it is refused");
    assert_eq!(
        second.status.and_then(|status| status.code()),
        Some(2),
        "{second:?}"
    );
    assert!(second.said.contains("bounded_journal"), "{second:?}");
}

#[tokio::test]
async fn a_journal_that_is_no_file_is_refused() {
    let outage = Outage::new().await;
    let made = Command::new("mkfifo").arg(&outage.journal).status();
    assert!(made.expect("mkfifo runs").success());
    let config = outage.installation.config(&outage.settings());
    let refused = Sidecar::try_start(&config, &[])
        .err()
        .expect("it is refused");
    assert_eq!(
        refused.status.and_then(|status| status.code()),
        Some(2),
        "{refused:?}"
    );
    assert!(refused.said.contains("not a regular file"), "{refused:?}");
}

/// A line of a call whose account the ledger does not know.
fn of_nobody(id: &str) -> String {
    let settle = serde_json::json!({
        "id": id, "account": "nobody", "outcome": "settled", "charge": 5, "counts": [], "detail": "{}",
    });
    serde_json::json!({ "ended": settle }).to_string() + "\n"
}

#[tokio::test]
async fn a_call_of_an_account_that_the_ledger_does_not_know_is_put_aside() {
    const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
    let outage = Outage::new().await;
    let line = of_nobody(ID);
    std::fs::write(&outage.journal, &line).unwrap();
    let aside = PathBuf::from(format!("{}.aside", outage.journal.display()));
    // It cannot be written there so far.
    std::fs::create_dir(&aside).unwrap();
    let sidecar = outage.sidecar();
    until("it says that it cannot", async || {
        let said = sidecar.said();
        let failed = |line: &&str| line.contains(ID) && line.contains("bounded.jsonl.aside");
        said.lines().find(failed).map(drop)
    })
    .await;
    assert!(length(&outage.journal) > 0, "it is kept");
    std::fs::remove_dir(&aside).unwrap();
    until("the journal is empty", async || {
        (length(&outage.journal) == 0).then_some(())
    })
    .await;
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("a line");
    let put = std::fs::read_to_string(&aside).expect("it is put aside");
    assert_eq!(read(&put), read(&line));
    until("it says so", async || {
        let said = sidecar.said();
        let error = |line: &&str| line.contains("ERROR") && line.contains(ID);
        said.lines().find(error).map(drop)
    })
    .await;
}
