//! Scripts on a server that forgets them, on one that is out of memory, and on data that they cannot go on with.

use std::collections::BTreeMap;

use tollgate::clock::UnixMs;
use tollgate::quota::{
    ChangeSeq, ExpiredLot, LotId, MAX_DETAIL_BYTES, MAX_LINES, MAX_LOTS, Overdue, Reserve,
    SettleAnswer, Store, StoreChange, StoreError,
};

use crate::harness::redis::Server;
use crate::store::stage::{SHORT_MS, Stage, ended, grant, line};

#[tokio::test(flavor = "multi_thread")]
async fn rule_15_a_server_that_forgot_the_scripts_is_told_them_again() {
    let server = Server::start();
    let stage = Stage::redis_at(&server.url()).await.with_lots(&[100]).await;
    let claim = stage.claim(10);
    stage.hold(&claim).await;

    server.command::<()>(&["SCRIPT", "FLUSH"]);
    stage.hold(&stage.claim(20)).await;
    stage.end(&stage.settled(&claim, 5, &[])).await;
    assert_eq!(stage.lots().await, [(1, 75, 20)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_14_a_server_out_of_memory_takes_endings_but_no_holds() {
    let server = Server::start();
    let stage = Stage::redis_at(&server.url()).await.with_lots(&[100]).await;
    let claim = stage.claim(10);
    stage.hold(&claim).await;

    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = stage.store.reserve(&stage.claim(1)).await;
    assert!(
        matches!(&refused, Err(StoreError::Away(why)) if why.contains("OOM")),
        "{refused:?}"
    );
    let settled = stage.settle(&stage.settled(&claim, 5, &[])).await;
    assert!(matches!(settled, SettleAnswer::Ended(_)));
    assert_eq!(stage.lots().await, [(1, 95, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_may_evict_is_seen() {
    let server = Server::start();
    let stage = Stage::redis_at(&server.url()).await;
    let noeviction = async || stage.store.view(stage.shard).await.unwrap().noeviction;
    assert!(noeviction().await);
    server.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert!(!noeviction().await);
}

/// Nobody takes back what a script wrote before it stopped: so none writes before it is past all that may stop it.
#[tokio::test(flavor = "multi_thread")]
async fn rule_10_a_script_that_stops_at_what_it_finds_has_written_nothing() {
    let server = Server::start();
    let stage = Stage::redis_at(&server.url()).await.with_lots(&[100]).await;
    let held = stage.claim(10);
    stage.hold(&held).await;
    let brief = Reserve {
        deadline_ms: SHORT_MS,
        ..stage.claim(10)
    };
    stage.reach(stage.hold(&brief).await).await;
    make_nonsense_of_the_lot(&server, &stage);
    let (store, account) = (&stage.store, stage.account.clone());
    let mut before = everything(&server);
    let stopped = |verb: &str, error: Option<StoreError>, before: &Everything| {
        let error = error.unwrap_or_else(|| panic!("{verb} goes on"));
        assert!(matches!(error, StoreError::Nonsense(_)), "{verb}: {error}");
        assert!(everything(&server) == *before, "{verb} has written");
    };

    let error = store.reserve(&stage.claim(1)).await.err();
    stopped("reserve", error, &before);
    let error = store.settle(&stage.settled(&held, 5, &[])).await.err();
    stopped("settle", error, &before);
    let overdue = Overdue {
        id: brief.id,
        account: account.clone(),
    };
    stopped("lapse", store.lapse(&overdue).await.err(), &before);
    let expired = ExpiredLot {
        account: account.clone(),
        lot: LotId(1),
        expires_at: UnixMs(0),
    };
    stopped("expire", store.expire(&expired).await.err(), &before);
    let change = StoreChange {
        shard: stage.shard,
        seq: ChangeSeq(1),
        account,
        body: grant(&[1], 1, 5),
    };
    stopped("apply", store.apply(&change).await.err(), &before);
    stage.begin_epoch(2).await;
    before = everything(&server);
    let error = store.load(&stage.image(&[100])).await.err();
    stopped("load", error, &before);
}

/// In place of what is left and held of the account's first lot there is no number.
fn make_nonsense_of_the_lot<S: Store>(server: &Server, stage: &Stage<S>) {
    const SCRIPT: &str = "local account = { cmsgpack.unpack(redis.call('HGET', KEYS[1], 'state')) } \
        account[9], account[10] = 'nonsense', 'nonsense' \
        redis.call('HSET', KEYS[1], 'state', cmsgpack.pack(unpack(account)))";
    let keys: Vec<String> = server.command(&["KEYS", &format!("*:a:{}", stage.account)]);
    server.command::<()>(&["EVAL", SCRIPT, "1", &keys[0]]);
}

/// Every key with what is in it.
type Everything = BTreeMap<String, Vec<u8>>;

fn everything(server: &Server) -> Everything {
    let keys: Vec<String> = server.command(&["KEYS", "*"]);
    let dumped = |key: String| {
        let value = server.command(&["DUMP", &key]);
        (key, value)
    };
    keys.into_iter().map(dumped).collect()
}

/// A hold is a string that ends with its detail, and nothing marks where that ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_lapse_records_the_detail_to_the_byte_even_an_empty_one() {
    let stage = Stage::redis().await.with_lots(&[100]).await;
    for (detail, lines) in [("", 0), ("", MAX_LINES), ("\u{1}\u{7f}\u{e9}", MAX_LINES)] {
        let resources = (0..lines).map(|n| format!("resource_{n}"));
        let claim = Reserve {
            lines: resources.map(|name| line(&name, 1, 100)).collect(),
            detail: detail.into(),
            deadline_ms: SHORT_MS,
            ..stage.claim(1)
        };
        stage.reach(stage.hold(&claim).await).await;
        let entry = stage.lapsed(claim.id).await;
        assert_eq!(ended(&entry).detail, claim.detail);
    }
}

/// A script's lists go over Lua's stack, which is bounded: the largest account there may be fits.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_account_fits_into_a_script() {
    let stage = Stage::redis().await.with_lots(&[1; MAX_LOTS]).await;
    let resources = (0..MAX_LINES).map(|n| format!("resource_{n}"));
    let claim = Reserve {
        lines: resources.map(|name| line(&name, 1, 1)).collect(),
        detail: "x".repeat(MAX_DETAIL_BYTES).into(),
        ..stage.claim(i64::try_from(MAX_LOTS).unwrap())
    };
    stage.hold(&claim).await;
    assert_eq!(stage.account().await.holds[0].slices.len(), MAX_LOTS);

    let entry = stage
        .end(&stage.settled(&claim, 300, &[1; MAX_LINES]))
        .await;
    assert_eq!(entry.moved.lots.len(), MAX_LOTS);
    assert_eq!(entry.moved.counters.len(), MAX_LINES);
    assert_eq!(stage.debt().await, (44, 0));
}
