//! Refusals for want of credit or quota: the right one of four, with every number right (invariant 7).

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::harness::account::{chat, credits, input_estimate};
use crate::harness::client::{Answer, Client};
use crate::harness::installation::{
    EMBEDDING_MODEL, FLAT_NANOS, INPUT_NANOS, MODEL, OUTPUT_NANOS, UPGRADE_URL, installation,
    sidecar,
};
use crate::harness::upstream::{Act, Gate, SCRIPT, Script, completion, json_answer, script};
use crate::harness::wait::until;

fn served(input: i64, output: i64) -> Script {
    script([json_answer(200, &completion(MODEL, input, output))])
}

#[track_caller]
fn violations(refused: &Answer) -> Vec<Value> {
    let explanation = refused.explanation();
    assert_eq!(explanation["upgrade_url"], UPGRADE_URL);
    explanation["violations"]
        .as_array()
        .expect("violations")
        .clone()
}

/// The one violation, checked against these numbers.
#[track_caller]
fn violation(refused: &Answer, expected: &Value) -> Value {
    let mut violations = violations(refused);
    assert_eq!(violations.len(), 1, "{}", refused.text());
    let violation = violations.remove(0);
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&violation[name], value, "{name} of {violation}");
    }
    violation
}

#[track_caller]
fn is_final(refused: &Answer) {
    assert_eq!(
        refused.header("x-should-retry"),
        Some("false"),
        "{:?}",
        refused.headers
    );
    assert_eq!(refused.header("retry-after"), None);
}

#[tokio::test]
async fn an_empty_wallet_is_402_insufficient_quota() {
    let input = input_estimate().await;
    let account = installation().await.account("0");
    let script = served(9, 3);
    let call = account.scripted_chat(sidecar().await, &script, &chat(50));
    let refused = call.send().await.refused(402, "insufficient_quota");
    is_final(&refused);
    let requested = input * INPUT_NANOS + 50 * OUTPUT_NANOS;
    let numbers = json!({
        "scope": "account", "limit": 0, "used": 0, "held": 0, "requested": requested,
        "window": null, "resets_at": null,
    });
    violation(&refused, &numbers);
    let error = &refused.json()["error"];
    assert_eq!(error["type"], "insufficient_quota");
    assert!(
        error["message"]
            .as_str()
            .is_some_and(|said| said.contains(&account.id)),
        "{error}"
    );
    assert!(error.get("param").is_some());
    assert!(script.arrived().is_empty(), "it was never forwarded");
    assert!(
        account.records().await.is_empty(),
        "a refusal takes nothing"
    );
}

#[tokio::test]
async fn not_even_one_token_of_output_is_402_insufficient_quota() {
    let least = input_estimate().await * INPUT_NANOS + OUTPUT_NANOS;
    let account = installation().await.account(&credits(least - 1));
    let sidecar = sidecar().await;
    let script = served(9, 1);
    let call = |max| account.scripted_chat(sidecar, &script, &chat(max));
    let refused = call(50).send().await.refused(402, "insufficient_quota");
    violation(&refused, &json!({"limit": least - 1, "used": 0, "held": 0}));
    call(1).send().await.refused(402, "insufficient_quota");
    account.grant(&credits(1));
    call(1).send().await.is(200);
}

#[tokio::test]
async fn an_embedding_that_does_not_fit_is_402_insufficient_quota() {
    let account = installation().await.account(&credits(INPUT_NANOS));
    let body = json!({"model": EMBEDDING_MODEL, "input": "more than one token, surely"});
    let call = account.post(sidecar().await, "/openai/v1/embeddings", &body);
    let refused = call.clone().send().await.refused(402, "insufficient_quota");
    is_final(&refused);
    let wanted = violation(&refused, &json!({"limit": INPUT_NANOS}))["requested"].clone();
    account.grant(&credits(wanted.as_i64().expect("nanos") - INPUT_NANOS));
    call.send().await.is(200);
    assert_eq!(account.until_record().await.reserved, wanted);
}

