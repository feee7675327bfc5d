//! What a journal of bounded calls says to whoever opens it next: which calls are still to settle, and which of its lines
//! say nothing that can be settled.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::journal::Line;
use super::{MAX_DETAIL_BYTES, Outcome, ReservationId, Settle};
use crate::money::MAX_AMOUNT;

/// What was left in a journal.
#[derive(Debug, Default)]
pub(super) struct Left<'a> {
    /// How each call ends that is written down and not done, as far as it is known.
    pub open: Vec<Settle>,
    /// Lines that this release cannot read, or that no sidecar writes, by their number; as far as they are not put aside.
    pub aside: BTreeMap<u64, &'a [u8]>,
    /// How much of it is to be kept: all but what broke off at its end.
    pub bytes: usize,
}

impl<'a> Left<'a> {
    /// Reads it. Only a line without an end may have broken off; such a line was never acted upon.
    // holds: 3, never lost; 5, never silent
    pub fn read(written: &'a [u8]) -> Self {
        let mut open: BTreeMap<ReservationId, Settle> = BTreeMap::new();
        let mut ended: BTreeMap<ReservationId, Settle> = BTreeMap::new();
        let (mut done, mut put_aside) = (HashSet::new(), BTreeSet::new());
        let mut left = Self {
            bytes: written.len(),
            ..Self::default()
        };
        let lines = (1..).zip(written.split_inclusive(|byte| *byte == b'\n'));
        for (number, line) in lines.filter(|(_, line)| *line != b"\n") {
            match serde_json::from_slice(line) {
                Ok(Line::Done(id)) => drop(done.insert(id)),
                Ok(Line::Aside(numbers)) => put_aside.extend(numbers),
                // Looked at before it takes the place of another.
                Ok(Line::Open(settle)) if is_possible(&settle) => {
                    open.insert(settle.id, settle);
                }
                Ok(Line::Ended(settle)) if is_possible(&settle) => {
                    ended.insert(settle.id, settle);
                }
                Err(_) if !line.ends_with(b"\n") => {
                    tracing::warn!("the last line of the journal of bounded calls broke off");
                    left.bytes -= line.len();
                }
                Ok(Line::Open(_) | Line::Ended(_)) | Err(_) => {
                    left.aside.insert(number, line);
                }
            }
        }
        left.aside.retain(|number, _| !put_aside.contains(number));
        open.extend(ended);
        open.retain(|id, _| !done.contains(id));
        left.open = open.into_values().collect();
        left
    }
}

/// Whether a sidecar may have written it: the store takes its amounts as they are.
fn is_possible(settle: &Settle) -> bool {
    let amounts = settle.counts.iter().map(|count| count.amount.0);
    let bounded = amounts
        .chain([settle.charge.0])
        .all(|amount| (0..=MAX_AMOUNT).contains(&amount));
    let by_caller = settle.outcome != Outcome::Lapsed;
    bounded && by_caller && settle.detail.len() <= MAX_DETAIL_BYTES
}
