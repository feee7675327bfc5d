//! The throttle: how fast an account and its keys may call one sidecar, and how much made-up keys may cost.

use std::time::Instant;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::account::{Account, chat};
use crate::harness::client::{Answer, Client, get};
use crate::harness::configuration::Settings;
use crate::harness::installation::{Installation, MODEL, installation_with_room};
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{SCRIPT, Script, completion, json_answer, script};
use crate::harness::wait::until;

fn served() -> Script {
    script([json_answer(200, &completion(MODEL, 9, 3))])
}

fn sidecar(installation: &Installation, more: &str) -> Sidecar {
    let more = more.to_owned();
    installation.sidecar(&Settings {
        more,
        ..Settings::default()
    })
}

/// So many calls at once.
async fn flood(
    account: &Account<'_>,
    sidecar: &Sidecar,
    script: &Script,
    calls: usize,
) -> Vec<Answer> {
    let call = account.scripted_chat(sidecar, script, &chat(5));
    join_all((0..calls).map(|_| call.clone().send())).await
}

/// How many were let through; the others were throttled.
#[track_caller]
fn let_through(answers: &[Answer]) -> usize {
    let refused = answers.iter().filter(|answer| answer.status != 200);
    for refused in refused.clone() {
        refused.clone().refused(429, "rate_limit_exceeded");
    }
    answers.len() - refused.count()
}

#[tokio::test]
async fn a_key_that_calls_too_fast_is_refused_and_takes_nothing() {
    let installation = installation_with_room().await;
    let sidecar = sidecar(
        &installation,
        "[throttle]\nkey = { per_second = 1, burst = 5 }",
    );
    let account = installation.account("1");
    let (key_id, key) = installation.key(&account.id);
    let script = served();

    let answers = flood(&account, &sidecar, &script, 60).await;
    let through = let_through(&answers);
    assert!((5..60).contains(&through), "{through} were let through");
    let refused = answers.iter().find(|answer| answer.status == 429);
    let refused = refused.expect("one was refused");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let ms = refused.header("retry-after-ms").expect("milliseconds");
    assert!((1..=1000).contains(&ms.parse::<u32>().unwrap()), "{ms}");
    assert_eq!(refused.header("x-should-retry"), None);
    assert_eq!(refused.header("connection"), Some("close"));
    let error = refused.explanation();
    assert_eq!(error["type"], "rate_limit_error");
    let violation = &error["violations"][0];
    let numbers = json!({
        "account": account.id, "scope": "key", "resource": "requests", "window": "burst",
        "limit": 5, "used": 5, "held": 0, "requested": 1, "resets_at": violation["resets_at"],
    });
    assert_eq!(*violation, numbers);
    assert!(violation["resets_at"].is_string());

    // Its account's other key has a burst of its own.
    let other = Account {
        installation: &installation,
        id: account.id.clone(),
        key_id,
        key,
    };
    let answer = other
        .scripted_chat(&sidecar, &script, &chat(5))
        .send()
        .await;
    answer.is(200);

    account.until_records(through + 1).await;
    assert_eq!(script.arrived().len(), through + 1);
    account.until_nothing_held().await;
    until("it may call again", async || {
        let call = account.scripted_chat(&sidecar, &script, &chat(5));
        (call.send().await.status == 200).then_some(())
    })
    .await;
    let flat = || account.get(&sidecar, "/flat/x").header(SCRIPT, &script.id);
    let refused = until("a flat call is refused", async || {
        Some(flat().send().await).filter(|answer| answer.status == 429)
    });
    assert_eq!(refused.await.json()["status"], 429);
    installation.verify();
}

