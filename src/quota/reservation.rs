//! The guard of one reservation: while it lives, the call goes on; when it is dropped, the reservation ends.
//!
//! Every way out of a call, a refusal by the upstream, an error, a caller who hangs up, drops the guard. So no path can
//! forget to end what it held, and the ending itself can neither wait nor fail.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;

use super::bounded::BoundedCall;
use super::{AccountId, Count, Detail, Outcome, ReservationId, Reserve, Settle};
use crate::money::Nanos;

/// How a reservation would end if it ended now.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// Settled or released.
    pub outcome: Outcome,
    /// The charge in all.
    pub charge: Nanos,
    /// One for each line of the hold, in their order.
    pub counts: Vec<Count>,
    /// The record.
    pub detail: Detail,
}

/// What is known of a call that is over.
impl Metered for Ending {
    fn ending(&self) -> Ending {
        self.clone()
    }
}

impl From<Settle> for Ending {
    fn from(settle: Settle) -> Self {
        Self {
            outcome: settle.outcome,
            charge: settle.charge,
            counts: settle.counts,
            detail: settle.detail,
        }
    }
}

/// What watches a call and can say at any time what it has used. Asked by heartbeats, and once at the end.
pub trait Metered: Send + Sync {
    /// How the reservation would end now.
    fn ending(&self) -> Ending;
}

/// A reservation that is over, on its way to the settler, with the room it may take there.
pub(super) struct Closing {
    pub id: ReservationId,
    pub account: AccountId,
    pub metered: Arc<dyn Metered>,
    /// Moves with the work: returned when the store has acknowledged the ending.
    pub permit: OwnedSemaphorePermit,
    /// Where the call went on without the store: its journal and its bound are told how it ended.
    pub bounded: Option<BoundedCall>,
}

/// A call in flight, as the heartbeat sees it.
pub(super) struct Live {
    /// What it holds, so that it can be held again where the store has lost it (rule 23).
    pub claim: Arc<Reserve>,
    pub metered: Arc<dyn Metered>,
    pub since: Instant,
}

/// Every call in flight that is held. A DashMap, because calls come and go on all threads at once and never meet.
pub(super) type LiveCalls = DashMap<ReservationId, Live>;

/// One call's claim. Dropping it ends it, as its meter says.
// holds: 2, never leaked
#[must_use = "dropping a reservation ends it"]
pub struct Reservation {
    closing: Option<Closing>,
    settler: UnboundedSender<Closing>,
    live: Arc<LiveCalls>,
}

impl Reservation {
    pub(super) fn new(
        closing: Closing,
        settler: UnboundedSender<Closing>,
        live: Arc<LiveCalls>,
    ) -> Self {
        Self {
            closing: Some(closing),
            settler,
            live,
        }
    }

    /// The store holds the claim: from now on heartbeats keep the hold alive, and make it again where it is lost. Not
    /// before, since a hold is made again without a look at the limits.
    pub fn was_held(&self, claim: Arc<Reserve>) {
        if let Some(closing) = &self.closing {
            let call = Live {
                claim,
                metered: closing.metered.clone(),
                since: Instant::now(),
            };
            self.live.insert(closing.id, call);
        }
    }

    /// The call goes on although the store is away: its ending will be settled like that of an unknown id (rule 31).
    pub fn goes_on_without_store(&mut self, call: BoundedCall) {
        if let Some(closing) = &mut self.closing {
            closing.bounded = Some(call);
        }
    }

    /// Forgets a claim that the store has not held, so that there is nothing to end, and gives its room back.
    pub fn was_not_held(mut self) -> Option<OwnedSemaphorePermit> {
        self.closing.take().map(|closing| closing.permit)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(closing) = self.closing.take() {
            self.live.remove(&closing.id);
            // The settler outlives every call; if it is gone the process is ending, and the hold lapses by itself.
            let _ = self.settler.send(closing);
        }
    }
}
