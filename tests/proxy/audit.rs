//! The audit beside calls that go on: it finds nothing that is not there, and says what is.

use serde_json::Value;

use crate::harness::account::{Account, chat};
use crate::harness::configuration::Settings;
use crate::harness::installation::{DEAR_MODEL, FLAT_NANOS, Installation, MODEL};
use crate::harness::postgres;
use crate::harness::redis::{Server, server};
use crate::harness::sidecar::{Sidecar, run};
use crate::harness::upstream::{completion, json_answer, script};
use crate::harness::wait::until;

const CALLERS: usize = 6;
const AUDITS: usize = 12;
/// What sidecars of these tests wait between two looks of their audit, in seconds.
const OFTEN: (&str, &str) = ("TOLLGATE__LEDGER__AUDIT_INTERVAL_S", "1");

/// One with servers, whatever the rest of the run is on.
async fn served(store_url: &str) -> Installation {
    Installation::at(store_url, &postgres::database().await)
}

fn values(said: &str) -> Vec<Value> {
    let lines = said.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line} is no JSON")))
        .collect()
}

async fn call(sidecar: &Sidecar, account: &Account<'_>, model: &str) -> String {
    let served = script([json_answer(200, &completion(model, 9, 3))]);
    let mut body = chat(5);
    body["model"] = model.into();
    let answer = account.scripted_chat(sidecar, &served, &body).send().await;
    let answer = answer.is(200);
    let id = answer.header("x-tollgate-reservation");
    id.expect("every call says which reservation it was")
        .to_owned()
}

async fn sql(installation: &Installation, statement: &'static str, account: &Account<'_>) {
    let changed = sqlx::query(statement).bind(&account.id);
    let changed = changed.execute(&mut installation.ledger().await).await;
    assert_eq!(changed.expect("the owner may").rows_affected(), 1);
}

#[tokio::test]
async fn verify_finds_nothing_while_calls_grants_and_audits_go_on() {
    let installation = served(&server().url()).await;
    let config = installation.config(&Settings::default());
    let sidecars = [(); 2].map(|()| Sidecar::start_with(&config, &[OFTEN]));
    let accounts = [(); 3].map(|()| installation.account("1000"));
    let audits = {
        let (config, id) = (config.clone(), accounts[0].id.clone());
        std::thread::spawn(move || {
            for round in 0..AUDITS {
                let grant = format!("round-{round}");
                let lot = run(
                    &config,
                    &["grant", &id, "1", "--json", "--source-ref", &grant],
                );
                let lot: Value = serde_json::from_slice(&lot.stdout).expect("JSON");
                let lot = lot["lot"].to_string();
                let commands: [&[&str]; 5] = [
                    &["verify", "--json"],
                    &["withdraw", &id, &lot, "void", "--source-ref", &grant],
                    &["verify", "--account", &id],
                    &[
                        "adjust",
                        &id,
                        "-0.5",
                        "--reason",
                        "why not",
                        "--source-ref",
                        &grant,
                    ],
                    &["verify"],
                ];
                for command in commands {
                    let ran = run(&config, command);
                    assert!(ran.status.success(), "round {round}, {command:?}: {ran:?}");
                }
            }
        })
    };
    let calls = async |caller: usize| {
        let account = &accounts[caller % accounts.len()];
        let sidecar = &sidecars[caller % sidecars.len()];
        while !audits.is_finished() {
            account.chat(sidecar, &chat(5)).send().await.is(200);
        }
    };
    futures_util::future::join_all((0..CALLERS).map(calls)).await;
    audits.join().expect("no audit found anything");
    for sidecar in &sidecars {
        assert!(
            !sidecar.said().contains("does not add up"),
            "{}",
            sidecar.said()
        );
        assert!(sidecar.metric("tollgate_audited_accounts_total").await > 0);
        assert_eq!(sidecar.metric("tollgate_audit_drift").await, 0);
    }
    installation.run(&["flush"]);
    installation.verify();
}

#[tokio::test]
async fn a_store_that_restarts_or_is_emptied_is_never_a_drift() {
    let mut redis = Server::start();
    let installation = served(&redis.url()).await;
    let config = installation.config(&Settings::default());
    let sidecar = Sidecar::start_with(&config, &[OFTEN]);
    let account = installation.account("1000");
    let audits = std::thread::spawn(move || {
        for round in 0..AUDITS {
            let ran = run(&config, &["verify"]);
            // 3 while it is away: then there is nothing to find.
            assert_ne!(ran.status.code(), Some(1), "round {round}: {ran:?}");
            if round % 4 == 1 {
                let _: String = redis.command(&["FLUSHALL"]);
            } else if round % 4 == 3 {
                redis.kill();
                redis.restart();
            }
        }
        redis
    });
    let calls = async || {
        while !audits.is_finished() {
            let answer = account.chat(&sidecar, &chat(5)).send().await;
            assert!(
                [200, 503].contains(&answer.status.as_u16()),
                "{}",
                answer.text()
            );
        }
    };
    futures_util::future::join_all((0..CALLERS).map(|_| calls())).await;
    let _redis = audits.join().expect("no audit found anything");
    sidecar.until_ready_is(200).await;
    account.until_nothing_held().await;
    installation.run(&["flush"]);
    installation.verify();
    assert!(
        !sidecar.said().contains("does not add up"),
        "{}",
        sidecar.said()
    );
}

