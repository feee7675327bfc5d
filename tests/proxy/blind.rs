//! Prompts, completions and secrets are nowhere to be found afterwards (invariant 9).

use serde_json::json;
use sqlx::Row;

use crate::harness::account::{chat, streamed_chat};
use crate::harness::client::get;
use crate::harness::configuration::Settings;
use crate::harness::installation::{CREDENTIAL, Installation, MODEL};
use crate::harness::redis::Server;
use crate::harness::upstream::{
    DONE, SCRIPT, chunk, completion, delta, events_head, json_answer, last_chunk, script,
};

#[tokio::test]
async fn nothing_that_was_said_or_is_secret_is_logged_counted_or_stored() {
    const PROMPT: &str = "canary-in-the-prompt";
    const ANSWER: &str = "canary-in-the-answer";
    let store = Server::with_options(&["--appendonly", "yes", "--appendfsync", "always"]);
    let installation = Installation::new(&store.url()).await;
    let sidecar = installation.sidecar(&Settings {
        log_level: "trace",
        ..Settings::default()
    });
    let account = installation.account("1");
    let with_prompt = |mut body: serde_json::Value| {
        body["messages"][0]["content"] = json!(PROMPT);
        body["user"] = json!(PROMPT);
        body
    };
    let mut said = completion(MODEL, 9, 3);
    said["choices"][0]["message"]["content"] = json!(ANSWER);
    let whole = script([json_answer(200, &said)]);
    let word = chunk(delta(MODEL, ANSWER));
    let stream = script([events_head(), word, chunk(DONE), last_chunk()]);
    let broken = script([json_answer(500, &json!({"error": {"message": PROMPT}}))]);
    for (script, body) in [
        (&whole, with_prompt(chat(5))),
        (&stream, with_prompt(streamed_chat(5))),
        (&broken, with_prompt(chat(5))),
    ] {
        account.scripted_chat(&sidecar, script, &body).send().await;
    }
    // What is refused is no less private.
    let path = format!("/scripted/v1/files/{PROMPT}?q={PROMPT}");
    account.get(&sidecar, &path).send().await.is(403);
    let malformed = account.scripted_chat(&sidecar, &whole, &json!(PROMPT));
    malformed.send().await.is(400);
    let mut unpriced = with_prompt(chat(5));
    unpriced["model"] = json!("nobody-knows");
    account
        .scripted_chat(&sidecar, &whole, &unpriced)
        .send()
        .await
        .is(400);
    let wrong = format!("{}wrong", account.key);
    let call = get(format!("{}/none/x", sidecar.proxy))
        .key(&wrong)
        .header(SCRIPT, &whole.id);
    call.send().await.is(401);
    account.until_records(3).await;

    let metrics = get(format!("{}/metrics", sidecar.health))
        .send()
        .await
        .is(200)
        .text();
    assert!(metrics.contains("tollgate"), "{metrics}");
    assert!(!metrics.contains(&account.id), "an account is no label");
    let (ledger, kept) = if installation.is_embedded() {
        (installation.files(), installation.files())
    } else {
        (dump(&installation).await, store.dump())
    };
    assert!(ledger.contains(&account.id), "the dump is one");
    assert!(kept.contains(&account.id), "the dump is one");
    for (place, text) in [
        ("the log", sidecar.said()),
        ("the metrics", metrics),
        ("the ledger", ledger),
        ("the store", kept),
    ] {
        for secret in [
            PROMPT,
            ANSWER,
            &account.key,
            CREDENTIAL.trim_start_matches("Bearer "),
        ] {
            assert!(!text.contains(secret), "{secret} is in {place}");
        }
    }
}

/// Every row of every table, as text.
async fn dump(installation: &Installation) -> String {
    let mut ledger = installation.ledger().await;
    let tables =
        "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'";
    let tables: Vec<String> = sqlx::query_scalar(tables)
        .fetch_all(&mut ledger)
        .await
        .expect("tables");
    let mut text = String::new();
    for table in tables {
        let rows = sqlx::AssertSqlSafe(format!("SELECT t::text FROM \"{table}\" t"));
        let rows = sqlx::query(rows)
            .fetch_all(&mut ledger)
            .await
            .expect("rows");
        text.extend(rows.iter().map(|row| row.get::<String, _>(0)));
    }
    text
}
