//! Keys: who may call, exactly until when, and that no key ever travels further.

use serde_json::Value;

use crate::harness::account::{Account, chat};
use crate::harness::client::{get, post};
use crate::harness::installation::{CREDENTIAL, MODEL, another_sidecar, installation, sidecar};
use crate::harness::upstream::{SCRIPT, Script, completion, json_answer, script};
use crate::harness::wait::until;

const CHAT: &str = "/scripted/v1/chat/completions";

fn served() -> Script {
    script([json_answer(200, &completion(MODEL, 9, 3))])
}

#[tokio::test]
async fn no_key_an_unknown_key_and_half_a_key_are_refused() {
    let sidecar = sidecar().await;
    let account = installation().await.account("1");
    let script = served();
    let half = &account.key[..account.key.len() / 2];
    let longer = format!("{}x", account.key);
    let url = format!("{}{CHAT}", sidecar.proxy);
    let call = || post(&url, &chat(5)).header(SCRIPT, &script.id);
    for call in [
        call(),
        call().key("sk-nobody"),
        call().key(half),
        call().key(&longer),
        call().key(""),
        call().header("authorization", &account.key),
        call().header("authorization", &format!("Basic {}", account.key)),
        call().header("x-tollgate-account", &account.id),
        post(format!("{url}?key={}", account.key), &chat(5)).header(SCRIPT, &script.id),
    ] {
        let refused = call.send().await.refused(401, "invalid_api_key");
        assert!(
            refused
                .header("www-authenticate")
                .is_some_and(|said| said.starts_with("Bearer"))
        );
        assert_eq!(refused.explanation()["type"], "invalid_request_error");
        assert!(
            !refused.text().contains(half),
            "a refusal never repeats a secret"
        );
    }
    for path in ["/flat/x", "/none/x"] {
        let refused = get(format!("{}{path}", sidecar.proxy)).send().await;
        let refused = refused.refused(401, "invalid_api_key");
        assert_eq!(
            refused.header("content-type"),
            Some("application/problem+json")
        );
        assert_eq!(refused.json()["status"], 401);
    }
    assert!(script.arrived().is_empty());
    assert!(account.records().await.is_empty());
}

#[tokio::test]
async fn a_key_is_taken_from_each_header_sdks_use_and_never_sent_on() {
    let sidecar = sidecar().await;
    let account = installation().await.account("1");
    let script = served();
    let bearer = format!("Bearer {}", account.key);
    let lower = format!("bearer {}", account.key);
    let headers = [
        ("authorization", bearer.as_str()),
        ("Authorization", lower.as_str()),
        ("x-api-key", &account.key),
        ("api-key", &account.key),
        ("x-goog-api-key", &account.key),
    ];
    for (name, value) in headers {
        let url = format!("{}{CHAT}", sidecar.proxy);
        let call = post(url, &chat(5))
            .header(name, value)
            .header(SCRIPT, &script.id);
        call.send().await.is(200);
    }
    // All at once, the others of somebody who knows no better.
    let mut call = account.scripted_chat(sidecar, &script, &chat(5));
    for (name, value) in &headers[2..] {
        call = call.header(name, value);
    }
    call.send().await.is(200);

    let arrived = script.arrived();
    assert_eq!(arrived.len(), headers.len() + 1);
    for request in arrived {
        assert!(!request.whole().contains(&account.key), "{request:?}");
        assert_eq!(request.header("authorization"), Some(CREDENTIAL));
        let ours = |name: &str| name.to_ascii_lowercase().starts_with("x-tollgate-");
        assert!(
            !request.headers.iter().any(|(name, _)| ours(name)),
            "{request:?}"
        );
    }
}

