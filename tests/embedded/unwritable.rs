//! A file that can be read but not written: readiness says so, no call is lost or left held, and all goes on afterwards
//! (rule 28, invariant 8).

use std::time::{Duration, Instant};

use sqlx::{Connection, SqliteConnection};

use super::{Embedded, call, scripted_call};
use crate::harness::client::Client;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{Act, Gate, completion, json_answer, script};
use crate::harness::wait::until;

/// Longer than SQLite waits for a lock, and than the store waits before it tries again.
const OUTAGE: Duration = Duration::from_secs(5);
const CREDIT: i64 = 1_000_000_000;

/// The file's only write lock, in other hands.
struct Lock(SqliteConnection);

impl Lock {
    async fn take(home: &Embedded) -> Self {
        let mut conn = open(home).await;
        // The sidecar may be about to write.
        let patient = "PRAGMA busy_timeout = 20000; BEGIN IMMEDIATE";
        let taken = sqlx::raw_sql(patient).execute(&mut conn).await;
        taken.expect("the lock is free at times");
        Self(conn)
    }

    async fn release(mut self) {
        let ended = sqlx::raw_sql("ROLLBACK").execute(&mut self.0).await;
        ended.expect("a transaction");
        self.0.close().await.expect("it is let go");
    }
}

async fn open(home: &Embedded) -> SqliteConnection {
    let url = format!("sqlite://{}", home.path().join("tollgate.db").display());
    SqliteConnection::connect(&url).await.expect("the file")
}

/// How many records there are that ended so.
async fn records(home: &Embedded, outcome: &str) -> i64 {
    let mut conn = open(home).await;
    let count = "SELECT count(*) FROM usage_record WHERE outcome = ?1";
    let count = sqlx::query_scalar(count).bind(outcome);
    let count = count.fetch_one(&mut conn).await.expect("a number");
    conn.close().await.expect("it is let go");
    count
}

/// Readiness names the store, and why; since when. The flusher may have met it, too, and first, and for as long as SQLite
/// waits for the lock the store is only slow.
async fn is_away(sidecar: &Sidecar) -> String {
    until(
        "readiness says that the store cannot be written",
        async || {
            let page = sidecar.readiness().await.is(503).json();
            let away = page["away"].as_array().expect("what is away");
            let store = away.iter().find(|one| one["dependency"] == "store")?;
            let text = |name: &str| store[name].as_str().expect("a text").to_owned();
            let written = text("reason").contains("cannot be written");
            written.then(|| text("since"))
        },
    )
    .await
}

/// The sidecar is ready again, serves, and its books are right.
async fn is_back(home: &Embedded, sidecar: &Sidecar, key: &str) {
    sidecar.until_ready_is(200).await;
    call(sidecar, key).send().await.is(200);
    until("all is settled", async || {
        let all = sidecar.metric("tollgate_endings_waiting").await == 0;
        (all && home.show("acme").held == 0).then_some(())
    })
    .await;
    until("the metric says so, too", async || {
        (sidecar.metric("tollgate_store_up").await == 1).then_some(())
    })
    .await;
    home.run(&["flush"]);
    assert!(home.run(&["verify"]).contains("no drift"));
}

#[tokio::test]
async fn a_file_that_takes_no_writes_is_away_until_it_takes_one() {
    let home = Embedded::new();
    let sidecar = home.sidecar();
    let key = home.account("acme", "1");
    call(&sidecar, &key).send().await.is(200);
    let gate = Gate::new();
    let answer = json_answer(200, &completion("gpt-4o-mini", 5, 7));
    let script = script([Act::Wait(gate.clone()), answer]);
    let under_way = scripted_call(&sidecar, &key, &script);
    let under_way = tokio::spawn(async move { Client::new().send(under_way).await });
    script.until_arrived(1).await;

    let lock = Lock::take(&home).await;
    let began = Instant::now();
    // This one runs into it, so nobody knows whether it is held: it is released afterwards.
    let refused = call(&sidecar, &key).send().await;
    refused.refused(503, "quota_unavailable");
    sidecar.until_ready_is(503).await;
    let since = is_away(&sidecar).await;
    until("the metric says so, too", async || {
        (sidecar.metric("tollgate_store_up").await == 0).then_some(())
    })
    .await;
    while began.elapsed() < OUTAGE {
        let refused = call(&sidecar, &key).send().await;
        refused.refused(503, "quota_unavailable");
        assert_eq!(is_away(&sidecar).await, since);
    }
    gate.open();
    under_way.await.expect("no panic").is(200);
    lock.release().await;

    is_back(&home, &sidecar, &key).await;
    assert_eq!(records(&home, "settled").await, 3);
    assert_eq!(
        records(&home, "released").await,
        1,
        "calls that never reached the store leave nothing behind"
    );
    let said = sidecar.said();
    assert_eq!(said.matches("did not take a group").count(), 1, "{said}");
    assert_eq!(said.matches("takes groups again").count(), 1, "{said}");
}

#[tokio::test]
async fn bounded_calls_go_on_while_a_file_takes_no_writes() {
    let home = Embedded::new()
        .with("TOLLGATE__STORE__ON_STORE_DOWN", "bounded")
        .with("TOLLGATE__STORE__BOUNDED_CREDITS", "0.5");
    let sidecar = home.sidecar();
    let key = home.account("acme", "1");
    call(&sidecar, &key).send().await.is(200);
    let lock = Lock::take(&home).await;
    call(&sidecar, &key).send().await.is(200);
    sidecar.until_ready_is(503).await;
    is_away(&sidecar).await;
    for _ in 0..3 {
        call(&sidecar, &key).send().await.is(200);
    }
    lock.release().await;
    is_back(&home, &sidecar, &key).await;
    assert_eq!(records(&home, "settled").await, 6);
    assert_eq!(records(&home, "released").await, 0);
    assert_eq!(sidecar.metric("tollgate_bounded_calls_total").await, 4);
    assert!(home.show("acme").available < CREDIT);
}
