//! Changes an operator makes: each is exact at the next call on every sidecar, without a restart (rule 13).

use time::format_description::well_known::Rfc3339;

use crate::harness::account::{chat, credits, input_estimate};
use crate::harness::configuration::Settings;
use crate::harness::installation::{
    INPUT_NANOS, Installation, MODEL, OUTPUT_NANOS, another_sidecar, installation, sidecar,
};
use crate::harness::redis;
use crate::harness::upstream::{Script, completion, json_answer, script};
use crate::harness::wait::until;

const CHARGE: i64 = 9 * INPUT_NANOS + 3 * OUTPUT_NANOS;

fn served() -> Script {
    script([json_answer(200, &completion(MODEL, 9, 3))])
}

/// What a call of these tests holds, which is more than it charges.
async fn estimate() -> i64 {
    let estimate = input_estimate().await * INPUT_NANOS + 5 * OUTPUT_NANOS;
    assert!(estimate > CHARGE);
    estimate
}

#[tokio::test]
async fn a_grant_counts_at_the_next_call_on_every_sidecar() {
    let installation = installation().await;
    let other = another_sidecar().await;
    let sidecars = [sidecar().await, &*other];
    let estimate = estimate().await;
    let account = installation.account("0");
    let script = served();
    for round in 0..2 {
        for sidecar in sidecars {
            let call = account.scripted_chat(sidecar, &script, &chat(5));
            call.send().await.refused(402, "insufficient_quota");
        }
        account.grant(&credits(estimate));
        let call = account.scripted_chat(sidecars[round], &script, &chat(5));
        call.send().await.is(200);
        account.until_records(round + 1).await;
    }
    assert_eq!(account.available(), 2 * (estimate - CHARGE));
    installation.verify();
}

#[tokio::test]
async fn a_grant_with_the_same_reason_twice_is_one_grant() {
    let account = installation().await.account("0");
    for _ in 0..2 {
        let grant = ["grant", &account.id, "0.5", "--source-ref", "invoice-7"];
        account.installation.run(&grant);
    }
    assert_eq!(account.available(), 500_000_000);
    account.installation.verify();
}

