//! Endings: settle, release and lapse, and what each moves.
//!
//! Every reservation ends exactly once (invariant 2); each ending moves, marks and writes its entry in one step
//! (invariants 3 and 4). Only a lapse may be corrected, once, by the settle that came late (rule 6).

use crate::clock::UnixMs;
use crate::money::{Amount, MAX_AMOUNT, Nanos};
use crate::quota::{
    AccountId, Count, ENDED_MARK_MS, Ended, LapseAnswer, MAX_DETAIL_BYTES, Moved, OutSeq, Outcome,
    Overdue, ReservationId, Settle, SettleAnswer, Window,
};

use super::reservation::{Hold, Lapse, Mark, Reservation, Totals, amount_of, is_same};
use super::{Account, Engine};

impl Engine {
    /// Ends a reservation with what was really used. One that is not known is charged at once (rule 7).
    pub fn settle(&mut self, now: UnixMs, settle: &Settle) -> SettleAnswer {
        assert_bounded(settle);
        self.forget_marks(now);
        if let Some(Reservation::Ended(mark)) = self.reservations.get(&settle.id)
            && mark.lapse.is_none()
        {
            return SettleAnswer::Already(mark.ended);
        }
        if self.warm(&settle.account).is_none() {
            return SettleAnswer::Cold;
        }
        if self.goes_below_zero(settle) {
            return SettleAnswer::BelowZero;
        }
        let seq = match self.take(settle.id) {
            Some(Reservation::Held(hold)) => self.end(now, settle.id, &hold, Totals::of(settle)),
            Some(Reservation::Ended(mark)) => {
                let lapse = mark.lapse.as_ref().expect("only a lapse is corrected");
                self.correct(now, settle, &mark, lapse)
            }
            None => self.charge(now, settle),
        };
        SettleAnswer::Ended(seq)
    }

    /// Ends a hold whose deadline has passed. The deadline is looked at again, since a heartbeat may have come (rule 6).
    pub fn lapse(&mut self, now: UnixMs, overdue: &Overdue) -> LapseAnswer {
        self.forget_marks(now);
        match self.reservations.get(&overdue.id) {
            None => return LapseAnswer::Unknown,
            Some(Reservation::Ended(mark)) => return LapseAnswer::Already(mark.ended),
            Some(Reservation::Held(hold)) if now < hold.deadline => {
                return LapseAnswer::NotDue(hold.deadline);
            }
            Some(Reservation::Held(_)) => {}
        }
        if self.warm(&overdue.account).is_none() {
            return LapseAnswer::Cold;
        }
        let Some(Reservation::Held(hold)) = self.take(overdue.id) else {
            unreachable!("it was held a moment ago");
        };
        let totals = hold.lapsed();
        LapseAnswer::Lapsed(self.end(now, overdue.id, &hold, totals))
    }

    /// An open hold ends: by a settle, a release or a lapse.
    fn end(&mut self, now: UnixMs, id: ReservationId, hold: &Hold, mut totals: Totals) -> OutSeq {
        let (reserved, lines) = (hold.slices.total(), hold.counts());
        let overrun = totals.overruns(reserved, &lines);
        let account = self.live(&hold.account);
        let charged = account.wallet.end(now, &hold.slices, totals.charge);
        for line in &lines {
            account.counters.give_back(line);
        }
        totals.charged(charged.total());
        account.count(&mut totals);

        let moved = Moved {
            counters: totals.counts.clone(),
            ..charged.moved()
        };
        let lapse = (totals.outcome == Outcome::Lapsed).then(|| Lapse {
            reserved,
            held: lines,
            charged,
            counted: totals.counts.clone(),
        });
        self.mark(now, id, &totals, lapse);
        let entry = totals.entry(id, reserved, overrun);
        self.write(now, &hold.account, entry, moved)
    }

    /// A settle comes after a lapse: what the lapse charged is known, so the difference is moved at once (rule 6).
    fn correct(&mut self, now: UnixMs, settle: &Settle, mark: &Mark, lapse: &Lapse) -> OutSeq {
        let mut totals = Totals::of(settle);
        let overrun = totals.overruns(lapse.reserved, &lapse.held);
        let account = self.live(&settle.account);
        let more = totals.charge - mark.ended.charge;
        let mut moved = if more >= Nanos::ZERO {
            let drawn = account.wallet.charge(now, more);
            totals.charged(mark.ended.charge + drawn.total());
            drawn.moved()
        } else {
            account.wallet.give_back(&lapse.charged, -more)
        };
        moved.counters = differences(&lapse.counted, &totals.counts);
        for difference in &mut moved.counters {
            let beyond = account.counters.count(difference);
            totals.not_counted(difference, beyond);
            difference.amount -= beyond;
        }
        moved.counters.retain(|count| count.amount != Amount(0));

        self.mark(now, settle.id, &totals, None);
        let entry = totals.entry(settle.id, lapse.reserved, overrun);
        self.write(now, &settle.account, entry, moved)
    }

