//! The counters of one account: what each window's latest span has used, and what calls in flight hold of it.
//!
//! Only the latest span is kept, and its start never goes back (rule 12): what belongs to an earlier one is over in the
//! store, and counted by the ledger alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::money::{Amount, MAX_BALANCE};
use crate::quota::{Count, CounterBalance, CounterKey, Line, LineState};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counter {
    pub start: UnixMs,
    pub used: Amount,
    pub held: Amount,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Counters(pub BTreeMap<CounterKey, Counter>);

impl Counters {
    /// The moment the lines must be built for, where theirs is another: the store's clock, or the start of a span that
    /// was seen already. A clock that steps back therefore never moves a window back, and lines built for the answer
    /// always pass.
    pub fn moved_on(&self, now: UnixMs, lines: &[Line]) -> Option<UnixMs> {
        let stored = |line: &Line| self.0.get(&line.key).map(|counter| counter.start);
        let at = lines.iter().filter_map(stored).fold(now, UnixMs::max);
        let holds = |line: &Line| {
            line.span.start <= at
                && at < line.span.end
                && stored(line).is_none_or(|start| start <= line.span.start)
        };
        (!lines.iter().all(holds)).then_some(at)
    }

    /// What a span stands at; a span that is not the stored one has seen nothing.
    pub fn seen(&self, key: &CounterKey, start: UnixMs) -> LineState {
        match self.0.get(key) {
            Some(counter) if counter.start == start => LineState {
                used: counter.used,
                held: counter.held,
            },
            _ => LineState::default(),
        }
    }

    /// Moves a counter in the span that begins at `start`, opening it where it is newer than the stored one.
    pub fn move_by(&mut self, key: &CounterKey, start: UnixMs, used: Amount, held: Amount) {
        match self.0.get_mut(key) {
            Some(counter) if counter.start > start => {}
            Some(counter) if counter.start == start => {
                counter.used += used;
                counter.held += held;
            }
            _ => {
                // Holds of this span, if any, went with an earlier epoch of it: there is nothing to take back.
                let held = held.max(Amount(0));
                self.0.insert(key.clone(), Counter { start, used, held });
            }
        }
    }

    /// Sets aside what a line claims. Whether it fits has been decided before (invariant 1).
    pub fn hold(&mut self, line: &Line) {
        self.move_by(&line.key, line.span.start, Amount(0), line.amount);
    }

    /// Counts what was used. Returns what would be beyond [`MAX_BALANCE`], and is not counted.
    #[must_use = "what is not counted is said in the record"]
    pub fn count(&mut self, count: &Count) -> Amount {
        self.move_by(&count.key, count.start, count.amount, Amount(0));
        match self.0.get_mut(&count.key) {
            Some(counter) if counter.start == count.start => {
                // What the ledger has counted beyond it is not this ending's.
                let beyond = (counter.used - Amount(MAX_BALANCE)).min(count.amount);
                let beyond = beyond.max(Amount(0));
                counter.used -= beyond;
                beyond
            }
            _ => Amount(0),
        }
    }

    /// Gives back what was held (invariant 2).
    pub fn give_back(&mut self, held: &Count) {
        self.move_by(&held.key, held.start, Amount(0), -held.amount);
    }

    /// Takes the ledger's counts in place of its own and keeps what is held (rule 22).
    ///
    /// A span later than any the ledger has counted in has used nothing, but its start does not go back, and its holds
    /// are there.
    pub fn load(&mut self, balances: &[CounterBalance]) {
        for counter in self.0.values_mut() {
            counter.used = Amount(0);
        }
        for balance in balances {
            self.move_by(&balance.key, balance.start, balance.used, Amount(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Span;

    fn key() -> CounterKey {
        "account/tokens/day".parse().unwrap()
    }

    fn line(start: i64, end: i64) -> Line {
        let (start, end) = (UnixMs(start), UnixMs(end));
        Line {
            key: key(),
            span: Span { start, end },
            amount: Amount(1),
            floor: Amount(0),
            limit: Amount(10),
        }
    }

    fn counters(start: i64, used: i64, held: i64) -> Counters {
        let mut counters = Counters::default();
        counters.move_by(&key(), UnixMs(start), Amount(used), Amount(held));
        counters
    }

    fn state(used: i64, held: i64) -> LineState {
        LineState {
            used: Amount(used),
            held: Amount(held),
        }
    }

    #[test]
    fn a_boundary_moves_the_window() {
        let counters = counters(0, 5, 0);
        let at = |ms, line| counters.moved_on(UnixMs(ms), &[line]);
        assert_eq!(at(99, line(0, 100)), None);
        assert_eq!(at(100, line(0, 100)), Some(UnixMs(100)));
        assert_eq!(at(99, line(100, 200)), Some(UnixMs(99)));
    }

    #[test]
    fn a_clock_that_steps_back_does_not_move_the_window_back() {
        let counters = counters(100, 5, 0);
        let at = |line| counters.moved_on(UnixMs(50), &[line]);
        assert_eq!(at(line(0, 100)), Some(UnixMs(100)));
        assert_eq!(at(line(100, 200)), None, "lines built for the answer pass");
    }

    #[test]
    fn an_ending_of_an_earlier_span_moves_nothing() {
        let mut counters = counters(100, 5, 2);
        counters.move_by(&key(), UnixMs(0), Amount(9), Amount(-3));
        assert_eq!(counters.seen(&key(), UnixMs(100)), state(5, 2));
        assert_eq!(counters.seen(&key(), UnixMs(0)), state(0, 0));
    }

    #[test]
    fn a_new_span_begins_with_nothing_held() {
        let mut counters = counters(0, 5, 2);
        counters.move_by(&key(), UnixMs(100), Amount(3), Amount(-2));
        assert_eq!(counters.seen(&key(), UnixMs(100)), state(3, 0));
    }

    #[test]
    fn a_load_keeps_what_is_held_in_the_span_it_is_held_in() {
        let balance = |start| CounterBalance {
            key: key(),
            start: UnixMs(start),
            used: Amount(7),
        };
        let loaded = |start| {
            let mut counters = counters(100, 5, 2);
            counters.load(&[balance(start)]);
            counters
        };
        assert_eq!(loaded(100).seen(&key(), UnixMs(100)), state(7, 2));
        assert_eq!(loaded(200).seen(&key(), UnixMs(200)), state(7, 0));
        assert_eq!(loaded(0).seen(&key(), UnixMs(100)), state(0, 2));
    }
}
