//! One owner a file, and who may ask it (rule 29).

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::{Embedded, text};
use crate::harness::client::post;

#[tokio::test]
async fn rule_29_a_second_owner_ends_and_names_the_first() {
    let home = Embedded::new();
    let sidecar = home.sidecar();
    let second = home.try_sidecar().err().expect("the file has an owner");
    assert_eq!(second.status.and_then(|status| status.code()), Some(2));
    assert!(second.said.contains(&sidecar.control), "{}", second.said);
    // The first one has not noticed.
    home.run(&["account", "create", "acme"]);
}

#[tokio::test]
async fn only_who_can_read_the_lease_may_ask() {
    let home = Embedded::new();
    let sidecar = home.sidecar();
    let lease = home.path().join("tollgate.db.lease");
    let mode = lease.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let lease: Value = serde_json::from_slice(&std::fs::read(lease).unwrap()).unwrap();
    assert_eq!(lease["listens"]["control"], json!(sidecar.control));
    let token = lease["listens"]["token"].as_str().unwrap();

    let url = format!("{}/admin/v1/command", sidecar.control);
    let ask = |arguments: Value| post(url.clone(), &json!({ "arguments": arguments }));
    let list = || ask(json!(["tollgate", "account", "list"]));
    list().send().await.is(401);
    list().key("tg_wrong").send().await.is(401);
    list().key(&token[1..]).send().await.is(401);
    let elsewhere = format!("{}/admin/v1/other", sidecar.control);
    post(elsewhere, &json!({})).key(token).send().await.is(404);
    post(url.clone(), &json!(7)).key(token).send().await.is(400);

    let answer = list().key(token).send().await.is(200).json();
    assert_eq!(answer["code"], 0);
    for arguments in [
        json!(["tollgate", "serve"]),
        json!(["tollgate", "demo"]),
        json!(["tollgate", "flush", "--watch"]),
        json!(["tollgate", "nonsense"]),
    ] {
        let answer = ask(arguments).key(token).send().await.is(200).json();
        assert_eq!(answer["code"], 2, "{answer}");
        assert_ne!(answer["stderr"], "");
    }
}

#[tokio::test]
async fn what_a_command_says_and_how_it_ends_comes_through() {
    let home = Embedded::new();
    let _sidecar = home.sidecar();
    let output = home.try_run(&["account", "show", "nobody"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("nobody"));
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn a_file_that_a_command_names_is_read_where_it_was_typed() {
    let home = Embedded::new();
    let _sidecar = home.sidecar();
    let catalogue = "[[plan]]\nkey = \"project\"\nname = \"Project\"\n";
    std::fs::write(home.path().join("plans.toml"), catalogue).unwrap();
    assert!(
        home.run(&["apply", "plans.toml"])
            .contains("+ plan project")
    );
    home.run(&["account", "create", "acme", "--plan", "project"]);
}

#[tokio::test]
async fn an_owner_that_is_asked_to_apply_without_the_file_says_so() {
    let home = Embedded::new();
    let sidecar = home.sidecar();
    let lease = std::fs::read(home.path().join("tollgate.db.lease")).unwrap();
    let lease: Value = serde_json::from_slice(&lease).unwrap();
    let token = lease["listens"]["token"].as_str().unwrap();
    let url = format!("{}/admin/v1/command", sidecar.control);
    let arguments = json!({ "arguments": ["tollgate", "apply", "plans.toml"] });
    let answer = post(url, &arguments).key(token).send().await.is(200).json();
    assert_eq!(answer["code"], 2, "{answer}");
    let said = answer["stderr"].as_str().unwrap();
    assert!(said.contains("plans.toml"), "{said}");
}
