//! Whether what entries say can be reckoned with at all.
//!
//! Amounts are checked at the edge, and sums over them never overflow. An entry may come from a broken process all the
//! same: what would overflow is told apart before anything is added up (rule 26).

use crate::money::{Amount, MAX_BALANCE, Nanos};
use crate::quota::{Count, Entry, EntryKind};

/// Whether all amounts of these entries together stay within what one balance may be, so that no sum over any of them
/// can overflow.
pub(super) fn can_be_summed(entries: &[&Entry]) -> bool {
    let total: u128 = entries.iter().map(|entry| size(entry)).sum();
    total <= u128::from(MAX_BALANCE.unsigned_abs())
}

fn size(entry: &Entry) -> u128 {
    let lots = entry.moved.lots.iter().map(|(_, nanos)| *nanos);
    let mut nanos: Vec<Nanos> = lots.chain([entry.moved.debt]).collect();
    let mut counts: Vec<&Count> = entry.moved.counters.iter().collect();
    match &entry.kind {
        EntryKind::Ended(ended) => {
            nanos.extend([ended.reserved, ended.charge]);
            counts.extend(&ended.counts);
        }
        EntryKind::Withdrawn(withdrawal) => nanos.push(withdrawal.amount),
        EntryKind::Repaid | EntryKind::Expired => {}
    }
    let nanos = nanos.iter().map(|Nanos(nanos)| *nanos);
    let counts = counts.iter().map(|Count { amount, .. }| {
        let Amount(amount) = *amount;
        amount
    });
    nanos
        .chain(counts)
        .map(|of| u128::from(of.unsigned_abs()))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;
    use crate::quota::{Epoch, LotId, Moved, OutSeq};

    fn repaid(nanos: i64) -> Entry {
        Entry {
            seq: OutSeq(1),
            epoch: Epoch(1),
            at: UnixMs(0),
            account: "acme".parse().unwrap(),
            kind: EntryKind::Repaid,
            moved: Moved {
                lots: vec![(LotId(1), Nanos(nanos))],
                ..Moved::default()
            },
        }
    }

    #[test]
    fn what_could_overflow_is_told_apart() {
        assert!(can_be_summed(&[]));
        assert!(can_be_summed(&[&repaid(-MAX_BALANCE)]));
        assert!(!can_be_summed(&[&repaid(-MAX_BALANCE), &repaid(1)]));
        assert!(!can_be_summed(&[&repaid(i64::MIN)]));
    }
}