#[tokio::test]
async fn the_auditor_counts_a_drift_and_says_it_once_by_name() {
    let installation = served(&server().url()).await;
    let config = installation.config(&Settings::default());
    let sidecar = Sidecar::start_with(&config, &[OFTEN]);
    let account = installation.account("1");
    call(&sidecar, &account, MODEL).await;
    account.until_record().await;
    let more = "UPDATE credit_grant SET balance_nanos = balance_nanos + 7 WHERE account_id = $1";
    sql(&installation, more, &account).await;
    until("the metric counts it", async || {
        (sidecar.metric("tollgate_audit_drift").await == 1).then_some(())
    })
    .await;
    let audited = sidecar.metric("tollgate_audited_accounts_total").await;
    until("it was audited once more", async || {
        (sidecar.metric("tollgate_audited_accounts_total").await > audited).then_some(())
    })
    .await;
    let said = sidecar.said();
    let warnings: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("an account does not add up"))
        .collect();
    // The ledger with itself, and the store with the ledger.
    assert_eq!(warnings.len(), 2, "{said}");
    for (warning, what) in warnings.iter().zip(["ledger's balance of lot ", "lot "]) {
        assert!(
            warning.contains(&account.id) && warning.contains(what),
            "{warning}"
        );
    }

    let less = "UPDATE credit_grant SET balance_nanos = balance_nanos - 7 WHERE account_id = $1";
    sql(&installation, less, &account).await;
    until("the metric forgets it", async || {
        (sidecar.metric("tollgate_audit_drift").await == 0).then_some(())
    })
    .await;
    installation.verify();
}

