//! The reckoning: what the callers were told against what the ledger has, once everything is whole again.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use super::fault::{Death, Loss};
use super::load::{Served, Told};
use crate::harness::account::Account;
use crate::harness::wait::until_within;

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
    /// Whether a record may be missing: the store lost its tail, and the sidecar that would have settled it again died.
    fn may_be_lost(&self, served: &Served) -> bool {
        let died = self
            .deaths
            .iter()
            .any(|death| death.process == served.process);
        died && self.losses.iter().any(|loss| {
            loss.from < served.ended + UNFLUSHED && served.ended < loss.until + UNFLUSHED
        })
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
    let missing = until_within(
        QUIET,
        "every call that was served has its record",
        async || {
            let missing = missing(accounts, told).await;
            missing
                .iter()
                .all(|served| seen.may_be_lost(served))
                .then_some(missing)
        },
    )
    .await;
    accounts[0].installation.verify();

    for account in accounts {
        // A correction is a line of its own: here are those that have the reservation's id.
        let mut lines: BTreeMap<Uuid, usize> = BTreeMap::new();
        for record in account.records().await {
            *lines.entry(record.id).or_default() += 1;
        }
        assert!(lines.values().all(|count| *count == 1), "one record an id");
    }
    println!(
        "served {}, refused {}, broken off {}; {} losses of the store, {} dead sidecars; records lost: {} (each of a dead \
         sidecar, within {UNFLUSHED:?} of a loss)",
        told.served.len(),
        told.refused.len(),
        told.broken,
        seen.losses.len(),
        seen.deaths.len(),
        missing.len(),
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

async fn missing(accounts: &[&Account<'_>], told: &Told) -> Vec<Served> {
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
