//! The ledger against itself: its balances, records and counters, against the lines that they are sums of.
//!
//! No lock is needed: one snapshot of the ledger adds up whenever it is taken. A backend sums, and answers only what does
//! not add up, as four texts a line; what they mean is said here once for all of them.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Drift, Of};
use crate::clock::UnixMs;
use crate::ledger::LedgerError;
use crate::quota::{AccountId, LotId};

/// How much of the ledger is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What an index answers: postings, lots and debt.
    Balances,
    /// Every record besides.
    Records,
}

/// The most drifts of one check that are told of one page of accounts: a broken ledger has too many to read.
pub const MOST_DRIFTS: i64 = 1000;

/// One of the sums that must come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Every posting sums to zero.
    Postings,
    /// What records charge is what their posting says was used.
    Records,
    /// What a record charges is what it took from lots and as debt.
    Charges,
    /// A lot's balance is the sum of its entries.
    Lots,
    /// What is owed is minus the sum of the entries on debt.
    Debt,
    /// A counter says what records count.
    Counters,
    /// A lapse has one correction at the most, and nothing else has one.
    Corrections,
}

/// A line of a check: the account, what it is of, what is expected, what is found.
pub type Line = (String, String, String, String);

/// What was summed of some accounts, in one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnSums {
    /// Which accounts, in the order of their ids. None: there are no more.
    pub accounts: Vec<AccountId>,
    /// What does not add up.
    pub drifts: Vec<Drift>,
}

impl Check {
    /// Whether this check is part of an audit of this depth.
    pub fn is_of(self, depth: Depth) -> bool {
        match self {
            Self::Postings | Self::Lots | Self::Debt => true,
            Self::Records | Self::Charges | Self::Counters | Self::Corrections => {
                depth == Depth::Records
            }
        }
    }

    /// Reads a line that does not add up.
    pub fn drift(self, (account, name, expected, found): Line) -> Result<Drift, LedgerError> {
        Ok(Drift {
            account: account.parse().map_err(nonsense)?,
            of: self.of(&name)?,
            terms: None,
            expected: expected.parse().map_err(nonsense)?,
            found: found.parse().map_err(nonsense)?,
            because: Vec::new(),
        })
    }

    fn of(self, name: &str) -> Result<Of, LedgerError> {
        Ok(match self {
            Self::Postings => Of::Posting {
                posting: to_uuid(name)?,
            },
            Self::Records => Of::Records {
                posting: (!name.is_empty()).then(|| to_uuid(name)).transpose()?,
            },
            Self::Lots => Of::EntriesOfLot {
                lot: LotId(name.parse().map_err(nonsense)?),
            },
            Self::Debt => Of::EntriesOfDebt,
            Self::Counters => {
                let (start, key) = name
                    .split_once(' ')
                    .ok_or_else(|| nonsense("a counter without a name"))?;
                Of::RecordsOfCounter {
                    counter: key.parse().map_err(nonsense)?,
                    start: UnixMs(start.parse().map_err(nonsense)?),
                }
            }
            Self::Charges => Of::Charge {
                record: to_uuid(name)?,
            },
            Self::Corrections => Of::Corrections {
                record: to_uuid(name)?,
            },
        })
    }
}

/// The accounts in which something drifts, each with all of it.
pub fn by_account(drifts: Vec<Drift>) -> BTreeMap<AccountId, Vec<Drift>> {
    let mut of: BTreeMap<AccountId, Vec<Drift>> = BTreeMap::new();
    for drift in drifts {
        of.entry(drift.account.clone()).or_default().push(drift);
    }
    of
}

pub(super) fn to_uuid(text: &str) -> Result<Uuid, LedgerError> {
    Uuid::try_parse(text).map_err(nonsense)
}

pub(super) fn nonsense(error: impl std::fmt::Display) -> LedgerError {
    LedgerError::Nonsense(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, expected: &str, found: &str) -> Line {
        let text = |text: &str| text.to_owned();
        (text("acme"), text(name), text(expected), text(found))
    }

    #[test]
    fn a_line_says_what_does_not_add_up() {
        let posting = Uuid::from_u128(7);
        let hex = posting.simple().to_string();
        let read = |check: Check, name: &str| check.drift(line(name, "-5", "12")).unwrap();
        assert_eq!(read(Check::Postings, &hex).of, Of::Posting { posting });
        let records = read(Check::Records, &posting.to_string());
        let posting = Some(posting);
        assert_eq!(records.of, Of::Records { posting });
        assert_eq!((records.expected, records.found), (-5, 12));
        let posting = None;
        assert_eq!(read(Check::Records, "").of, Of::Records { posting });
        let record = Uuid::from_u128(7);
        assert_eq!(read(Check::Charges, &hex).of, Of::Charge { record });
        let lot = LotId(3);
        assert_eq!(read(Check::Lots, "3").of, Of::EntriesOfLot { lot });
        let counter = read(Check::Counters, "1000 account/tokens/month");
        let of = Of::RecordsOfCounter {
            counter: "account/tokens/month".parse().unwrap(),
            start: UnixMs(1000),
        };
        assert_eq!(counter.of, of);
    }

    #[test]
    fn a_line_that_makes_no_sense_is_no_drift() {
        assert!(Check::Lots.drift(line("three", "1", "2")).is_err());
        assert!(Check::Counters.drift(line("1000", "1", "2")).is_err());
        assert!(Check::Debt.drift(line("", "much", "2")).is_err());
    }
}