#[tokio::test]
async fn a_shard_that_nobody_can_read_does_not_keep_the_others_from_the_audit() {
    let installation = served(&server().url()).await;
    let accounts = [(); 8].map(|()| installation.account("1"));
    let config = installation.config(&Settings::default());
    let sidecar = Sidecar::start_with(&config, &[OFTEN]);
    let odd = "WITH next AS (
            UPDATE shard SET last_change = last_change + 1
            WHERE id = (SELECT shard FROM account WHERE id = $1) RETURNING id, last_change
        )
        INSERT INTO store_change (shard, seq, account_id, body)
        SELECT id, last_change, $1, '{\"moved\": \"nonsense\"}' FROM next";
    sql(&installation, odd, &accounts[0]).await;
    let elsewhere = "UPDATE account SET debt_nanos = 3 WHERE id = ( \
        SELECT max(id) FROM account WHERE shard <> (SELECT shard FROM account WHERE id = $1))";
    sql(&installation, elsewhere, &accounts[0]).await;
    until("the drift elsewhere is found", async || {
        (sidecar.metric("tollgate_audit_drift").await == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_wiped_store_is_no_drift_and_a_rebuild_makes_it_whole() {
    let redis = Server::start();
    let installation = served(&redis.url()).await;
    let plan = installation.plan(
        r#"{ resource = "tokens", window = "month", limit = 5_000 }, { resource = "requests", window = "day", limit = 9 },
        { resource = "spend", window = "overall", limit = "0.5" }"#,
    );
    let accounts = [(); 3].map(|()| installation.account_on(&plan, "1"));
    let mut sidecar = installation.sidecar(&Settings::default());
    for account in &accounts {
        call(&sidecar, account, MODEL).await;
        account.until_record().await;
    }
    sidecar.ask_to_stop();
    assert!(sidecar.exited().await.success(), "{}", sidecar.said());
    installation.run(&["flush"]);
    let show = |account: &Account| installation.run(&["account", "show", &account.id, "--json"]);
    let before = accounts.each_ref().map(show);
    assert!(before[0].contains("tokens"), "{}", before[0]);
    let _: String = redis.command(&["FLUSHALL"]);

    let wiped = installation.try_run(&["verify"]);
    let [said, noted] = [&wiped.stdout, &wiped.stderr].map(|said| String::from_utf8_lossy(said));
    assert!(wiped.status.success(), "{wiped:?}");
    assert!(said.contains("3 accounts, no drift; 0 live"), "{said}");
    assert!(
        noted.contains("begin a new epoch with their next call"),
        "{noted}"
    );

    let rebuilt = installation.run(&["rebuild", "--yes", "--json"]);
    assert_eq!(values(&rebuilt)[0]["loaded"], 3, "{rebuilt}");
    let said = installation.run(&["verify"]);
    assert!(said.contains("3 accounts, no drift; 3 live"), "{said}");
    // Balances, counters and what is left of every limit.
    assert_eq!(accounts.each_ref().map(show), before);
}

#[tokio::test]
async fn a_reservation_is_explained_by_its_id() {
    let installation = served(&server().url()).await;
    let sidecar = installation.sidecar(&Settings::default());
    let account = installation.account("1");
    let id = call(&sidecar, &account, MODEL).await;
    let record = account.until_record().await;
    let told = values(&installation.run(&["explain", &id, "--json"]));
    assert_eq!(told.len(), 1, "{told:?}");
    let history = &told[0];
    assert_eq!(
        (&history["account"], &history["record"]["id"]),
        (&account.id.as_str().into(), &id.as_str().into())
    );
    assert_eq!(history["record"]["charged_nanos"], record.charged);
    assert_eq!(history["price"]["model"], MODEL);
    assert_eq!(history["taken"]["lots"][0][1], record.charged);
    assert_eq!(history["posting"]["kind"], "usage");
    let entries = history["posting"]["entries"].as_array().expect("entries");
    let amounts = entries
        .iter()
        .map(|entry| entry["amount_nanos"].as_i64().expect("nanos"));
    assert_eq!(amounts.clone().sum::<i64>(), 0, "{entries:?}");
    assert!(
        amounts.clone().any(|amount| amount == record.charged),
        "{entries:?}"
    );

    let people = installation.run(&["explain", &id]);
    for part in [
        &account.id,
        "settled at ",
        "price ",
        "from lot ",
        "usage posting ",
    ] {
        assert!(people.contains(part), "{part}: {people}");
    }
    let nothing = installation.try_run(&["explain", "0198c5f0-6f3e-7c41-9d0a-2b8e64d1a7f3"]);
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");
}

#[tokio::test]
async fn usage_by_anything_is_the_sum_of_the_records() {
    let installation = served(&server().url()).await;
    let sidecar = installation.sidecar(&Settings::default());
    let account = installation.account("1");
    for model in [MODEL, MODEL, DEAR_MODEL] {
        call(&sidecar, &account, model).await;
    }
    let flat = script([json_answer(200, &Value::Null)]);
    let flat_call = account.post(&sidecar, "/flat/tool", &Value::Null);
    let flat_call = flat_call.header(crate::harness::upstream::SCRIPT, &flat.id);
    flat_call.send().await.is(200);
    let records = account.until_records(4).await;
    let charged: i64 = records.iter().map(|record| record.charged).sum();
    let input: i64 = records.iter().map(|record| record.input_tokens).sum();
    let day = |at: time::OffsetDateTime| at.date().to_string();
    let first = day(records.iter().map(|r| r.occurred_at).min().expect("four"));
    let after = records.iter().map(|r| r.occurred_at).max().expect("four") + time::Duration::DAY;

    let listed = values(&installation.run(&["usage", &account.id, "--json"]));
    assert_eq!(listed.len(), 4, "{listed:?}");
    let sum = |lines: &[Value], of: &str| -> i64 {
        let amounts = lines
            .iter()
            .map(|line| line[of].as_i64().expect("a number"));
        amounts.sum()
    };
    assert_eq!(sum(&listed, "charged_nanos"), charged);
    for by in ["day", "model", "route", "project", "key", "user"] {
        let words = [
            "usage",
            &account.id,
            "--by",
            by,
            "--from",
            &first,
            "--to",
            &day(after),
            "--json",
        ];
        let groups = values(&installation.run(&words));
        assert_eq!(sum(&groups, "charged_nanos"), charged, "{by}: {groups:?}");
        assert_eq!(sum(&groups, "input_tokens"), input, "{by}: {groups:?}");
        assert_eq!(sum(&groups, "records"), 4, "{by}: {groups:?}");
    }
    let models = values(&installation.run(&["usage", &account.id, "--by", "model", "--json"]));
    let named = |model: &str| {
        let group = models.iter().find(|group| group["group"] == model);
        group.unwrap_or_else(|| panic!("{model}: {models:?}"))["charged_nanos"].clone()
    };
    assert_eq!(named(""), FLAT_NANOS);
    assert_eq!(named(DEAR_MODEL), named(MODEL).as_i64().expect("nanos") * 5);
    let none = installation.run(&["usage", &account.id, "--to", &first]);
    assert_eq!(none.trim(), "Nothing was used.");
}
