//! Bisection: which entries of a flush the ledger refuses, found by writing halves of what it refused (rule 26).
//!
//! Each ledger writes a part in its own way; what is looked at next, and when to stop, is the same for all.

use crate::quota::{Entry, OutSeq};

/// So many are put aside in one transaction, which has a deadline: what comes after them waits for the next flush.
const ODD_AT_ONCE: usize = 8;

/// A search through entries, in their order.
pub(super) struct Bisection<'s, 'e> {
    /// The last part is the one whose turn it is.
    parts: Vec<&'s [&'e Entry]>,
    /// The last entry that was dealt with.
    upto: Option<OutSeq>,
    odd: Vec<(&'e Entry, String)>,
}

/// How far entries were taken into the ledger.
pub(super) struct TakenIn<'e> {
    /// The last one that was dealt with.
    pub upto: Option<OutSeq>,
    /// Whether that was the last one of all.
    pub is_all: bool,
    /// Those that could not be taken in, and why.
    pub odd: Vec<(&'e Entry, String)>,
}

impl<'s, 'e> Bisection<'s, 'e> {
    pub fn of(entries: &'s [&'e Entry]) -> Self {
        Self {
            parts: vec![entries],
            upto: None,
            odd: Vec::new(),
        }
    }

    /// What is to be written next; `None`: enough for one transaction. Say of each part what came of it.
    pub fn next_part(&mut self) -> Option<&'s [&'e Entry]> {
        if self.odd.len() == ODD_AT_ONCE {
            return None;
        }
        self.parts.pop().filter(|part| !part.is_empty())
    }

    /// All of a part was written, or nothing of it, for a reason.
    pub fn tell(&mut self, part: &'s [&'e Entry], written: Result<(), String>) {
        match (written, part) {
            (Err(reason), [odd]) => self.odd.push((*odd, reason)),
            (Err(_), _) => {
                let (first, second) = part.split_at(part.len() / 2);
                self.parts.extend([second, first]);
                return;
            }
            (Ok(()), _) => {}
        }
        self.upto = part.last().map(|last| last.seq);
    }

    pub fn taken_in(self) -> TakenIn<'e> {
        TakenIn {
            upto: self.upto,
            is_all: self.parts.is_empty(),
            odd: self.odd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;
    use crate::quota::{EntryKind, Epoch, Moved};

    fn entries(seqs: impl Iterator<Item = i64>) -> Vec<Entry> {
        let entry = |seq| Entry {
            seq: OutSeq(seq),
            epoch: Epoch(1),
            at: UnixMs(0),
            account: "acme".parse().unwrap(),
            kind: EntryKind::Repaid,
            moved: Moved::default(),
        };
        seqs.map(entry).collect()
    }

    /// Where the numbers that are refused are those that `is_odd` says: what was written, how far, whether all, and what
    /// was put aside.
    fn searched(
        entries: &[Entry],
        is_odd: impl Fn(i64) -> bool,
    ) -> (Vec<i64>, Option<OutSeq>, bool, Vec<i64>) {
        let entries: Vec<&Entry> = entries.iter().collect();
        let mut written = Vec::new();
        let mut bisection = Bisection::of(&entries);
        while let Some(part) = bisection.next_part() {
            let refused = part.iter().any(|entry| is_odd(entry.seq.0));
            if !refused {
                written.extend(part.iter().map(|entry| entry.seq.0));
            }
            bisection.tell(part, if refused { Err("odd".into()) } else { Ok(()) });
        }
        let TakenIn { upto, is_all, odd } = bisection.taken_in();
        let odd = odd.iter().map(|(entry, _)| entry.seq.0).collect();
        (written, upto, is_all, odd)
    }

    #[test]
    fn what_is_odd_is_found_and_all_else_is_written_in_its_order() {
        let ten = entries(1..=10);
        let found = searched(&ten, |seq| seq == 3 || seq == 10);
        let others = vec![1, 2, 4, 5, 6, 7, 8, 9];
        assert_eq!(found, (others, Some(OutSeq(10)), true, vec![3, 10]));
        let nothing = searched(&[], |_| true);
        assert_eq!(nothing, (vec![], None, true, vec![]));
    }

    #[test]
    fn it_ends_at_its_bound_and_says_how_far_it_came() {
        let many = entries(1..=20);
        let (written, upto, is_all, odd) = searched(&many, |seq| seq > 2);
        assert_eq!(written, [1, 2]);
        assert_eq!(odd, (3..=10).collect::<Vec<_>>());
        assert_eq!((upto, is_all), (Some(OutSeq(10)), false));
        let just_enough = entries(1..=8);
        let (_, upto, is_all, _) = searched(&just_enough, |_| true);
        assert_eq!((upto, is_all), (Some(OutSeq(8)), true));
    }
}
