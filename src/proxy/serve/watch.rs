//! What is looked at beside the calls: readiness, gauges, epochs, the quarantine.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Background;
use crate::ledger::Ledger;
use crate::proxy::health::{Dependency, Readiness};
use crate::quota::Store;
use crate::telemetry::State;

/// How often readiness is looked after.
const LOOK_EACH: Duration = Duration::from_millis(200);
/// How often gauges are. All calls in flight are gone through for it.
const SHOW_EACH: Duration = Duration::from_secs(1);
/// How often the ledger is asked how much is in its quarantine.
const QUARANTINE_EACH: Duration = Duration::from_mins(1);

impl<S: Store + 'static, L: Ledger + 'static> Background<S, L> {
    pub(super) async fn count_epochs(&self) {
        let mut epochs = self.keeper.epochs().listen();
        loop {
            for new in epochs.next().await {
                self.metrics
                    .epochs
                    .increment(u64::from(new.before.is_some()));
            }
        }
    }

    pub(super) async fn count_quarantined(&self) {
        let mut looks = interval(QUARANTINE_EACH);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            // While the ledger is away, what was there last is shown; that it is away is said elsewhere.
            if let Ok(entries) = self.ledger.quarantined().await {
                self.metrics.quarantined(entries);
            }
        }
    }

    /// Keeps readiness true.
    pub(super) async fn watch(&self, readiness: &Readiness) {
        let mut ticks = interval(LOOK_EACH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look(readiness);
        }
    }

    pub(super) fn look(&self, readiness: &Readiness) {
        let health = self.keeper.health();
        let store = health.store.or(health.eviction).or(health.foreign);
        readiness.note(Dependency::Store, store);
        readiness.note(Dependency::Ledger, health.ledger);
        readiness.note(Dependency::Applier, self.applier.away());
        readiness.note(Dependency::Flusher, self.flusher.away());
    }

    /// Keeps the gauges true, from what is known here: neither store nor ledger is asked for them.
    pub(super) async fn show(&self, readiness: &Readiness) {
        let mut ticks = interval(SHOW_EACH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.metrics.show(&self.state(readiness));
        }
    }

    fn state(&self, readiness: &Readiness) -> State {
        let health = self.keeper.health();
        let (open, held) = self.settler.held();
        let open_or_ending = self.settler.open_or_ending();
        State {
            ready: readiness.is_ready(),
            store_up: health.store.is_none() && health.foreign.is_none(),
            ledger_up: health.ledger.is_none(),
            flusher_up: self.flusher.away().is_none(),
            applier_up: self.applier.away().is_none(),
            noeviction: health.eviction.is_none(),
            open_calls: open as u64,
            held,
            endings_waiting: open_or_ending.saturating_sub(open) as u64,
            outbox_entries: self.keeper.outbox_entries(),
            outbox_age: self.kept.oldest().unwrap_or_default(),
        }
    }
}
