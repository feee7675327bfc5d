//! Without the store: what a route does while it is away (rule 31).
//!
//! Who calls, on what plan and at what price is known from before; how much is left is not. So what goes on is bounded,
//! written down first, and charged when the store is back.

use std::sync::Arc;

use super::Sidecar;
use super::admit::{AWAY, Admitted};
use super::meter::Meter;
use super::refusal::Refusal;
use super::route::Route;
use crate::config::StoreDown;
use crate::ledger::Ledger;
use crate::money::{Amount, Nanos};
use crate::quota::{
    AccountId, BoundedCall, Count, Line, Outcome, Reservation, ReservationId, Settle, Snapshot,
    Store,
};

const SPENT: Refusal = Refusal::QuotaUnavailable(
    "the store is away, and this account has used what it may until then",
);
const UNWRITTEN: Refusal =
    Refusal::QuotaUnavailable("the store is away, and its calls cannot be written down");

impl<S: Store + 'static, L: Ledger + 'static> Sidecar<S, L> {
    /// Lets a call through where its route and its account's bound allow it.
    // holds: 8, fail as configured
    pub(super) fn go_on_without_store(
        &self,
        route: &Route,
        snapshot: &Snapshot,
        meter: &Meter,
        id: ReservationId,
    ) -> Result<BoundedCall, Refusal> {
        let (StoreDown::Bounded(bound), Some(bounded)) =
            (route.config.on_store_down, &self.bounded)
        else {
            return Err(AWAY);
        };
        // One that was never answered by the store says nothing of the account.
        let account = &snapshot.account;
        self.snapshots.known(account).ok_or(AWAY)?;
        let estimate = Nanos(meter.quote().charge_claim().hold);
        bounded.admit(id, account, estimate, bound).ok_or(SPENT)
    }

    /// Writes such a call down, so that it may be forwarded.
    pub(super) async fn admit_bounded(
        &self,
        route: &Route,
        id: ReservationId,
        meter: Arc<Meter>,
        mut reservation: Reservation,
        call: BoundedCall,
        would_refuse: Option<&'static str>,
    ) -> Result<(Admitted, Reservation), Refusal> {
        let bounded = self.bounded.as_ref().ok_or(AWAY)?;
        meter.bounded();
        meter.would_refuse(would_refuse);
        let floor = floor(id, call.account(), &meter);
        reservation.goes_on_without_store(call);
        if let Err(error) = bounded.write_down(floor).await {
            tracing::error!(%error, "the journal of bounded calls cannot be written");
            return Err(UNWRITTEN);
        }
        self.metrics.bounded.increment(1);
        route.metrics.admitted(would_refuse);
        let admitted = Admitted {
            id,
            meter,
            seen: None,
            would_refuse,
        };
        Ok((admitted, reservation))
    }

    /// The snapshot by which a call passes that costs nothing: where its route is bounded, the one that is known.
    pub(super) async fn snapshot_of_free_call(
        &self,
        route: &Route,
        account: &AccountId,
    ) -> Result<Arc<Snapshot>, Refusal> {
        let current = Box::pin(self.current_snapshot(account)).await;
        match route.config.on_store_down {
            StoreDown::Bounded(_) if current == Err(AWAY) => {
                self.snapshots.known(account).ok_or(AWAY)
            }
            _ => current,
        }
    }
}

/// How the call ends if this process is killed: as a lapse would, with the charge of its input (rule 6).
fn floor(id: ReservationId, account: &AccountId, meter: &Meter) -> Settle {
    let quote = meter.quote();
    let count = |line: &Line| Count {
        key: line.key.clone(),
        start: line.span.start,
        amount: Amount(line.floor.0),
    };
    Settle {
        id,
        account: account.clone(),
        outcome: Outcome::Settled,
        charge: Nanos(quote.charge_claim().floor),
        counts: quote.lines.iter().map(count).collect(),
        detail: meter.detail_if_lapsed(),
    }
}