#[tokio::test]
async fn the_routes_that_only_pass_calls_on_hide_the_key_as_well() {
    let sidecar = sidecar().await;
    let account = installation().await.account("1");
    let script = served();
    for path in ["/flat/search", "/none/anything", "/scripted/v1/models"] {
        let call = account.get(sidecar, path).header(SCRIPT, &script.id);
        call.header("x-api-key", &account.key).send().await.is(200);
    }
    for request in script.arrived() {
        assert!(!request.whole().contains(&account.key), "{request:?}");
        assert_eq!(request.header("authorization"), Some(CREDENTIAL));
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_the_next_call_on_every_sidecar() {
    let installation = installation().await;
    let other = another_sidecar().await;
    let account = installation.account("1");
    let (second_id, second_key) = installation.key(&account.id);
    let second = Account {
        key: second_key,
        key_id: second_id,
        id: account.id.clone(),
        installation,
    };
    let script = served();
    for sidecar in [sidecar().await, &*other] {
        for account in [&account, &second] {
            account
                .scripted_chat(sidecar, &script, &chat(5))
                .send()
                .await
                .is(200);
        }
    }

    installation.run(&["key", "revoke", &account.key_id]);

    for sidecar in [sidecar().await, &*other] {
        let refused = account
            .scripted_chat(sidecar, &script, &chat(5))
            .send()
            .await;
        refused.refused(401, "invalid_api_key");
        second
            .scripted_chat(sidecar, &script, &chat(5))
            .send()
            .await
            .is(200);
    }
    assert_eq!(script.arrived().len(), 6);
}

#[tokio::test]
async fn a_suspended_account_is_refused_at_the_next_call_on_every_sidecar() {
    let installation = installation().await;
    let other = another_sidecar().await;
    let account = installation.account("1");
    let script = served();
    for sidecar in [sidecar().await, &*other] {
        account
            .scripted_chat(sidecar, &script, &chat(5))
            .send()
            .await
            .is(200);
    }

    installation.run(&["account", "set", &account.id, "--suspend"]);

    for sidecar in [sidecar().await, &*other] {
        let refused = account
            .scripted_chat(sidecar, &script, &chat(5))
            .send()
            .await;
        let refused = refused.refused(403, "account_suspended");
        assert_eq!(refused.header("x-should-retry"), Some("false"));
        let message = refused.explanation()["message"].clone();
        assert!(
            message
                .as_str()
                .is_some_and(|message| message.contains(&account.id)),
            "{message}"
        );
        let flat = account
            .get(sidecar, "/flat/x")
            .header(SCRIPT, &script.id)
            .send()
            .await;
        let flat = flat.refused(403, "account_suspended");
        assert_eq!(flat.json()["title"], Value::from("Forbidden"));
    }

    installation.run(&["account", "set", &account.id, "--activate"]);
    for sidecar in [sidecar().await, &*other] {
        account
            .scripted_chat(sidecar, &script, &chat(5))
            .send()
            .await
            .is(200);
    }
    assert_eq!(script.arrived().len(), 4);
    installation.verify();
}

#[tokio::test]
async fn nobody_pays_but_the_keys_own_account() {
    let installation = installation().await;
    let (payer, other) = (installation.account("1"), installation.account("1"));
    let script = served();
    let mut body = chat(5);
    body["user"] = Value::from(other.id.as_str());
    let call = payer.scripted_chat(sidecar().await, &script, &body);
    let call = call
        .header("x-tollgate-account", &other.id)
        .header("openai-organization", &other.id);
    call.header("x-tollgate-user", &other.id)
        .send()
        .await
        .is(200);
    payer.until_record().await;
    assert!(other.records().await.is_empty());
    assert_eq!(other.available(), 1_000_000_000);
    assert_eq!(
        script.arrived()[0].header("openai-organization"),
        Some(other.id.as_str())
    );
}

#[tokio::test]
async fn a_revoked_key_soon_opens_no_free_path_either() {
    let installation = installation().await;
    let account = installation.account("1");
    let call = account.get(sidecar().await, "/openai/v1/models");
    call.clone().send().await.is(200);
    installation.run(&["key", "revoke", &account.key_id]);
    until("the key is refused", async || {
        let answer = call.clone().send().await;
        (answer.status != 200).then(|| answer.refused(401, "invalid_api_key"))
    })
    .await;
}

#[tokio::test]
async fn a_refusal_before_the_body_is_read_says_that_the_connection_ends() {
    let url = format!("{}{CHAT}", sidecar().await.proxy);
    let refused = post(&url, &chat(5)).key("sk-nobody").send().await;
    let refused = refused.refused(401, "invalid_api_key");
    assert_eq!(refused.header("connection"), Some("close"));

    let account = installation().await.account("0");
    let refused = post(&url, &chat(5)).key(&account.key).send().await;
    let refused = refused.refused(402, "insufficient_quota");
    assert_eq!(refused.header("connection"), None, "all of it was read");
}
