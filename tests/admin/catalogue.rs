//! `apply`: says what it changes, changes it once, and tells every account on an edited plan.

use std::path::PathBuf;

use serde_json::Value;
use tollgate::ledger::{Ledger, PostgresLedger};

use super::{Installation, some_account};

/// A catalogue with one plan, of so many tokens a month, and one price.
fn catalogue(place: &Installation, tokens: u64, input: &str, markup: &str) -> PathBuf {
    let text = format!(
        r#"
        [[plan]]
        key = "project"
        name = "Project"
        quotas = [{{ resource = "tokens", window = "month", limit = {tokens} }}]

        [[price]]
        provider = "openai"
        model = "gpt-4o-mini"
        input = "{input}"
        output = "0.60"

        [markup]
        percent = "{markup}"
        "#
    );
    place.file("catalog.toml", &text)
}

fn limit(place: &Installation, account: &str) -> Value {
    place.value(&["account", "show", account])["limits"][0]["limit"].clone()
}

#[tokio::test]
async fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let place = Installation::new().await;
    catalogue(&place, 100, "0.15", "20");
    let dry = place.says(&["apply", "catalog.toml", "--dry-run"]);
    for part in [
        "+ plan project",
        "account/tokens/month 100",
        "+ price openai/gpt-4o-mini",
        "0 % -> 20 %",
        "would change",
    ] {
        assert!(dry.contains(part), "{part}: {dry}");
    }
    assert_eq!(place.says(&["apply", "catalog.toml", "--dry-run"]), dry);

    place.says(&["apply", "catalog.toml"]);
    assert_eq!(place.says(&["apply", "catalog.toml"]), "Nothing changed.\n");
    assert_eq!(
        place.values(&["apply", "catalog.toml", "--dry-run"]),
        Vec::<Value>::new()
    );
}

#[tokio::test]
async fn an_edited_plan_reaches_its_accounts() {
    let place = Installation::new().await;
    catalogue(&place, 100, "0.15", "0");
    place.says(&["apply", "catalog.toml"]);
    let (on, off) = (some_account(), some_account());
    place.says(&["account", "create", on.as_str(), "--plan", "project"]);
    place.says(&["account", "create", off.as_str()]);
    assert_eq!(limit(&place, on.as_str()), 100);
    let version = |account: &str| place.value(&["account", "show", account])["version"].clone();
    let before = version(off.as_str());

    catalogue(&place, 250, "0.15", "0");
    let said = place.says(&["apply", "catalog.toml"]);
    assert!(said.contains("account/tokens/month: 100 -> 250"), "{said}");
    assert!(said.contains("1 account follows its plan"), "{said}");
    assert_eq!(limit(&place, on.as_str()), 250);
    assert_eq!(
        version(off.as_str()),
        before,
        "who is on no plan is left alone"
    );

    place.says(&["account", "set", off.as_str(), "--plan", "project"]);
    assert_eq!(limit(&place, off.as_str()), 250);
    place.says(&["account", "set", off.as_str(), "--no-plan"]);
    assert!(limit(&place, off.as_str()).is_null());
}

#[tokio::test]
async fn an_apply_that_was_cut_off_is_finished_by_the_next() {
    let place = Installation::new().await;
    catalogue(&place, 100, "0.15", "0");
    place.says(&["apply", "catalog.toml"]);
    let account = some_account();
    place.says(&["account", "create", account.as_str(), "--plan", "project"]);
    assert_eq!(limit(&place, account.as_str()), 100);
    // What the first transaction of an apply leaves behind if nothing follows it.
    let mut sql = place.sql().await;
    let cut_off =
        "UPDATE plan SET edition = edition + 1, body = jsonb_set(body, '{quotas,0,limit}', '300')";
    sqlx::query(cut_off).execute(&mut sql).await.unwrap();
    assert_eq!(
        limit(&place, account.as_str()),
        100,
        "the store does not know yet"
    );
    catalogue(&place, 300, "0.15", "0");
    place.says(&["apply", "catalog.toml"]);
    assert_eq!(limit(&place, account.as_str()), 300);
}

#[tokio::test]
async fn a_price_that_changes_is_retired_and_the_version_tells_sidecars() {
    let place = Installation::new().await;
    catalogue(&place, 100, "0.15", "0");
    place.says(&["apply", "catalog.toml"]);
    let ledger = PostgresLedger::connect(&place.database).await.unwrap();
    let before = ledger.prices().await.unwrap();
    catalogue(&place, 100, "0.30", "20");
    place.says(&["apply", "catalog.toml"]);
    let after = ledger.prices().await.unwrap();
    assert!(after.version > before.version);
    assert_eq!(after.markup_percent.to_string(), "20");
    let price = |prices: &tollgate::ledger::Prices| {
        let entry = prices
            .entries
            .iter()
            .find(|entry| entry.model == "gpt-4o-mini");
        let entry = entry.unwrap();
        (
            entry.id,
            entry.rates.input.as_ref().unwrap().base.to_string(),
        )
    };
    assert_eq!(price(&before).1, "0.15");
    assert_eq!(price(&after).1, "0.30");
    assert_ne!(price(&before).0, price(&after).0);
    let mut sql = place.sql().await;
    let kept: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM model_price WHERE id = $1 AND retired_at IS NOT NULL",
    )
    .bind(price(&before).0)
    .fetch_one(&mut sql)
    .await
    .unwrap();
    assert_eq!(kept, 1, "records name it for ever");
    place.says(&["apply", "catalog.toml"]);
    assert_eq!(
        ledger.prices_version().await.unwrap(),
        after.version,
        "nothing changed"
    );
}

#[tokio::test]
async fn a_plan_that_is_left_out_stays_and_is_named() {
    let place = Installation::new().await;
    catalogue(&place, 100, "0.15", "0");
    place.says(&["apply", "catalog.toml"]);
    let account = some_account();
    place.says(&["account", "create", account.as_str(), "--plan", "project"]);
    place.file("empty.toml", "");
    let said = place.says(&["apply", "empty.toml"]);
    assert!(
        said.contains("plan project is not in the catalogue"),
        "{said}"
    );
    assert!(said.contains("- price openai/gpt-4o-mini"), "{said}");
    assert_eq!(limit(&place, account.as_str()), 100);
}

#[tokio::test]
async fn a_catalogue_that_is_wrong_changes_nothing_and_is_2() {
    let place = Installation::new().await;
    place.file(
        "wrong.toml",
        "[[plan]]\nkey = \"a\"\nname = \"A\"\nquota = []\n",
    );
    let ran = place.run(&["apply", "wrong.toml"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(
        ran.stderr.contains("wrong.toml") && ran.stderr.contains("quota"),
        "{ran:?}"
    );
}
