//! Exit codes: 0 done, 1 a check failed, 2 wrong usage or configuration, 3 a dependency is away.

use super::{Installation, some_account};
use crate::harness::redis::server;

const NOBODY: &str = "postgres://nobody@127.0.0.1:1/nothing?sslmode=disable";

#[tokio::test]
async fn wrong_usage_is_2() {
    let place = Installation::new().await;
    for words in [
        &["nonsense"][..],
        &["account", "create", "not an id"],
        &["account", "set", "acme", "--mode", "sometimes"],
        &["apply", "no-such-catalogue.toml"],
        &["migrate", "--shards", "0"],
        &["usage", "acme", "--from", "2026-01-01"],
        &["explain", "acme"],
        &["rebuild", "--account", "acme"],
        &["withdraw", "acme", "1", "theft"],
        &["withdraw", "acme", "none", "void"],
        &["adjust", "acme", "1"],
        &["flush", "--quarantined", "--watch"],
        &["prices", "import", "file"],
        &["demo", "--config", "tollgate.toml"],
    ] {
        let ran = place.run(words);
        assert_eq!(ran.code, 2, "{words:?}: {ran:?}");
        assert!(
            !ran.stderr.is_empty() && ran.stdout.is_empty(),
            "{words:?}: {ran:?}"
        );
    }
    assert_eq!(place.run(&["--help"]).code, 0);
    assert_eq!(place.run(&["--version"]).code, 0);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_2_and_says_where() {
    let place = Installation::new().await;
    assert_eq!(place.run(&["check"]).code, 0);
    let wrong = "[store]\nurl = \"redis://127.0.0.1:1\"\ndeadline = 5\n";
    let wrong = place.file("wrong.toml", wrong);
    for words in [
        &["check"][..],
        &["serve"],
        &["account", "list"],
        &["verify"],
    ] {
        let ran = place.run(&[words, &["--config", wrong.to_str().unwrap()]].concat());
        assert_eq!(ran.code, 2, "{words:?}: {ran:?}");
        for part in ["wrong.toml", "deadline", "3"] {
            assert!(ran.stderr.contains(part), "{part}: {ran:?}");
        }
    }
    let missing = place.run(&["check", "--config", "missing.toml"]);
    assert_eq!(missing.code, 2, "{missing:?}");
}

#[tokio::test]
async fn a_ledger_that_is_away_is_3() {
    let place = Installation::over(NOBODY.into(), server().url());
    for words in [
        &["account", "list"][..],
        &["migrate"],
        &["verify"],
        &["flush"],
        &["grant", "acme", "1"],
    ] {
        let ran = place.run(words);
        assert_eq!(ran.code, 3, "{words:?}: {ran:?}");
        assert!(ran.stderr.contains("ledger"), "{words:?}: {ran:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_away_is_3_where_it_is_needed() {
    let live = Installation::new().await;
    let place = Installation::over(live.database.clone(), "redis://127.0.0.1:1".into());
    let id = some_account();
    place.says(&["account", "create", id.as_str()]);
    for words in [
        &["verify"][..],
        &["flush"],
        &["account", "show", id.as_str()],
    ] {
        let ran = place.run(words);
        assert_eq!(ran.code, 3, "{words:?}: {ran:?}");
        assert!(ran.stderr.contains("store"), "{words:?}: {ran:?}");
    }
}
