//! `migrate`: repeatable, and safe when many start at once.

use std::process::Stdio;

use uuid::Uuid;

use super::{Installation, Ran};
use crate::harness::postgres::empty_database;
use crate::harness::redis::server;

async fn empty() -> Installation {
    let name = format!("empty_{}", Uuid::now_v7().simple());
    Installation::over(empty_database(&name).await, server().url())
}

#[tokio::test]
async fn many_at_once_and_again_make_one_installation() {
    let place = empty().await;
    let starting: Vec<_> = (0..4)
        .map(|_| {
            let mut command = place.command(&["migrate", "--shards", "4", "--json"]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let mut installations = Vec::new();
    for child in starting {
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!(ran.code, 0, "{ran:?}");
        let value = ran.values().remove(0);
        assert_eq!(value["shards"], 4);
        installations.push(value["installation"].clone());
    }
    let again = place.value(&["migrate"]);
    installations.push(again["installation"].clone());
    installations.dedup();
    assert_eq!(installations.len(), 1, "{installations:?}");

    assert_eq!(place.number("SELECT count(*) FROM shard").await, 4);
    assert_eq!(again["prices_added"], 0, "the prices are there already");
    let doubled =
        "SELECT count(*) - count(DISTINCT position) FROM model_price WHERE retired_at IS NULL";
    assert_eq!(place.number(doubled).await, 0);
    let priced = "SELECT count(*) FROM model_price WHERE model = 'gpt-4o-mini'";
    assert!(place.number(priced).await > 0);
}

#[tokio::test]
async fn the_number_of_shards_is_for_ever() {
    let place = empty().await;
    place.says(&["migrate", "--shards", "2"]);
    let other = place.run(&["migrate", "--shards", "3"]);
    assert_eq!(other.code, 2, "{other:?}");
    assert!(other.stderr.contains("2 shards"), "{other:?}");
    assert!(place.says(&["migrate"]).contains("2 shards"));
}

#[tokio::test]
async fn before_it_every_other_command_says_what_to_do() {
    let place = empty().await;
    let ran = place.run(&["account", "list"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.stderr.contains("tollgate migrate"), "{ran:?}");
}
