//! Exactly the budget: whatever the number of callers and sidecars, what is served fits what there was (invariant 1),
//! and what there was is served.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::harness::account::{Account, Record, chat, credits};
use crate::harness::client::{Answer, Client};
use crate::harness::configuration::Settings;
use crate::harness::installation::{Installation, Of, another_sidecar, installation, sidecar};
use crate::harness::redis;
use crate::harness::sidecar::Sidecar;

const CALLS: usize = 4_000;
const AT_ONCE: usize = 128;
/// How many of them the budget is for.
const BUDGET: i64 = 500;

/// How the calls ended.
#[derive(Debug, Default)]
struct Tally {
    served: i64,
    /// By code; those that were told to try again and did are not among them.
    refused: BTreeMap<String, usize>,
    told_to_retry: usize,
}

#[tokio::test]
async fn a_balance_for_500_calls_serves_500_of_4000_through_three_sidecars() {
    a_balance_is_kept_to(installation().await).await;
}

/// It would fail on a key outside of its shard's slot, or on state kept by one node for all.
#[tokio::test]
async fn on_a_redis_cluster_a_balance_is_kept_to_as_exactly() {
    a_balance_is_kept_to(&Installation::on_servers(&redis::cluster().url()).await).await;
}

async fn a_balance_is_kept_to(installation: &Installation) {
    let sidecar = if installation.is_embedded() {
        another_sidecar().await
    } else {
        Of::Own(installation.sidecar(&Settings::default()))
    };
    let probe = probe(installation, &sidecar, &chat(16)).await;
    // The estimate may be a little above the use, so the last call or two may not fit.
    let budget = probe.charged * BUDGET;
    let account = installation.account(&credits(budget));

    let tally = storm(&account, &chat(16)).await;

    let left = settled(&account, &tally, budget, probe.charged).await;
    assert!(
        left < probe.reserved,
        "{left} would have been enough for another call"
    );
    let due = ["insufficient_quota", "request_exceeds_budget"];
    assert!(
        tally
            .refused
            .keys()
            .all(|code| due.contains(&code.as_str())),
        "{tally:?}"
    );
}

#[tokio::test]
async fn estimates_far_above_the_use_neither_oversell_nor_refuse_for_good() {
    let installation = installation().await;
    let body = chat(400);
    let probe = probe(installation, sidecar().await, &body).await;
    assert!(probe.reserved > 10 * probe.charged, "{probe:?}");
    let budget = probe.charged * BUDGET;
    let account = installation.account(&credits(budget));

    let tally = storm(&account, &body).await;

    let left = settled(&account, &tally, budget, probe.charged).await;
    assert!(
        left < probe.reserved,
        "{left} would have been enough for another call"
    );
    assert!(
        tally.told_to_retry > 0,
        "holds far above the use must have been in the way: {tally:?}"
    );
    assert!(!tally.refused.contains_key("budget_in_flight"), "{tally:?}");
}

#[tokio::test]
async fn a_token_quota_is_kept_to_as_exactly_as_a_balance() {
    let installation = installation().await;
    let probe = probe(installation, sidecar().await, &chat(16)).await;
    let tokens = |record: &Record| record.input_tokens + record.output_tokens;
    let limit = tokens(&probe) * BUDGET;
    let quota = format!(r#"{{ resource = "tokens", window = "month", limit = {limit} }}"#);
    let account = installation.account_on(&installation.plan(&quota), "1000");

    let tally = storm(&account, &chat(16)).await;

    let budget = 1_000_000_000_000;
    settled(&account, &tally, budget, probe.charged).await;
    let used: i64 = account.records().await.iter().map(tokens).sum();
    // The estimate differs from the use by as many tokens of input as it differs in nanos, a thousand each.
    let estimate = tokens(&probe) + (probe.reserved - probe.charged) / 1_000;
    assert!(used <= limit, "{used} of {limit}");
    assert!(
        limit - used < estimate,
        "{} would have been enough for another call",
        limit - used
    );
    let due = ["rate_limit_exceeded", "request_exceeds_budget"];
    assert!(
        tally
            .refused
            .keys()
            .all(|code| due.contains(&code.as_str())),
        "{tally:?}"
    );
}

/// The record of one such call.
async fn probe(installation: &Installation, sidecar: &Sidecar, body: &Value) -> Record {
    let account = installation.account("1");
    account.chat(sidecar, body).send().await.is(200);
    account.until_record().await
}

/// Makes the calls, through three sidecars in turn, or through the one that there is; whoever is told to try again does.
async fn storm(account: &Account<'_>, body: &Value) -> Tally {
    let sidecars: Vec<Of<Sidecar>> = if account.installation.is_embedded() {
        vec![another_sidecar().await]
    } else {
        let own = || Of::Own(account.installation.sidecar(&Settings::default()));
        (0..3).map(|_| own()).collect()
    };
    let calls: Vec<_> = sidecars
        .iter()
        .map(|sidecar| account.chat(sidecar, body))
        .collect();
    let calls = Arc::new(calls);
    let next = Arc::new(AtomicUsize::new(0));
    let client = Client::new();
    let callers = (0..AT_ONCE).map(|_| {
        let (calls, next, client) = (calls.clone(), next.clone(), client.clone());
        tokio::spawn(async move {
            let mut tally = Tally::default();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= CALLS {
                    return tally;
                }
                loop {
                    let answer = client.send(calls[number % calls.len()].clone()).await;
                    if tally.count(&answer) {
                        break;
                    }
                    tokio::time::sleep(told_to_wait(&answer)).await;
                }
            }
        })
    });
    let mut total = Tally::default();
    for caller in callers.collect::<Vec<_>>() {
        total.add(caller.await.expect("a caller that does not panic"));
    }
    total
}

fn told_to_wait(answer: &Answer) -> Duration {
    let ms = answer.header("retry-after-ms").expect("a time to wait");
    Duration::from_millis(ms.parse().expect("a number"))
}

impl Tally {
    /// Whether this answer is the call's last.
    fn count(&mut self, answer: &Answer) -> bool {
        if answer.status == 200 {
            self.served += 1;
            return true;
        }
        let code = answer.code();
        if code == "budget_in_flight" {
            assert_eq!(answer.status, 429, "{}", answer.text());
            self.told_to_retry += 1;
            return false;
        }
        *self.refused.entry(code).or_default() += 1;
        true
    }

    fn add(&mut self, other: Self) {
        self.served += other.served;
        self.told_to_retry += other.told_to_retry;
        for (code, count) in other.refused {
            *self.refused.entry(code).or_default() += count;
        }
    }
}

/// Waits until every ending is in the ledger, checks that records, balance and audit agree, and returns what is left.
async fn settled(account: &Account<'_>, tally: &Tally, budget: i64, charge: i64) -> i64 {
    assert!(tally.served <= BUDGET, "oversold: {tally:?}");
    let refused: usize = tally.refused.values().sum();
    assert_eq!(
        usize::try_from(tally.served).unwrap() + refused,
        CALLS,
        "{tally:?}"
    );
    account.until_nothing_held().await;
    let served = usize::try_from(tally.served).expect("a count");
    let records = account.until_records(served).await;
    assert!(
        records
            .iter()
            .all(|record| record.charged == charge && !record.overrun)
    );
    let charged: i64 = records.iter().map(|record| record.charged).sum();
    let left = account.available();
    assert_eq!(left, budget - charged, "{tally:?}");
    account.installation.verify();
    left
}
