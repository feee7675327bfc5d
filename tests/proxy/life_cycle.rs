//! How a sidecar begins, and what it takes over while it runs: it starts without its servers, reloads its routes, and lets
//! alone a store that another format of Tollgate has made.

use std::path::Path;

use crate::harness::account::{Account, chat};
use crate::harness::client::get;
use crate::harness::configuration::Settings;
use crate::harness::installation::{Installation, MODEL};
use crate::harness::redis::{self, Server};
use crate::harness::relay::Relay;
use crate::harness::sidecar::Sidecar;
use crate::harness::upstream::{completion, json_answer, script};
use crate::harness::wait::until;

async fn status_of(account: &Account<'_>, sidecar: &Sidecar, route: &str) -> u16 {
    let served = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let path = format!("{route}/v1/chat/completions");
    let call = account.post(sidecar, &path, &chat(5));
    let call = call.header(crate::harness::upstream::SCRIPT, &served.id);
    call.send().await.status.as_u16()
}

async fn until_served(account: &Account<'_>, sidecar: &Sidecar, route: &str) {
    until("a call is served", async || {
        (status_of(account, sidecar, route).await == 200).then_some(())
    })
    .await;
}

async fn alive(sidecar: &Sidecar) {
    let livez = get(format!("{}/livez", sidecar.health));
    livez.send().await.is(200);
}

