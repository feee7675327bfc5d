//! What a call costs the server's one thread (rule 16).

use futures_util::future::join_all;
use tollgate::money::Nanos;
use tollgate::quota::{Reserve, SettleAnswer, Store};

use crate::harness::redis::Server;
use crate::store::stage::{Stage, line};

/// About as long as a real one.
const DETAIL: &str = r#"{"route":"/openai","provider":"openai","model":"gpt-4o-mini","price_id":17,"api_key_id":"0193f6a0-0000-7000-8000-000000000000","usage":{"input_tokens":412,"output_tokens":188,"cache_read_tokens":0,"cache_write_tokens":0},"cost_nanos":174600}"#;
const CALLS: usize = 100;
/// The best one counts: others shared the machine with other tests.
const ROUNDS: usize = 20;
/// How often a reserve and a settle call Redis.
const CALLS_OF_VERBS: [u64; 2] = [8, 9];
/// Ten times what is expected, because the machine that runs the tests is busy with them.
const TOO_MUCH_US: f64 = 320.0;

#[tokio::test(flavor = "multi_thread")]
async fn a_reserve_and_a_settle_with_five_lines_cost_microseconds() {
    let server = Server::start();
    let stage = Stage::redis_at(&server.url()).await;
    let stage = stage.with_lots(&[1_000_000_000_000, 1_000]).await;
    let (mut reserve_us, mut settle_us) = (f64::MAX, f64::MAX);
    // So that the server knows the scripts: what it does not know costs next to nothing, and the best round counts.
    let first = claim(&stage);
    stage.hold(&first).await;
    stage.end(&stage.settled(&first, 1, &[])).await;
    for _ in 0..ROUNDS {
        let claims: Vec<_> = (0..CALLS).map(|_| claim(&stage)).collect();
        server.command::<()>(&["CONFIG", "RESETSTAT"]);
        join_all(claims.iter().map(|claim| stage.hold(claim))).await;
        reserve_us = reserve_us.min(cost_us(&server));
        server.command::<()>(&["CONFIG", "RESETSTAT"]);
        let settles: Vec<_> = claims
            .iter()
            .map(|claim| stage.settled(claim, 700, &[1, 600, 1, 1, 700]))
            .collect();
        let answers = join_all(settles.iter().map(|settle| stage.settle(settle))).await;
        assert!(
            answers
                .iter()
                .all(|answer| matches!(answer, SettleAnswer::Ended(_)))
        );
        settle_us = settle_us.min(cost_us(&server));
        let seqs: Vec<_> = stage.outbox().await.iter().map(|entry| entry.seq).collect();
        stage.store.forget(stage.shard, &seqs).await.unwrap();
    }
    println!("reserve {reserve_us} us, settle {settle_us} us");
    assert!(reserve_us + settle_us < TOO_MUCH_US);
}

/// What a verb costs is how often it calls Redis, and that does not grow with what an account has.
#[tokio::test(flavor = "multi_thread")]
async fn rule_16_a_reserve_and_a_settle_call_redis_as_often_whatever_an_account_has() {
    let server = Server::start();
    let calls = async |lots: &[i64], lines: &[&str]| {
        let stage = Stage::redis_at(&server.url()).await.with_lots(lots).await;
        let claim = Reserve {
            lines: lines.iter().map(|name| line(name, 5, 10)).collect(),
            ..stage.claim(20)
        };
        server.command::<()>(&["CONFIG", "RESETSTAT"]);
        stage.hold(&claim).await;
        let of_reserve = calls_of_scripts(&server);
        server.command::<()>(&["CONFIG", "RESETSTAT"]);
        let settle = stage.settled(&claim, 20, &vec![5; lines.len()]);
        let settled = stage.settle(&settle).await;
        assert!(matches!(settled, SettleAnswer::Ended(_)), "{settled:?}");
        [of_reserve, calls_of_scripts(&server)]
    };
    assert_eq!(calls(&[20], &[]).await, CALLS_OF_VERBS);
    let resources = ["requests", "tokens", "messages", "tool_calls", "spend"];
    assert_eq!(calls(&[4; 8], &resources).await, CALLS_OF_VERBS);
}

/// How often scripts called Redis since the statistics were reset.
fn calls_of_scripts(server: &Server) -> u64 {
    let stats: String = server.command(&["INFO", "commandstats"]);
    let commands = stats
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_"));
    let ours = ["eval", "config", "info"];
    let of_scripts = commands.filter(|line| !ours.iter().any(|name| line.starts_with(name)));
    let calls = of_scripts.filter_map(|line| line.split_once("calls=")?.1.split(',').next());
    calls
        .map(|calls| calls.parse::<u64>().expect("a number"))
        .sum()
}

/// As a chat call of an account with five limits makes it.
fn claim<S: Store>(stage: &Stage<S>) -> Reserve {
    let resources = ["requests", "tokens", "messages", "tool_calls", "spend"];
    let lines = resources.map(|resource| line(resource, 1_000, 1_000_000_000));
    Reserve {
        floor: Nanos(200),
        lines: lines.to_vec(),
        detail: DETAIL.into(),
        ..stage.claim(1_000)
    }
}

/// What the scripts took on average since the statistics were reset.
fn cost_us(server: &Server) -> f64 {
    let stats: String = server.command(&["INFO", "commandstats"]);
    let line = stats
        .lines()
        .find(|line| line.starts_with("cmdstat_evalsha:"));
    let per_call = line.and_then(|line| {
        line.split(',')
            .find_map(|part| part.strip_prefix("usec_per_call="))
    });
    per_call.expect("scripts were called").parse().unwrap()
}
