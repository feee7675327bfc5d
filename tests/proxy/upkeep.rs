//! What a sidecar looks after beside the calls, and says when it cannot.

use crate::harness::account::chat;
use crate::harness::configuration::Settings;
use crate::harness::installation::{Installation, MODEL};
use crate::harness::redis;
use crate::harness::upstream::{completion, json_answer, script};
use crate::harness::wait::until;

#[tokio::test]
async fn a_running_sidecar_makes_the_partitions_of_the_coming_months() {
    let installation = Installation::on_servers(&redis::server().url()).await;
    let mut ledger = installation.ledger().await;
    let last: String = sqlx::query_scalar(
        "SELECT max(relname) FROM pg_class WHERE relkind = 'r' AND relname ~ '^usage_record_[0-9]'",
    )
    .fetch_one(&mut ledger)
    .await
    .expect("a migration makes some");
    let drop = format!("DROP TABLE {last}");
    sqlx::query(sqlx::AssertSqlSafe(drop))
        .execute(&mut ledger)
        .await
        .expect("nothing is in it yet");

    let _sidecar = installation.sidecar(&Settings::default());

    until("the partition is there again", async || {
        let there: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(&last)
            .fetch_one(&mut ledger)
            .await
            .expect("the ledger is there");
        there.then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_ending_that_the_ledger_does_not_take_is_said_and_not_lost() {
    let installation = Installation::on_servers(&redis::server().url()).await;
    let sidecar = installation.sidecar(&Settings::default());
    let account = installation.account("1");
    sidecar.until_ready_is(200).await;
    let mut ledger = installation.ledger().await;
    sqlx::query("ALTER TABLE usage_record RENAME TO elsewhere")
        .execute(&mut ledger)
        .await
        .expect("the owner may");
    let served = script([json_answer(200, &completion(MODEL, 9, 3))]);
    account
        .scripted_chat(&sidecar, &served, &chat(5))
        .send()
        .await
        .is(200);
    let unready = sidecar.until_ready_is(503).await;
    assert!(unready.text().contains("flusher"), "{}", unready.text());

    sqlx::query("ALTER TABLE elsewhere RENAME TO usage_record")
        .execute(&mut ledger)
        .await
        .expect("the owner may");
    account.until_record().await;
    sidecar.until_ready_is(200).await;
    installation.verify();
}
