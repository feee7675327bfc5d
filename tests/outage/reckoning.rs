//! The reckoning: what the callers were told against what the ledger has, once everything is whole again.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::fault::{Death, Loss};
use super::load::{Served, Told};
use crate::harness::account::Account;
use crate::harness::wait::until_within;

/// The response timeout of the store is 1 s and the deadline of a read of the ledger 2 s; a call that finds its account
/// cold may wait for both, on a machine that is busy.
const LONGEST_REFUSAL: Duration = Duration::from_secs(6);
/// How long it may take until everything is settled again: several deadlines of a hold, and rounds of a flusher.
const QUIET: Duration = Duration::from_mins(1);
/// How long before a loss an ending may have been acknowledged that no ledger had by then, and how long after it a
/// sidecar may take to settle again what was lost.
const UNFLUSHED: Duration = Duration::from_secs(10);

/// What was seen of faults.
#[derive(Debug, Default)]
pub struct Seen {
    pub losses: Vec<Loss>,
    pub deaths: Vec<Death>,
}

impl Seen {
    /// Whether a record may be missing: the store lost its tail, and the sidecar that would have settled it again died
    /// before it could. Says how far the call's end was from the loss.
    fn excuse(&self, served: &Served) -> Option<Duration> {
        let died = |loss: &&Loss| {
            let mut deaths = self.deaths.iter();
            deaths.any(|death| death.process == served.process && death.at < loss.until + UNFLUSHED)
        };
        let distance = |loss: &Loss| {
            let before = loss.from.saturating_duration_since(served.ended);
            before.max(served.ended.saturating_duration_since(loss.until))
        };
        let losses = self.losses.iter().filter(died).map(distance);
        losses.min().filter(|distance| *distance < UNFLUSHED)
    }
}

/// Waits until all is settled, and compares.
pub async fn reckon(
    accounts: &[&Account<'_>],
    budget: Option<(&Account<'_>, i64)>,
    told: &Told,
    seen: &Seen,
) {
    for account in accounts {
        until_within(QUIET, "nothing is held", async || {
            let output = account
                .installation
                .try_run(&["account", "show", &account.id, "--json"]);
            let shown = serde_json::from_slice::<serde_json::Value>(&output.stdout).ok()?;
            (shown["held_nanos"] == 0).then_some(())
        })
        .await;
    }
    until_within(QUIET, "every record is there, or excused", async || {
        let missing = unrecorded(accounts, told).await;
        let excused = missing.iter().all(|served| seen.excuse(served).is_some());
        excused.then_some(())
    })
    .await;
    accounts[0].installation.verify();
    // What was on its way then is there by now.
    let lost = unrecorded(accounts, told).await;
    let bound = lost
        .iter()
        .map(|served| seen.excuse(served).expect("it was excused"));
    let bound = bound.max().unwrap_or_default();

    for account in accounts {
        // A correction is a line of its own: here are those that have the reservation's id.
        let mut lines: BTreeMap<Uuid, usize> = BTreeMap::new();
        for record in account.records().await {
            *lines.entry(record.id).or_default() += 1;
        }
        assert!(lines.values().all(|count| *count == 1), "one record an id");
    }
    println!(
        "served {}, refused {}, broken off {}; {} losses of the store, {} dead sidecars; records lost: {}, each of a \
         dead sidecar and at most {:?} from a loss; the longest wait for a refusal: {:?}",
        told.served.len(),
        told.refused.len(),
        told.broken,
        seen.losses.len(),
        seen.deaths.len(),
        lost.len(),
        bound,
        told.longest_refusal,
    );
    assert!(
        told.longest_refusal < LONGEST_REFUSAL,
        "nobody waits for long"
    );
    if let Some((account, budget)) = budget {
        let records = account.records().await;
        let charged: i64 = records.iter().map(|record| record.charged).sum();
        let oversold = (charged - budget).max(0);
        println!("of a budget of {budget} nanos, charged {charged}: oversold {oversold}");
        if seen.losses.is_empty() {
            assert_eq!(
                oversold, 0,
                "never oversold while the store forgets nothing"
            );
        }
    }
}

async fn unrecorded(accounts: &[&Account<'_>], told: &Told) -> Vec<Served> {
    let mut known = std::collections::BTreeSet::new();
    for account in accounts {
        known.extend(account.records().await.iter().map(|record| record.id));
    }
    let served = told.served.iter();
    served
        .filter(|served| !known.contains(&served.reservation))
        .cloned()
        .collect()
}