#[tokio::test]
async fn a_call_too_big_names_the_largest_max_tokens_which_then_fits() {
    let input = input_estimate().await;
    // Room for 20 tokens of output and a bit that is of no use.
    let balance = input * INPUT_NANOS + 20 * OUTPUT_NANOS + OUTPUT_NANOS - 1;
    let account = installation().await.account(&credits(balance));
    let sidecar = sidecar().await;
    let script = served(9, 1);
    let call = |max| account.scripted_chat(sidecar, &script, &chat(max));

    let refused = call(21).send().await.refused(402, "request_exceeds_budget");
    is_final(&refused);
    assert_eq!(refused.explanation()["max_tokens"], 20);
    let requested = input * INPUT_NANOS + 21 * OUTPUT_NANOS;
    let numbers = json!({"limit": balance, "used": 0, "held": 0, "requested": requested});
    violation(&refused, &numbers);
    let message = refused.explanation()["message"].clone();
    assert!(
        message
            .as_str()
            .is_some_and(|message| message.contains("20")),
        "{message}"
    );

    call(20).send().await.is(200);
    assert_eq!(
        account.until_record().await.reserved,
        balance - (OUTPUT_NANOS - 1)
    );
}

#[tokio::test]
async fn several_choices_share_what_fits() {
    let input = input_estimate().await;
    let account = installation()
        .await
        .account(&credits(input * INPUT_NANOS + 20 * OUTPUT_NANOS));
    let sidecar = sidecar().await;
    let script = served(9, 1);
    let call = |max| {
        let mut body = chat(max);
        body["n"] = json!(3);
        account.scripted_chat(sidecar, &script, &body)
    };
    let refused = call(7).send().await.refused(402, "request_exceeds_budget");
    assert_eq!(refused.explanation()["max_tokens"], 6);
    call(6).send().await.is(200);
}

#[tokio::test]
async fn a_caller_who_names_no_maximum_is_told_one_that_fits() {
    let input = input_estimate().await;
    let account = installation()
        .await
        .account(&credits(input * INPUT_NANOS + 6 * OUTPUT_NANOS));
    let script = served(9, 1);
    let mut body = chat(0);
    body.as_object_mut()
        .expect("an object")
        .remove("max_tokens");
    let call = |body: &Value, sidecar| {
        let call = account.post(sidecar, "/brief/v1/chat/completions", body);
        call.header(SCRIPT, &script.id)
    };
    let refused = call(&body, sidecar().await).send().await;
    let refused = refused.refused(402, "request_exceeds_budget");
    assert_eq!(refused.explanation()["max_tokens"], 6);
    let held = input * INPUT_NANOS + 7 * OUTPUT_NANOS;
    violation(&refused, &json!({"requested": held}));
    body["max_completion_tokens"] = json!(6);
    call(&body, sidecar().await).send().await.is(200);
}

