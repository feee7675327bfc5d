//! `key`: a secret is shown once, and a revoked key is told to everybody.

use tollgate::ledger::{KeyHash, Ledger, PostgresLedger};

use sha2::{Digest, Sha256};

use super::{Installation, some_account};

#[tokio::test]
async fn a_secret_is_shown_once_and_stored_nowhere() {
    let place = Installation::new().await;
    let id = some_account();
    place.says(&["account", "create", id.as_str()]);
    let made = place.value(&["key", "create", id.as_str(), "--name", "backend"]);
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("tg_") && secret.len() >= 40, "{secret}");

    let ledger = PostgresLedger::connect(&place.database).await.unwrap();
    let hash = KeyHash(Sha256::digest(secret.as_bytes()).into());
    let identity = ledger.identify(&hash).await.unwrap().unwrap();
    assert_eq!(identity.account, id);
    assert_eq!(identity.key.to_string(), made["id"].as_str().unwrap());

    let listed = place.value(&["key", "list", id.as_str()]);
    assert_eq!(listed["name"], "backend");
    assert_eq!(listed["last_four"], secret[secret.len() - 4..]);
    assert!(!listed.to_string().contains(secret));
    let mut sql = place.sql().await;
    let rows: Vec<String> = sqlx::query_scalar("SELECT api_key::text FROM api_key")
        .fetch_all(&mut sql)
        .await
        .unwrap();
    let middle = &secret[8..secret.len() - 8];
    assert!(rows.iter().all(|row| !row.contains(middle)), "{rows:?}");
}

#[tokio::test]
async fn a_revoked_key_is_unknown_and_its_account_says_so() {
    let place = Installation::new().await;
    let id = some_account();
    place.says(&["account", "create", id.as_str()]);
    let made = place.value(&["key", "create", id.as_str()]);
    let key = made["id"].as_str().unwrap();
    let before = place.value(&["account", "show", id.as_str()])["version"].clone();

    assert_eq!(place.value(&["key", "revoke", key])["pending"], false);
    let after = place.value(&["account", "show", id.as_str()])["version"].clone();
    assert_ne!(before, after);
    place.says(&["key", "revoke", key]);
    let again = place.value(&["account", "show", id.as_str()])["version"].clone();
    assert_eq!(after, again, "revoked twice is revoked once");

    let ledger = PostgresLedger::connect(&place.database).await.unwrap();
    let secret = made["secret"].as_str().unwrap();
    let hash = KeyHash(Sha256::digest(secret.as_bytes()).into());
    assert_eq!(ledger.identify(&hash).await.unwrap(), None);
    let image = ledger.image(&id).await.unwrap().unwrap();
    assert_eq!(image.snapshot.keys_version, 2);
    assert!(place.value(&["key", "list", id.as_str()])["revoked_at"].is_string());
    let unknown = place.run(&["key", "revoke", "018f0000-0000-7000-8000-000000000000"]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
}