#[tokio::test]
async fn an_edited_plans_throttle_counts_at_the_next_call() {
    let installation = installation_with_room().await;
    let sidecar = sidecar(&installation, "");
    let plan = installation.plan("");
    let account = installation.account_on(&plan, "1");
    let script = served();
    let edit = |throttle: &str| {
        let plan = format!("[[plan]]\nkey = \"{plan}\"\nname = \"Test\"\n");
        installation.apply(&format!("{plan}throttle = {throttle}\n"))
    };
    assert_eq!(
        let_through(&flood(&account, &sidecar, &script, 30).await),
        30
    );

    let said = edit("{ account = { per_second = 1, burst = 1 } }");
    assert!(said.contains("account 1 a second and 1 at once"), "{said}");
    // The first comes with a snapshot that knows of no throttle, and counts all the same.
    let began = Instant::now();
    let first = flood(&account, &sidecar, &script, 1).await;
    let answers = flood(&account, &sidecar, &script, 30).await;
    let through = let_through(&first) + let_through(&answers);
    let most = 1 + usize::try_from(began.elapsed().as_secs()).unwrap();
    assert!((1..=most).contains(&through), "{through} of at most {most}");
    let refused = answers.iter().find(|answer| answer.status == 429);
    let explanation = refused.expect("one was refused").explanation();
    assert_eq!(explanation["violations"][0]["scope"], "account");

    // A throttle that names nothing is none, whatever the configuration says.
    edit("{}");
    until("the new plan is known", async || {
        let answers = flood(&account, &sidecar, &script, 1).await;
        (let_through(&answers) == 1).then_some(())
    })
    .await;
    assert_eq!(
        let_through(&flood(&account, &sidecar, &script, 30).await),
        30
    );
}

#[tokio::test]
async fn in_monitor_mode_a_call_too_many_is_told_and_goes_through() {
    let installation = installation_with_room().await;
    let sidecar = sidecar(
        &installation,
        "[throttle]\naccount = { per_second = 1, burst = 1 }",
    );
    let account = installation.account("1");
    let script = served();
    installation.run(&["account", "set", &account.id, "--mode", "monitor"]);
    until("the mode is known", async || {
        let answer = account.scripted_chat(&sidecar, &script, &chat(5)).send();
        (answer.await.status == 200).then_some(())
    })
    .await;
    let answers = flood(&account, &sidecar, &script, 30).await;
    assert_eq!(let_through(&answers), 30);
    let told =
        |answer: &&Answer| answer.header("x-tollgate-would-refuse") == Some("rate_limit_exceeded");
    assert!(answers.iter().filter(told).count() > 0);
}

#[tokio::test]
async fn made_up_keys_cannot_keep_a_known_account_from_calling() {
    const FLOODERS: usize = 100;
    let installation = installation_with_room().await;
    let sidecar = sidecar(&installation, "");
    let account = installation.account("1");
    let script = served();
    let call = account.scripted_chat(&sidecar, &script, &chat(5));
    call.clone().send().await.is(200);

    let url = format!("{}/openai/v1/models", sidecar.proxy);
    let client = Client::new();
    let floods = (0..FLOODERS).map(async |flooder| {
        // Until one is turned away without a question to the ledger.
        for guess in 0..1000 {
            let key = format!("tg-{flooder}-{guess}");
            let answer = client.send(get(&url).key(&key)).await;
            if answer.status == 503 {
                let refused = answer.refused(503, "overloaded");
                assert_eq!(refused.header("retry-after"), Some("1"));
                assert_eq!(
                    refused.explanation()["violations"],
                    Value::Array(Vec::new())
                );
                return 1;
            }
            answer.refused(401, "invalid_api_key");
        }
        0
    });
    let calls = async {
        for _ in 0..20 {
            call.clone().send().await.is(200);
        }
    };
    let (turned_away, ()) = tokio::join!(join_all(floods), calls);
    assert!(
        turned_away.iter().sum::<i32>() > 0,
        "nobody was turned away"
    );

    // A real key that nobody has seen here before is known again soon.
    let newcomer = installation.account("1");
    until("a new key is looked up", async || {
        let call = newcomer.scripted_chat(&sidecar, &script, &chat(5));
        (call.send().await.status == 200).then_some(())
    })
    .await;
}