#[tokio::test]
async fn calls_in_flight_that_hold_the_rest_are_429_budget_in_flight() {
    let estimate = input_estimate().await * INPUT_NANOS + 50 * OUTPUT_NANOS;
    let account = installation().await.account(&credits(2 * estimate - 1));
    let sidecar = sidecar().await;
    let gate = Gate::new();
    let slow = script([
        Act::Wait(gate.clone()),
        json_answer(200, &completion(MODEL, 1, 1)),
    ]);
    let in_flight = account.scripted_chat(sidecar, &slow, &chat(50));
    let in_flight = tokio::spawn(async move { Client::new().send(in_flight).await });
    slow.until_arrived(1).await;

    let quick = served(1, 1);
    let call = || account.scripted_chat(sidecar, &quick, &chat(50));
    let refused = call().send().await.refused(429, "budget_in_flight");
    let numbers = json!({
        "scope": "account", "limit": 2 * estimate - 1, "used": 0, "held": estimate,
        "requested": estimate, "window": null, "resets_at": null,
    });
    violation(&refused, &numbers);
    assert_eq!(refused.header("retry-after"), Some("1"));
    let ms: u64 = refused
        .header("retry-after-ms")
        .expect("a time")
        .parse()
        .expect("a number");
    assert!((1..=1000).contains(&ms), "{ms}");
    assert_ne!(refused.header("x-should-retry"), Some("false"));
    // What can never fit is not a matter of waiting, whatever is in flight.
    let most = account.scripted_chat(sidecar, &quick, &chat(1000));
    most.send().await.refused(402, "request_exceeds_budget");

    gate.open();
    in_flight.await.expect("no panic").is(200);
    until("the call fits", async || {
        let answer = call().send().await;
        (answer.status == 200).then_some(())
    })
    .await;
    account.until_records(2).await;
    assert_eq!(
        account.available(),
        2 * estimate - 1 - 2 * (INPUT_NANOS + OUTPUT_NANOS)
    );
}

#[tokio::test]
async fn the_largest_max_tokens_counts_what_calls_in_flight_will_give_back() {
    let input = input_estimate().await;
    let estimate = input * INPUT_NANOS + 50 * OUTPUT_NANOS;
    let account = installation().await.account(&credits(estimate));
    let sidecar = sidecar().await;
    let gate = Gate::new();
    let slow = script([Act::Wait(gate.clone()), json_answer(500, &json!({}))]);
    let in_flight = account.scripted_chat(sidecar, &slow, &chat(50));
    let in_flight = tokio::spawn(async move { Client::new().send(in_flight).await });
    slow.until_arrived(1).await;
    let quick = served(1, 1);
    let call = account.scripted_chat(sidecar, &quick, &chat(60));
    let refused = call.send().await.refused(402, "request_exceeds_budget");
    assert_eq!(refused.explanation()["max_tokens"], 50);
    violation(
        &refused,
        &json!({"limit": estimate, "held": estimate, "used": 0}),
    );
    gate.open();
    in_flight.await.expect("no panic").is(500);
}