#[tokio::test]
async fn an_edited_plan_counts_at_the_next_call_and_keeps_what_was_used() {
    let installation = installation().await;
    let other = another_sidecar().await;
    let sidecars = [sidecar().await, &*other];
    let quota =
        |limit: i64| format!(r#"{{ resource = "requests", window = "month", limit = {limit} }}"#);
    let plan = installation.plan(&quota(1));
    let account = installation.account_on(&plan, "1");
    let script = served();
    let call = |sidecar| account.scripted_chat(sidecar, &script, &chat(5));
    call(sidecars[0]).send().await.is(200);
    account.until_records(1).await;
    for sidecar in sidecars {
        call(sidecar)
            .send()
            .await
            .refused(429, "rate_limit_exceeded");
    }

    // Raising a limit helps before the window ends; lowering it takes nothing back.
    installation.edit_plan(&plan, &quota(3));
    for sidecar in sidecars {
        call(sidecar).send().await.is(200);
    }
    account.until_records(3).await;
    installation.edit_plan(&plan, &quota(2));
    for sidecar in sidecars {
        let refused = call(sidecar)
            .send()
            .await
            .refused(429, "rate_limit_exceeded");
        let violation = refused.explanation()["violations"][0].clone();
        assert_eq!(
            (violation["limit"].as_i64(), violation["used"].as_i64()),
            (Some(2), Some(3))
        );
    }
    installation.edit_plan(&plan, "");
    call(sidecars[1]).send().await.is(200);
    account.until_records(4).await;
    installation.verify();
}

#[tokio::test]
async fn a_new_price_and_a_new_markup_are_charged_without_a_restart() {
    // Prices belong to a whole installation, so it has to be an own one.
    let installation = Installation::new(&redis::server().url()).await;
    let sidecar = installation.sidecar(&Settings::default());
    let account = installation.account("1");
    let script = served();
    let charge = async || {
        let call = account.scripted_chat(&sidecar, &script, &chat(5));
        let answer = call.send().await.is(200);
        answer
            .header("x-tollgate-charge")
            .expect("a charge")
            .to_owned()
    };
    assert_eq!(charge().await, credits(CHARGE));
    installation.apply("[markup]\npercent = \"20\"\n");
    until("the markup is charged", async || {
        (charge().await == credits(CHARGE * 12 / 10)).then_some(())
    })
    .await;
    account.until_nothing_held().await;
    installation.verify();
}

#[tokio::test]
async fn a_key_made_now_works_now_even_if_it_was_tried_before() {
    let installation = installation().await;
    let account = installation.account("1");
    let (_, key) = installation.key(&account.id);
    let script = served();
    let call = account.scripted_chat(sidecar().await, &script, &chat(5));
    call.send().await.is(200);
    let url = format!("{}/scripted/v1/chat/completions", sidecar().await.proxy);
    let call = crate::harness::client::post(url, &chat(5)).key(&key);
    call.header(crate::harness::upstream::SCRIPT, &script.id)
        .send()
        .await
        .is(200);
    account.until_records(2).await;
}

#[tokio::test]
async fn another_plan_counts_at_the_next_call_and_takes_the_count_along() {
    let installation = installation().await;
    let sidecar = sidecar().await;
    let quota =
        |limit: i64| format!(r#"{{ resource = "requests", window = "month", limit = {limit} }}"#);
    let (small, large) = (installation.plan(&quota(1)), installation.plan(&quota(2)));
    let account = installation.account_on(&small, "1");
    let script = served();
    let call = || account.scripted_chat(sidecar, &script, &chat(5));
    call().send().await.is(200);
    account.until_records(1).await;
    call().send().await.refused(429, "rate_limit_exceeded");
    installation.run(&["account", "set", &account.id, "--plan", &large]);
    call().send().await.is(200);
    account.until_records(2).await;
    call().send().await.refused(429, "rate_limit_exceeded");
    installation.run(&["account", "set", &account.id, "--no-plan"]);
    call().send().await.is(200);
    account.until_records(3).await;
    installation.verify();
}

#[tokio::test]
async fn an_overage_lets_the_wallet_go_below_zero_so_far_and_no_further() {
    let installation = installation().await;
    let sidecar = sidecar().await;
    let account = installation.account("0");
    let script = served();
    let call = || account.scripted_chat(sidecar, &script, &chat(5));
    call().send().await.refused(402, "insufficient_quota");
    let estimate = estimate().await;
    let overage = credits(estimate);
    installation.run(&["account", "set", &account.id, "--overage", &overage]);
    let answer = call().send().await.is(200);
    assert_eq!(
        answer.header("x-tollgate-balance"),
        Some(credits(-CHARGE).as_str())
    );
    account.until_records(1).await;
    let refused = call().send().await;
    assert_eq!(refused.status, 402, "{}", refused.text());
    let violation = &refused.explanation()["violations"][0];
    assert_eq!(violation["limit"].as_i64(), Some(estimate - CHARGE));
    assert_eq!(account.available(), -CHARGE);
    installation.verify();
}

#[tokio::test]
async fn an_expired_grant_is_drawn_on_no_longer() {
    let installation = installation().await;
    let sidecar = sidecar().await;
    let estimate = estimate().await;
    let account = installation.account("0");
    let expires = time::OffsetDateTime::now_utc() + time::Duration::seconds(6);
    let expires = expires
        .replace_millisecond(0)
        .expect("a second has a beginning");
    let expires = expires.format(&Rfc3339).expect("RFC 3339");
    installation.run(&["grant", &account.id, "1", "--expires", &expires]);
    account.grant(&credits(estimate));
    let script = served();
    let call = || account.scripted_chat(sidecar, &script, &chat(5));
    // The one that expires first is drawn first.
    call().send().await.is(200);
    account.until_records(1).await;
    until("the grant expires", async || {
        (account.available() == estimate).then_some(())
    })
    .await;
    call().send().await.is(200);
    account.until_records(2).await;
    assert_eq!(account.available(), estimate - CHARGE);
    installation.verify();
}