    /// A settle of an id that is not known: charged at once; the ledger decides whether that was right (rules 7 and 24).
    fn charge(&mut self, now: UnixMs, settle: &Settle) -> OutSeq {
        let mut totals = Totals::of(settle);
        let account = self.live(&settle.account);
        let drawn = account.wallet.charge(now, totals.charge);
        totals.charged(drawn.total());
        account.count(&mut totals);
        let moved = Moved {
            counters: totals.counts.clone(),
            ..drawn.moved()
        };
        self.mark(now, settle.id, &totals, None);
        let entry = totals.entry(settle.id, Nanos::ZERO, false);
        self.write(now, &settle.account, entry, moved)
    }

    /// Whether a cumulative count would go down by more than it stands at (rule 33).
    fn goes_below_zero(&mut self, settle: &Settle) -> bool {
        let counted = match self.reservations.get(&settle.id) {
            Some(Reservation::Ended(mark)) => {
                mark.lapse.as_ref().map(|lapse| lapse.counted.clone())
            }
            _ => None,
        };
        let counted = counted.unwrap_or_default();
        let counters = &self.live(&settle.account).counters;
        settle.counts.iter().any(|count| {
            let moves = count.amount - amount_of(&counted, count);
            let stands = counters.seen(&count.key, count.start).used;
            count.amount < Amount(0) && stands + moves < Amount(0)
        })
    }

    fn live(&mut self, id: &AccountId) -> &mut Account {
        self.warm(id)
            .expect("an ending looks first whether its account is live")
    }

    /// Takes what is known of an id, with its deadline or its time to be forgotten; a mark follows in the same step.
    fn take(&mut self, id: ReservationId) -> Option<Reservation> {
        let taken = self.reservations.remove(&id)?;
        let was_there = match &taken {
            Reservation::Held(hold) => self.deadlines.remove(&(hold.deadline, id)),
            Reservation::Ended(mark) => self.marks.remove(&(mark.until, id)),
        };
        assert!(was_there, "every hold has a deadline, every mark an end");
        Some(taken)
    }

    /// Leaves a mark, so that no late command holds or charges it again (rule 5, invariant 4).
    fn mark(&mut self, now: UnixMs, id: ReservationId, totals: &Totals, lapse: Option<Lapse>) {
        let ended = Ended {
            outcome: totals.outcome,
            charge: totals.charge,
        };
        let until = now.plus_ms(ENDED_MARK_MS);
        let mark = Mark {
            ended,
            lapse: lapse.map(Box::new),
            until,
        };
        self.marks.insert((until, id));
        self.reservations
            .insert(id, Reservation::Ended(Box::new(mark)));
    }

    /// Forgets the marks whose time is over; each verb does so first, so that marks are bounded by the rate of calls.
    /// Says whether there were any.
    pub fn forget_marks(&mut self, now: UnixMs) -> bool {
        let before = self.marks.len();
        while let Some((until, id)) = self.marks.first().copied()
            && until <= now
        {
            self.marks.remove(&(until, id));
            self.reservations.remove(&id);
        }
        self.marks.len() < before
    }
}

impl Account {
    /// Counts what was used, as far as the counters go.
    fn count(&mut self, totals: &mut Totals) {
        for count in totals.counts.clone() {
            let beyond = self.counters.count(&count);
            totals.not_counted(&count, beyond);
        }
    }
}

/// What moves where one count in all takes the place of another: no zeros.
fn differences(before: &[Count], after: &[Count]) -> Vec<Count> {
    let changed = after.iter().map(|count| Count {
        amount: count.amount - amount_of(before, count),
        ..count.clone()
    });
    let gone = before
        .iter()
        .filter(|count| !after.iter().any(|c| is_same(c, count)));
    let taken_back = gone.map(|count| Count {
        amount: -count.amount,
        ..count.clone()
    });
    let moves = |count: &Count| count.amount != Amount(0);
    changed.chain(taken_back).filter(moves).collect()
}

/// The edge bounds every amount; what comes here beyond it would be a defect, found before the first write.
fn assert_bounded(settle: &Settle) {
    let bounded = |amount: i64| (0..=MAX_AMOUNT).contains(&amount);
    let count = |count: &Count| match count.key.window {
        Window::Cumulative => bounded(count.amount.0.abs()),
        _ => bounded(count.amount.0),
    };
    assert!(bounded(settle.charge.0), "a charge is within its bounds");
    assert!(
        settle.counts.iter().all(count),
        "a count is within its bounds"
    );
    assert!(settle.detail.len() <= MAX_DETAIL_BYTES, "a detail is short");
    let by_caller = settle.outcome != Outcome::Lapsed;
    assert!(by_caller, "only the deadline makes a reservation lapse");
}