#[tokio::test]
async fn a_spent_month_is_429_rate_limit_exceeded_until_it_ends() {
    let input = input_estimate().await;
    let installation = installation().await;
    let plan = installation.plan(r#"{ resource = "requests", window = "month", limit = 2 }"#);
    let account = installation.account_on(&plan, "1");
    let sidecar = sidecar().await;
    let script = served(input, 1);
    let call = || account.scripted_chat(sidecar, &script, &chat(1));
    for _ in 0..2 {
        call().send().await.is(200);
    }
    account.until_records(2).await;
    let refused = call().send().await.refused(429, "rate_limit_exceeded");
    let numbers = json!({
        "scope": "account", "resource": "requests", "window": "month",
        "limit": 2, "used": 2, "held": 0, "requested": 1,
    });
    let violation = violation(&refused, &numbers);
    let resets_at =
        OffsetDateTime::parse(violation["resets_at"].as_str().expect("a time"), &Rfc3339);
    let resets_at = resets_at.expect("RFC 3339");
    assert_eq!(
        (resets_at.day(), resets_at.hour(), resets_at.minute()),
        (1, 0, 0)
    );
    let wait = (resets_at - OffsetDateTime::now_utc()).whole_seconds();
    let said: i64 = refused
        .header("retry-after")
        .expect("a time")
        .parse()
        .expect("seconds");
    assert!((wait - 2..=wait + 2).contains(&said), "{said} for {wait}");
    let ms: i64 = refused
        .header("retry-after-ms")
        .expect("a time")
        .parse()
        .expect("ms");
    assert!(
        (wait * 1000 - 2000..=wait * 1000 + 2000).contains(&ms),
        "{ms} for {wait} s"
    );
    assert_eq!(refused.header("x-should-retry").is_some(), said > 60);
}

#[tokio::test]
async fn a_month_that_ends_within_a_minute_is_worth_a_retry_and_then_lets_calls_through() {
    let installation = installation().await;
    let plan = installation.plan(r#"{ resource = "requests", window = "month", limit = 1 }"#);
    let account = installation.account_on(&plan, "1");
    // The account's month ends in a few seconds. Nobody has loaded it yet, so the ledger may be written by hand.
    if installation.is_embedded() {
        let end = "UPDATE account SET anchor_at = CAST(unixepoch('subsec') * 1000 AS INTEGER) + 4000 WHERE id = $1";
        let end = sqlx::query(end).bind(&account.id);
        let ended = end.execute(&mut installation.file().await).await;
        ended.expect("an account");
    } else {
        let end = "UPDATE account SET anchor_at = date_trunc('milliseconds', now() + interval '4 seconds') WHERE id = $1";
        let end = sqlx::query(end).bind(&account.id);
        let ended = end.execute(&mut installation.ledger().await).await;
        ended.expect("an account");
    }
    let sidecar = sidecar().await;
    let script = served(1, 1);
    let call = || account.scripted_chat(sidecar, &script, &chat(1));
    call().send().await.is(200);
    let refused = call().send().await.refused(429, "rate_limit_exceeded");
    assert_eq!(
        refused.header("x-should-retry"),
        None,
        "{:?}",
        refused.headers
    );
    let said: u64 = refused
        .header("retry-after")
        .expect("a time")
        .parse()
        .expect("seconds");
    assert!((1..=4).contains(&said), "{said}");
    until("the month is over", async || {
        (call().send().await.status == 200).then_some(())
    })
    .await;
    call().send().await.refused(429, "rate_limit_exceeded");
    account.until_records(2).await;
    installation.verify();
}

#[tokio::test]
async fn a_spent_limit_that_never_resets_is_402_insufficient_quota() {
    let installation = installation().await;
    let sidecar = sidecar().await;
    for (resource, window, limit) in [
        ("requests", "overall", 1),
        ("messages", "cumulative", 1),
        ("requests", "cumulative", 1),
    ] {
        let quota =
            format!(r#"{{ resource = "{resource}", window = "{window}", limit = {limit} }}"#);
        let account = installation.account_on(&installation.plan(&quota), "1");
        let script = served(1, 1);
        let call = || account.scripted_chat(sidecar, &script, &chat(1));
        call().send().await.is(200);
        account.until_records(1).await;
        let refused = call().send().await.refused(402, "insufficient_quota");
        is_final(&refused);
        let numbers = json!({
            "resource": resource, "window": window, "limit": limit, "used": 1, "held": 0,
            "requested": 1, "resets_at": null,
        });
        violation(&refused, &numbers);
    }
}

#[tokio::test]
async fn a_spent_spend_limit_is_402_even_though_its_window_resets() {
    let installation = installation().await;
    let quota = r#"{ resource = "spend", window = "month", limit = "0.000100" }"#;
    let account = installation.account_on(&installation.plan(quota), "1");
    let script = served(0, 45);
    let sidecar = sidecar().await;
    account
        .scripted_chat(sidecar, &script, &chat(1))
        .send()
        .await
        .is(200);
    account.until_records(1).await;
    let refused = account
        .scripted_chat(sidecar, &script, &chat(50))
        .send()
        .await;
    let refused = refused.refused(402, "insufficient_quota");
    is_final(&refused);
    let numbers = json!({
        "resource": "spend", "window": "month", "limit": 100_000, "used": 90_000, "held": 0,
    });
    let violation = violation(&refused, &numbers);
    assert!(violation["resets_at"].is_string(), "{violation}");
}

#[tokio::test]
async fn a_token_limit_names_the_largest_max_tokens_too() {
    let input = input_estimate().await;
    let installation = installation().await;
    let limit = input + 10;
    let quota = format!(r#"{{ resource = "tokens", window = "month", limit = {limit} }}"#);
    let account = installation.account_on(&installation.plan(&quota), "1");
    let sidecar = sidecar().await;
    let script = served(1, 1);
    let call = |max| account.scripted_chat(sidecar, &script, &chat(max));
    let refused = call(11).send().await.refused(402, "request_exceeds_budget");
    assert_eq!(refused.explanation()["max_tokens"], 10);
    let numbers =
        json!({"resource": "tokens", "limit": limit, "used": 0, "held": 0, "requested": limit + 1});
    violation(&refused, &numbers);
    call(10).send().await.is(200);
}

#[tokio::test]
async fn all_limits_that_do_not_fit_are_named_and_the_hardest_decides() {
    let input = input_estimate().await;
    let installation = installation().await;
    let plan = installation.plan(
        r#"{ resource = "requests", window = "month", limit = 1 },
           { resource = "messages", window = "week", limit = 1 },
           { resource = "tokens", window = "month", limit = 1000000 }"#,
    );
    let spent = INPUT_NANOS + OUTPUT_NANOS;
    let account = installation.account_on(
        &plan,
        &credits(spent + input * INPUT_NANOS + 5 * OUTPUT_NANOS),
    );
    let sidecar = sidecar().await;
    let script = served(1, 1);
    let call = |max| account.scripted_chat(sidecar, &script, &chat(max));
    call(1).send().await.is(200);
    account.until_records(1).await;

    let windows = call(5).send().await.refused(429, "rate_limit_exceeded");
    let named = |refused: &Answer| {
        let violations = violations(refused);
        let resources = violations
            .iter()
            .map(|violation| violation["resource"].clone());
        resources.collect::<Vec<_>>()
    };
    assert_eq!(named(&windows), ["requests", "messages"]);
    let wallet_too = call(6).send().await.refused(402, "request_exceeds_budget");
    assert_eq!(named(&wallet_too).len(), 3, "{}", wallet_too.text());
    assert_eq!(
        account.held(),
        0,
        "a refusal takes nothing of what would have fitted"
    );
    installation.verify();
}

#[tokio::test]
async fn a_flat_route_refuses_with_a_problem_document() {
    let account = installation().await.account(&credits(FLAT_NANOS - 1));
    let script = script([json_answer(200, &json!({}))]);
    let call = account
        .get(sidecar().await, "/flat/x")
        .header(SCRIPT, &script.id);
    let refused = call.clone().send().await.refused(402, "insufficient_quota");
    assert_eq!(
        refused.header("content-type"),
        Some("application/problem+json")
    );
    is_final(&refused);
    let problem = refused.json();
    assert_eq!(problem["status"], 402);
    assert_eq!(problem["title"], "Payment Required");
    assert!(
        problem["detail"]
            .as_str()
            .is_some_and(|said| said.contains(&account.id)),
        "{problem}"
    );
    let numbers = json!({
        "scope": "account", "limit": FLAT_NANOS - 1, "used": 0, "held": 0, "requested": FLAT_NANOS,
    });
    violation(&refused, &numbers);
    account.grant(&credits(1));
    call.send().await.is(200);
    assert_eq!(account.until_record().await.charged, FLAT_NANOS);
}

#[tokio::test]
async fn a_call_above_what_its_caller_allows_is_refused() {
    let estimate = input_estimate().await * INPUT_NANOS + 50 * OUTPUT_NANOS;
    let account = installation().await.account("1");
    let script = served(1, 1);
    let sidecar = sidecar().await;
    let call = |allowed: &str| {
        let call = account.scripted_chat(sidecar, &script, &chat(50));
        call.header("x-tollgate-max-charge", allowed)
    };
    let refused = call(&credits(estimate - 1))
        .send()
        .await
        .refused(402, "request_exceeds_budget");
    is_final(&refused);
    call("many").send().await.refused(400, "invalid_request");
    call(&credits(estimate)).send().await.is(200);
    account.until_records(1).await;
}