/// It lives, says what is away, refuses every call, and serves as soon as the server is there.
async fn starts_without(which: &str, settings: Settings, relay: &Relay, at: &Installation) {
    let account = at.account("1");
    relay.cut();
    let sidecar = at.sidecar(&settings);
    alive(&sidecar).await;
    let readiness = sidecar.until_ready_is(503).await.json();
    let away = readiness["away"].as_array().expect("a list");
    let named = away.iter().find(|away| away["dependency"] == which);
    let named = named.unwrap_or_else(|| panic!("{which} is not named: {readiness}"));
    assert!(named["since"].is_string(), "{readiness}");

    let served = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let call = || account.scripted_chat(&sidecar, &served, &chat(5));
    let refused = call().send().await.refused(503, "quota_unavailable");
    assert!(refused.header("retry-after").is_some());
    // Nor is anybody kept waiting at the control listener.
    let control = get(format!("{}/v1/reserve", sidecar.control));
    control.send().await.is(501);
    let nowhere = get(format!("{}/nowhere", sidecar.proxy));
    nowhere.send().await.refused(404, "unknown_route");
    assert!(served.arrived().is_empty(), "nothing was forwarded");

    relay.mend();
    sidecar.until_ready_is(200).await;
    until_served(&account, &sidecar, "/scripted").await;
    account.until_record().await;
    at.verify();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_without_the_ledger_alive_and_not_ready() {
    let installation = Installation::on_servers(&redis::server().url()).await;
    let (relay, url) = Relay::to(&installation.ledger_url).await;
    let settings = Settings {
        ledger_url: Some(url),
        ..Settings::default()
    };
    starts_without("ledger", settings, &relay, &installation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_without_the_store_alive_and_not_ready() {
    let redis = Server::start();
    let installation = Installation::on_servers(&redis.url()).await;
    let (relay, url) = Relay::to(&redis.url()).await;
    let settings = Settings {
        store_url: Some(url),
        ..Settings::default()
    };
    starts_without("store", settings, &relay, &installation).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_it_is_told_to_though_it_never_reached_the_ledger() {
    let installation = Installation::on_servers(&redis::server().url()).await;
    let (relay, url) = Relay::to(&installation.ledger_url).await;
    relay.silence();
    let mut sidecar = installation.sidecar(&Settings {
        ledger_url: Some(url),
        ..Settings::default()
    });
    alive(&sidecar).await;
    sidecar.ask_to_stop();
    assert_eq!(sidecar.exited().await.code(), Some(0));
}

/// Writes another configuration, and waits until the sidecar has said this of it.
async fn reload(sidecar: &Sidecar, config: &Path, text: &str, says: &str) {
    std::fs::write(config, text).expect("a file");
    sidecar.ask_to_reload();
    until(&format!("it says {says:?}"), async || {
        sidecar.said().contains(says).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_are_reloaded_and_each_change_is_said() {
    let installation = Installation::on_servers(&redis::server().url()).await;
    let account = installation.account("1");
    let config = installation.config(&Settings::default());
    let before = std::fs::read_to_string(&config).expect("the configuration");
    let sidecar = Sidecar::start(&config);
    until_served(&account, &sidecar, "/brief").await;

    let after = before
        .replace("prefix = \"/brief\"", "prefix = \"/renamed\"")
        .replace("first_byte_timeout_ms = 300", "first_byte_timeout_ms = 450");
    reload(&sidecar, &config, &after, "route /renamed: added").await;
    let said = sidecar.said();
    assert!(said.contains("route /brief: removed"), "{said}");
    let timeout = "route /impatient: first_byte_timeout_ms: 300 -> 450";
    assert!(said.contains(timeout), "{said}");
    until_served(&account, &sidecar, "/renamed").await;
    assert_eq!(status_of(&account, &sidecar, "/brief").await, 404);

    let secret = "sk-another-credential";
    let credential = crate::harness::installation::CREDENTIAL;
    let other_key = after.replace(credential, &format!("Bearer {secret}"));
    let says = "route /renamed: credential: another one";
    reload(&sidecar, &config, &other_key, says).await;
    assert!(!sidecar.said().contains(secret), "{}", sidecar.said());
    let served = script([json_answer(200, &completion(MODEL, 9, 3))]);
    let call = account.scripted_chat(&sidecar, &served, &chat(5));
    call.send().await.is(200);
    let sent = served.arrived().remove(0);
    assert_eq!(
        sent.header("authorization"),
        Some(&*format!("Bearer {secret}"))
    );

    let restart = other_key.replace("deadline_s = 60", "deadline_s = 50");
    let says = "takes a restart";
    reload(&sidecar, &config, &restart, says).await;
    assert!(sidecar.said().contains("[store]"), "{}", sidecar.said());
    sidecar.until_ready_is(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_with_an_error_changes_nothing() {
    let installation = Installation::on_servers(&redis::server().url()).await;
    let account = installation.account("1");
    let config = installation.config(&Settings::default());
    let before = std::fs::read_to_string(&config).expect("the configuration");
    let sidecar = Sidecar::start(&config);

    let wrong = before.replace("prefix = \"/brief\"", "prefix = \"brief\"");
    let says = "a prefix begins with a slash";
    reload(&sidecar, &config, &wrong, says).await;
    until_served(&account, &sidecar, "/brief").await;

    // The journal that it needs is opened at start, where it can still be refused.
    let bounded = before.replace(
        "assume_output_tokens = 7",
        "on_store_down = \"bounded\"\nbounded_credits = \"1\"",
    );
    let says = "on the first route takes a restart";
    reload(&sidecar, &config, &bounded, says).await;
    until_served(&account, &sidecar, "/brief").await;

    // What a body needs beyond the present room for bodies would be refused for ever.
    let larger = before.replace(
        "assume_output_tokens = 7",
        "assume_output_tokens = 7\nmax_body_bytes = 300000000",
    ) + "\n[shed]\nmax_buffered_bytes = 400000000\n";
    let says = "beyond the present `max_buffered_bytes` takes a restart";
    reload(&sidecar, &config, &larger, says).await;
    until_served(&account, &sidecar, "/brief").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_of_two_formats_do_not_work_on_one_store() {
    let redis = Server::start();
    let installation = Installation::on_servers(&redis.url()).await;
    let account = installation.account("1");
    let old = installation.sidecar(&Settings::default());
    until_served(&account, &old, "/scripted").await;
    account.until_record().await;

    // What a Tollgate does that knows another format, when it takes over: every shard says so.
    let format = |by: i64| {
        let headers: Vec<String> = redis.command(&["KEYS", "*}:h"]);
        for header in headers {
            redis.command::<i64>(&["HINCRBY", &header, "format", &by.to_string()]);
        }
    };
    format(1);
    let new = installation.sidecar(&Settings::default());
    let unready = new.until_ready_is(503).await.text();
    assert!(unready.contains("its format is"), "{unready}");
    assert!(unready.contains("same release"), "{unready}");
    assert_eq!(status_of(&account, &new, "/scripted").await, 503);

    format(-1);
    new.until_ready_is(200).await;
    until_served(&account, &new, "/scripted").await;
    account.until_records(2).await;
    installation.verify();
}
