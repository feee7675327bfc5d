//! `account`: make, list, show and set.

use serde_json::{Value, json};
use tollgate::quota::AccountId;

use super::{Installation, some_account};

#[tokio::test]
async fn an_account_is_shown_as_it_is_written() {
    let place = Installation::new().await;
    place.says(&["account", "create", "Acme@EU"]);
    let said = place.says(&["account", "show", "Acme@EU"]);
    assert!(
        said.starts_with("account    Acme@EU (enforce, active)"),
        "{said}"
    );
}

#[tokio::test]
async fn an_account_is_made_once_listed_and_shown() {
    let place = Installation::new().await;
    assert!(place.says(&["account", "list"]).contains("no account yet"));
    let id = some_account();
    place.says(&["account", "create", id.as_str()]);
    let again = place.run(&["account", "create", id.as_str()]);
    assert_eq!(again.code, 2, "{again:?}");

    let listed = place.value(&["account", "list"]);
    assert_eq!(listed["account"], id.as_str());
    assert_eq!(listed["mode"], "enforce");
    assert_eq!(listed["status"], "active");

    let shown = place.value(&["account", "show", id.as_str()]);
    assert_eq!(shown["available_nanos"], 0);
    assert_eq!(shown["held_nanos"], 0);
    assert_eq!(shown["lots"], json!([]));
    assert_eq!(shown["limits"], json!([]));
    assert_eq!(shown["live"], true);
    assert!(
        place
            .says(&["account", "show", id.as_str()])
            .contains("available  0 credits")
    );
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_not_there() {
    let place = Installation::new().await;
    let nobody = some_account();
    let nobody = nobody.as_str();
    for words in [
        &["account", "show", nobody][..],
        &["account", "set", nobody, "--mode", "off"],
        &["key", "create", nobody],
        &["key", "list", nobody],
        &["grant", nobody, "1"],
        &["account", "create", nobody, "--plan", "nothing"],
    ] {
        let ran = place.run(words);
        assert_eq!(ran.code, 2, "{words:?}: {ran:?}");
        assert!(ran.stderr.contains("there is no"), "{words:?}: {ran:?}");
    }
}

#[tokio::test]
async fn what_is_refused_says_what_to_do() {
    let place = Installation::new().await;
    let (id, nobody) = (some_account(), some_account());
    let (id, nobody) = (id.as_str(), nobody.as_str());
    place.says(&["account", "create", id]);
    for (words, next) in [
        (&["account", "show", nobody][..], "tollgate account list"),
        (&["grant", nobody, "1"][..], "tollgate account create"),
        (
            &["adjust", nobody, "1", "--reason", "x"][..],
            "tollgate account list",
        ),
        (&["grant", id, "-5"][..], "tollgate adjust"),
        (
            &["withdraw", nobody, "1", "void"][..],
            "tollgate account show",
        ),
        (&["withdraw", id, "x", "void"][..], "tollgate account show"),
        (&["grant", id, "5", "--priority", "x"][..], "whole number"),
    ] {
        let ran = place.run(words);
        assert_eq!(ran.code, 2, "{words:?}: {ran:?}");
        assert!(ran.stderr.contains(next), "{words:?}: {ran:?}");
    }
}

#[tokio::test]
async fn credit_by_hand_is_shown_as_credit_and_not_as_debt() {
    let place = Installation::new().await;
    let id = some_account();
    let id = id.as_str();
    place.says(&["account", "create", id]);
    place.says(&["adjust", id, "1.5", "--reason", "gift"]);
    let said = place.says(&["account", "show", id]);
    assert!(said.contains("adjusted   1.5 credits"), "{said}");
    assert!(!said.contains("debt"), "{said}");
}

#[tokio::test]
async fn an_edit_bumps_the_version_that_the_store_has() {
    let place = Installation::new().await;
    let id = some_account();
    place.says(&["account", "create", id.as_str()]);
    let before = shown(&place, &id)["version"].as_i64().unwrap();

    let set = ["account", "set", id.as_str(), "--mode", "monitor"];
    assert_eq!(place.value(&set)["pending"], false);
    let after = shown(&place, &id);
    assert_eq!(after["mode"], "monitor");
    assert_eq!(after["version"], before + 1);

    place.says(&[
        "account",
        "set",
        id.as_str(),
        "--suspend",
        "--overage",
        "2.5",
    ]);
    let after = shown(&place, &id);
    assert_eq!(after["status"], "suspended");
    assert_eq!(after["mode"], "monitor", "what is not named stays");
    assert_eq!(after["overage_nanos"], 2_500_000_000_i64);
    assert_eq!(after["version"], before + 2);
    place.says(&["account", "set", id.as_str(), "--activate"]);
    assert_eq!(shown(&place, &id)["status"], "active");

    let nothing = place.run(&["account", "set", id.as_str()]);
    assert_eq!(
        nothing.code, 2,
        "an edit of nothing is a mistake: {nothing:?}"
    );
}

fn shown(place: &Installation, id: &AccountId) -> Value {
    place.value(&["account", "show", id.as_str()])
}
