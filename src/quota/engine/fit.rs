//! Whether a claim fits: the decision that invariant 1 stands on, made on what was seen and nothing else.

use crate::money::{Amount, MAX_AMOUNT, MAX_BALANCE, Nanos};
use crate::quota::{Line, LineState, MAX_DETAIL_BYTES, MAX_LINES, Reserve, Seen};

impl Seen {
    /// Whether wallet and every line have room. What asks for nothing always fits.
    pub(super) fn fits(&self, reserve: &Reserve, overage: Nanos) -> bool {
        self.has_room(reserve, overage, |line| line.limit)
    }

    /// Whether the sums stay where they are exact. Not even force goes beyond.
    pub(super) fn can_be_kept(&self, reserve: &Reserve) -> bool {
        self.has_room(reserve, Nanos(MAX_BALANCE), |_| Amount(MAX_BALANCE))
    }

    fn has_room(&self, reserve: &Reserve, overage: Nanos, limit: fn(&Line) -> Amount) -> bool {
        let overage = overage.min(Nanos(MAX_BALANCE));
        let wallet = reserve.charge == Nanos::ZERO || self.balance + overage >= reserve.charge;
        let room = |(line, state): (&Line, &LineState)| {
            let limit = limit(line).min(Amount(MAX_BALANCE));
            line.amount == Amount(0) || state.used + state.held + line.amount <= limit
        };
        wallet && reserve.lines.iter().zip(&self.lines).all(room)
    }
}

/// The edge bounds every amount; what comes here beyond it would be a defect, found before the first write.
pub(super) fn assert_bounded(reserve: &Reserve) {
    let bounded = |amount: i64| (0..=MAX_AMOUNT).contains(&amount);
    let line = |line: &Line| bounded(line.amount.0) && bounded(line.floor.0);
    assert!(bounded(reserve.charge.0), "a charge is within its bounds");
    assert!(bounded(reserve.floor.0), "a floor is within its bounds");
    assert!(
        reserve.lines.iter().all(line),
        "a line is within its bounds"
    );
    assert!(reserve.lines.len() <= MAX_LINES, "a claim has few lines");
    assert!(
        reserve.detail.len() <= MAX_DETAIL_BYTES,
        "a detail is short"
    );
}
