//! What no verb does to an engine: the model takes rules back with it, to see that each is needed.

use super::reservation::Reservation;
use super::{AccountId, Engine, Epoch, Header, Nanos, ReservationId};
use crate::quota::LotId;

impl Engine {
    /// Writes the header as it is told, also downwards.
    pub(crate) fn overwrite_header(&mut self, header: &Header) {
        self.header = header.clone();
    }

    /// Makes an account cold.
    pub(crate) fn chill(&mut self, id: &AccountId) {
        if let Some(account) = self.accounts.get_mut(id) {
            account.epoch = Epoch(-1);
        }
    }

    /// What is held of each lot of an account, and of its debt, also where it is cold.
    pub(crate) fn held_of(&self, id: &AccountId) -> (Vec<(LotId, Nanos)>, Nanos) {
        let Some(account) = self.accounts.get(id) else {
            return Default::default();
        };
        let lots = account.wallet.lots.iter();
        let held = lots.map(|(lot, state)| (*lot, state.held)).collect();
        (held, account.wallet.debt.held)
    }

    /// What is held for a reservation, or was charged for it; `None` where it is not known.
    pub(crate) fn takes(&self, id: ReservationId) -> Option<Nanos> {
        match self.reservations.get(&id)? {
            Reservation::Held(hold) => Some(hold.slices.total()),
            Reservation::Ended(mark) => Some(mark.ended.charge),
        }
    }

    /// Forgets that a reservation has ended.
    pub(crate) fn unmark(&mut self, id: ReservationId) {
        if let Some(Reservation::Ended(mark)) = self.reservations.get(&id) {
            self.marks.remove(&(mark.until, id));
            self.reservations.remove(&id);
        }
    }
}
