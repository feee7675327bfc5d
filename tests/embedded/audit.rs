//! The audit of an installation that is one file, while its owner serves from it.

use std::sync::Arc;
use std::thread;

use serde_json::Value;
use sqlx::{Connection, SqliteConnection};

use super::{Embedded, call, text};
use crate::harness::client::get;
use crate::harness::wait::until;

const AUDITS: usize = 10;
const CALLERS: usize = 4;
const CREDIT: i64 = 1_000_000_000;

/// Changes the file behind everybody's back, past its triggers.
async fn forge(home: &Embedded, statements: &'static str) {
    let url = format!("sqlite://{}", home.path().join("tollgate.db").display());
    let mut file = SqliteConnection::connect(&url).await.expect("the file");
    sqlx::raw_sql(statements)
        .execute(&mut file)
        .await
        .expect(statements);
    file.close().await.expect("it is let go");
}

/// What `verify` finds wrong: each finding's kind.
fn found(home: &Embedded) -> Vec<Value> {
    let ran = home.try_run(&["verify", "--json"]);
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    let said = text(&ran.stdout);
    let values = said
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    values.collect()
}

fn kinds(found: &[Value]) -> Vec<&str> {
    found
        .iter()
        .filter_map(|found| found["what"].as_str())
        .collect()
}

#[tokio::test]
async fn verify_finds_nothing_while_its_owner_serves() {
    let home = Arc::new(Embedded::new().with("TOLLGATE__LEDGER__AUDIT_INTERVAL_S", "1"));
    let sidecar = home.sidecar();
    let key = home.account("acme", "1000");
    call(&sidecar, &key).send().await.is(200);
    let operator = home.clone();
    let audits = thread::spawn(move || {
        for round in 0..AUDITS {
            let name = format!("round-{round}");
            operator.run(&["grant", "acme", "1", "--source-ref", &name]);
            let adjust = [
                "adjust",
                "acme",
                "-1",
                "--reason",
                "why not",
                "--source-ref",
                &name,
            ];
            operator.run(&adjust);
            let said = operator.run(&["verify"]);
            assert!(said.contains("1 account, no drift; 1 live"), "{said}");
            operator.run(&["verify", "--account", "acme"]);
        }
    });
    let calls = async || {
        while !audits.is_finished() {
            call(&sidecar, &key).send().await.is(200);
        }
    };
    futures_util::future::join_all((0..CALLERS).map(|_| calls())).await;
    audits.join().expect("no audit found anything");
    until("the auditor has been round, too", async || {
        let page = get(format!("{}/metrics", sidecar.health)).send().await;
        let never = "\ntollgate_audited_accounts_total 0\n";
        (!page.text().contains(never)).then_some(())
    })
    .await;
    assert!(
        !sidecar.said().contains("does not add up"),
        "{}",
        sidecar.said()
    );
}

#[tokio::test]
async fn whatever_is_changed_in_the_file_is_found_and_named() {
    let home = Embedded::new();
    let sidecar = home.sidecar();
    let key = home.account("acme", "1");
    let answer = call(&sidecar, &key).send().await.is(200);
    let id = answer
        .header("x-tollgate-reservation")
        .expect("an id")
        .to_owned();
    until("it is recorded", async || {
        home.run(&["flush"]);
        let ran = home.try_run(&["explain", &id]);
        ran.status.success().then_some(())
    })
    .await;
    assert!(home.run(&["verify"]).contains("no drift"));

    forge(&home, "DROP TRIGGER records_are_never_changed; UPDATE usage_record SET charged_nanos = charged_nanos + 1").await;
    let drifts = found(&home);
    assert_eq!(kinds(&drifts), ["records", "charge"]);
    assert_eq!(drifts[1]["record"].as_str(), Some(id.as_str()));
    assert_eq!(drifts[0]["because"][0]["id"].as_str(), Some(id.as_str()));
    forge(
        &home,
        "UPDATE usage_record SET charged_nanos = charged_nanos - 1",
    )
    .await;

    forge(&home, "DROP TRIGGER entries_are_never_changed; UPDATE ledger_entry SET amount_nanos = amount_nanos + 2 WHERE book = 'used'").await;
    let drifts = found(&home);
    assert_eq!(kinds(&drifts), ["posting", "records"]);
    assert_eq!(drifts[0]["posting"], drifts[1]["posting"]);
    forge(
        &home,
        "UPDATE ledger_entry SET amount_nanos = amount_nanos - 2 WHERE book = 'used'",
    )
    .await;

    forge(
        &home,
        "UPDATE credit_grant SET balance_nanos = balance_nanos + 3",
    )
    .await;
    assert_eq!(kinds(&found(&home)), ["entries_of_lot", "lot"]);
    forge(
        &home,
        "UPDATE credit_grant SET balance_nanos = balance_nanos - 3",
    )
    .await;
    assert!(home.run(&["verify"]).contains("no drift"));

    forge(
        &home,
        "DROP TRIGGER records_are_never_deleted; DELETE FROM usage_record",
    )
    .await;
    let drifts = found(&home);
    assert_eq!(drifts[0]["what"], "records");
    assert_eq!(drifts[0]["found"], 0);
}

#[tokio::test]
async fn credit_is_taken_out_given_and_rebuilt_in_the_file() {
    let home = Embedded::new();
    let sidecar = home.sidecar();
    let key = home.account("acme", "1");
    let words = [
        "withdraw",
        "acme",
        "1",
        "void",
        "--credits",
        "0.25",
        "--source-ref",
        "ticket-4",
        "--json",
    ];
    let [first, second] = [(); 2]
        .map(|()| -> Value { serde_json::from_str(&home.run(&words)).expect("one line of JSON") });
    assert_eq!(
        (&first["already"], &second["already"]),
        (&false.into(), &true.into())
    );
    home.run(&["adjust", "acme", "2", "--reason", "the outage of May"]);
    assert_eq!(home.show("acme").available, CREDIT / 4 * 11);
    call(&sidecar, &key).send().await.is(200);
    let left = until("the call is settled", async || {
        let shown = home.show("acme");
        (shown.held == 0 && shown.available < CREDIT / 4 * 11).then_some(shown)
    })
    .await;
    home.run(&["rebuild", "--yes"]);
    assert!(
        home.run(&["verify"])
            .contains("1 account, no drift; 1 live")
    );
    assert_eq!(home.show("acme"), left);
    assert!(
        home.run(&["flush", "--quarantined"])
            .starts_with("0 entries")
    );
}
