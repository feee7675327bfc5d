//! What the ledger changes reaches the store in order, once, and loads agree with it (rules 20, 22).

use std::sync::Arc;

use tollgate::clock::UnixMs;
use tollgate::ledger::{Ledger, LoadError};
use tollgate::quota::{ApplyAnswer, ChangeSeq, LoadAnswer, LotId, Store};

use super::place::TestGrant;
use super::world::World;

pub async fn only_the_next_change_is_accepted(world: World) {
    let account = world.account(&[]).await;
    let shard = world.shard(&account);
    for nanos in [1, 2, 4] {
        world.grant(&account, nanos).await;
    }
    let changes = world
        .ledger
        .changes_after(shard, ChangeSeq(0), 10)
        .await
        .unwrap();
    assert_eq!(changes.len(), 3);
    assert_eq!(
        world.store.apply(&changes[1]).await.unwrap(),
        ApplyAnswer::At(ChangeSeq(0))
    );
    assert_eq!(
        world.store.apply(&changes[0]).await.unwrap(),
        ApplyAnswer::Applied
    );
    assert_eq!(
        world.store.apply(&changes[0]).await.unwrap(),
        ApplyAnswer::At(ChangeSeq(1))
    );
    assert_eq!(world.applier.apply_shard(shard).await.unwrap(), 2);
    assert_eq!(world.applier.apply_shard(shard).await.unwrap(), 0);
    assert_eq!(world.balance(&account).await, 7);
    world.assert_one(&account).await;
}

pub async fn appliers_at_once_apply_each_change_once(world: World) {
    let world = Arc::new(world);
    let account = world.account(&[1]).await;
    for _ in 0..20 {
        world.grant(&account, 10).await;
    }
    let shard = world.shard(&account);
    let apply = |world: Arc<World>| async move { world.applier.apply_shard(shard).await.unwrap() };
    let (one, two, three) = tokio::join!(
        tokio::spawn(apply(world.clone())),
        tokio::spawn(apply(world.clone())),
        tokio::spawn(apply(world.clone())),
    );
    let applied = one.unwrap() + two.unwrap() + three.unwrap();
    // The account's first grant, which its load had seen already, is a change too.
    assert_eq!(applied, 21);
    assert_eq!(world.balance(&account).await, 201);
    world.assert_one(&account).await;
}

pub async fn a_load_counts_a_change_that_comes_after_it_and_none_that_came_before(world: World) {
    let account = world.cold_account(&[10, 20]).await;
    let image = world.ledger.image(&account).await.unwrap().unwrap();
    world.grant(&account, 40).await;
    assert_eq!(world.store.load(&image).await.unwrap(), LoadAnswer::Loaded);
    assert_eq!(world.balance(&account).await, 30);
    world.quiesce(&account).await;
    assert_eq!(world.balance(&account).await, 70);
    world.assert_one(&account).await;
}

pub async fn an_image_older_than_the_store_is_read_again(world: World) {
    let account = world.cold_account(&[10]).await;
    let image = world.ledger.image(&account).await.unwrap().unwrap();
    world.grant(&account, 40).await;
    world
        .applier
        .apply_shard(world.shard(&account))
        .await
        .unwrap();
    assert_eq!(world.store.load(&image).await.unwrap(), LoadAnswer::Behind);
    world.loader.load(&account).await.unwrap();
    assert_eq!(world.balance(&account).await, 50);
}

pub async fn many_callers_of_a_cold_account_make_one_load(world: World) {
    let account = world.cold_account(&[10]).await;
    let loads = (0..50).map(|_| world.loader.load(&account));
    for loaded in futures_util::future::join_all(loads).await {
        loaded.unwrap();
    }
    assert_eq!(world.balance(&account).await, 10);
    let nobody = "nobody".parse().unwrap();
    assert!(matches!(
        world.loader.load(&nobody).await,
        Err(LoadError::NoAccount)
    ));
}

pub async fn lots_are_drawn_by_priority_expiry_promotion_and_age(world: World) {
    let account = world.cold_account(&[]).await;
    let at = |text: &str| {
        let format = &time::format_description::well_known::Rfc3339;
        UnixMs::from(time::OffsetDateTime::parse(text, format).unwrap())
    };
    let insert = async |priority: i32, expires: Option<&str>, kind: &str, effective: &str| {
        let grant = TestGrant {
            nanos: 1,
            priority,
            kind,
            effective_at: at(effective),
            expires_at: expires.map(at),
        };
        let shard = world.shard(&account);
        world.place.grant(&account, shard, &grant).await
    };
    let newer = insert(0, None, "paid", "2026-02-01T00:00:00Z").await;
    let older = insert(0, None, "plan", "2026-01-01T00:00:00Z").await;
    let promotional = insert(0, None, "promotional", "2026-03-01T00:00:00Z").await;
    let expiring = Some("2030-01-01T00:00:00Z");
    let expiring = insert(0, expiring, "paid", "2026-03-01T00:00:00Z").await;
    let first = insert(-1, None, "paid", "2026-03-01T00:00:00Z").await;
    let image = world.ledger.image(&account).await.unwrap().unwrap();
    let drawn: Vec<LotId> = image.lots.iter().map(|(lot, _)| lot.id).collect();
    assert_eq!(drawn, [first, expiring, promotional, older, newer]);
}
