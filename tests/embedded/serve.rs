//! Serving with nothing configured, and going on after every kind of end.

use super::{Embedded, call, scripted_call, text};
use crate::harness::client::Client;
use crate::harness::upstream::{Act, Gate, script};
use crate::harness::wait::until;

const CREDIT: i64 = 1_000_000_000;

#[tokio::test]
async fn with_nothing_configured_it_serves_and_every_command_reaches_it() {
    let home = Embedded::new();
    let mut sidecar = home.sidecar();
    let key = home.account("acme", "1");
    let answer = call(&sidecar, &key).send().await.is(200);
    let charge = answer.header("x-tollgate-charge").expect("a charge");
    assert_ne!(charge, "0");
    let left = until("the call is settled", async || {
        let shown = home.show("acme");
        (shown.held == 0 && shown.available < CREDIT).then_some(shown.available)
    })
    .await;

    home.run(&["flush"]);
    assert!(home.run(&["verify"]).contains("no drift"));
    home.run(&["account", "set", "acme", "--suspend"]);
    call(&sidecar, &key).send().await.is(403);
    home.run(&["account", "set", "acme", "--activate"]);
    call(&sidecar, &key).send().await.is(200);
    assert!(home.run(&["account", "list"]).contains("acme"));

    sidecar.ask_to_stop();
    assert!(sidecar.exited().await.success(), "{}", sidecar.said());
    assert!(home.show("acme").available < left);
}

#[tokio::test]
async fn commands_do_without_a_sidecar_too() {
    let home = Embedded::new();
    home.run(&["migrate"]);
    let key = home.account("acme", "1");
    home.run(&["grant", "acme", "2", "--source-ref", "second"]);
    home.run(&["grant", "acme", "2", "--source-ref", "second"]);
    assert_eq!(home.show("acme").available, 3 * CREDIT);
    assert!(home.run(&["verify"]).contains("1 account, no drift"));
    let sidecar = home.sidecar();
    call(&sidecar, &key).send().await.is(200);
    assert!(home.show("acme").available < 3 * CREDIT);
}

#[tokio::test]
async fn a_command_for_a_file_that_is_not_there_makes_none() {
    let home = Embedded::new();
    let output = home.try_run(&["account", "list"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("tollgate migrate"));
    assert!(!home.path().join("tollgate.db").exists());
}

#[tokio::test]
async fn a_killed_sidecar_is_followed_by_one_with_its_balances_and_its_holds() {
    let home = Embedded::new().with("TOLLGATE__STORE__DEADLINE_S", "2");
    let mut sidecar = home.sidecar();
    let key = home.account("acme", "1");
    call(&sidecar, &key).send().await.is(200);
    until("the call is settled", async || {
        let shown = home.show("acme");
        (shown.held == 0 && shown.available < CREDIT).then_some(())
    })
    .await;
    let script = script([Act::Wait(Gate::new())]);
    let doomed = scripted_call(&sidecar, &key, &script);
    let doomed = tokio::spawn(async move { Client::new().try_send(doomed).await });
    script.until_arrived(1).await;
    let before = home.show("acme");
    assert!(before.held > 0);

    sidecar.kill();
    assert!(doomed.await.expect("no panic").is_err());
    let sidecar = home.sidecar();
    // It was forwarded, so its input is charged when its deadline has passed (rule 6).
    let after = until("the hold lapses", async || {
        let shown = home.show("acme");
        (shown.held == 0).then_some(shown)
    })
    .await;
    let back = after.available - before.available;
    assert!(0 < back && back < before.held, "{before:?} {after:?}");
    call(&sidecar, &key).send().await.is(200);
    home.run(&["flush"]);
    assert!(home.run(&["verify"]).contains("no drift"));
}

#[tokio::test]
async fn it_serves_as_well_where_answers_wait_for_the_disk() {
    let home = Embedded::new().with("TOLLGATE__STORE__DURABILITY", "power");
    let mut sidecar = home.sidecar();
    let key = home.account("acme", "1");
    call(&sidecar, &key).send().await.is(200);
    sidecar.kill();
    // It was settled, or is held until its deadline.
    let shown = home.show("acme");
    assert!(shown.available < CREDIT, "{shown:?}");
}
