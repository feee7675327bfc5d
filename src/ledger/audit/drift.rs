//! A drift: two numbers that ought to be the same, what they are of, and what may account for the difference.
//!
//! It is said the same way wherever it is found: as JSON for machines, as one sentence for people and the log.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use super::Clue;
use crate::clock::{UnixMs, rfc3339};
use crate::quota::{AccountId, CounterKey, LotId};

/// What does not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Of {
    /// What is left of a lot, in the store.
    Lot {
        /// Which.
        lot: LotId,
    },
    /// What is owed, in the store.
    Debt,
    /// What is used of a quota, in the store.
    Counter {
        /// Which.
        counter: CounterKey,
        /// The start of its span.
        #[serde(serialize_with = "rfc3339")]
        start: UnixMs,
    },
    /// What a lot says is held of it, against its open holds.
    HeldOfLot {
        /// Which.
        lot: LotId,
    },
    /// The overage that is held, against the open holds.
    HeldOfDebt,
    /// What a counter says is held of it, against its open holds.
    HeldOfCounter {
        /// Which.
        counter: CounterKey,
        /// The start of its span.
        #[serde(serialize_with = "rfc3339")]
        start: UnixMs,
    },
    /// What the entries of a posting come to, against zero.
    Posting {
        /// Which.
        posting: Uuid,
    },
    /// What the records of a posting charge, against what it says was used (invariant 6).
    Records {
        /// Which; `None`: records without a posting, and none there for them.
        posting: Option<Uuid>,
    },
    /// What a record charges, against what it says it took from lots and as debt.
    Charge {
        /// Which.
        record: Uuid,
    },
    /// What the ledger says is left of a lot, against the sum of its entries.
    EntriesOfLot {
        /// Which.
        lot: LotId,
    },
    /// What the ledger says is owed, against the sum of its entries.
    EntriesOfDebt,
    /// What the ledger says is used of a quota, against what its records count.
    RecordsOfCounter {
        /// Which.
        counter: CounterKey,
        /// The start of its span.
        #[serde(serialize_with = "rfc3339")]
        start: UnixMs,
    },
    /// How many corrections there are of a lapse, against one at the most, or none where there is no such lapse.
    Corrections {
        /// The record that they correct.
        record: Uuid,
    },
}

/// Whatever an amount can be on: where to look for what accounts for a drift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// A lot.
    Lot(LotId),
    /// What is owed.
    Debt,
    /// A span of a counter.
    Counter(CounterKey, UnixMs),
    /// The entries of a posting.
    Posting(Uuid),
    /// The records of a posting, or those without one.
    Records(Option<Uuid>),
    /// What a record charges.
    Charge(Uuid),
    /// The corrections of a record.
    Corrections(Uuid),
}

impl Of {
    /// What it is on.
    pub fn thing(&self) -> Thing {
        match self {
            Self::Lot { lot } | Self::HeldOfLot { lot } | Self::EntriesOfLot { lot } => {
                Thing::Lot(*lot)
            }
            Self::Debt | Self::HeldOfDebt | Self::EntriesOfDebt => Thing::Debt,
            Self::Counter { counter, start }
            | Self::HeldOfCounter { counter, start }
            | Self::RecordsOfCounter { counter, start } => Thing::Counter(counter.clone(), *start),
            Self::Posting { posting } => Thing::Posting(*posting),
            Self::Records { posting } => Thing::Records(*posting),
            Self::Charge { record } => Thing::Charge(*record),
            Self::Corrections { record } => Thing::Corrections(*record),
        }
    }

    /// Whether it is about holds, which the ledger knows nothing of.
    pub fn is_held(&self) -> bool {
        matches!(
            self,
            Self::HeldOfLot { .. } | Self::HeldOfDebt | Self::HeldOfCounter { .. }
        )
    }
}

impl Thing {
    /// The book of the double entry, and its lot, 0 where it has none; `None` where no book has it.
    pub fn book(&self) -> Option<(&'static str, i64)> {
        match self {
            Self::Lot(lot) => Some(("lot", lot.0)),
            Self::Debt => Some(("debt", 0)),
            _ => None,
        }
    }
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lot { lot } => write!(f, "lot {lot}"),
            Self::Debt => f.write_str("debt"),
            Self::Counter { counter, start } => {
                write!(f, "counter {counter} of {}", start.to_utc())
            }
            Self::HeldOfLot { lot } => write!(f, "held of lot {lot}"),
            Self::HeldOfDebt => f.write_str("held of debt"),
            Self::HeldOfCounter { counter, start } => {
                write!(f, "held of counter {counter} of {}", start.to_utc())
            }
            Self::Posting { posting } => write!(f, "sum of posting {posting}"),
            Self::Records {
                posting: Some(posting),
            } => write!(f, "charges of the records of posting {posting}"),
            Self::Records { posting: None } => f.write_str("charges of records without a posting"),
            Self::Charge { record } => write!(f, "charge of record {record}"),
            Self::EntriesOfLot { lot } => write!(f, "ledger's balance of lot {lot}"),
            Self::EntriesOfDebt => f.write_str("ledger's balance of debt"),
            Self::RecordsOfCounter { counter, start } => {
                write!(f, "ledger's counter {counter} of {}", start.to_utc())
            }
            Self::Corrections { record } => write!(f, "corrections of record {record}"),
        }
    }
}

/// What goes into the sum of what the store ought to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Terms {
    /// What the ledger says.
    pub ledger: i128,
    /// Of that, what the store has yet to be told.
    pub unapplied: i128,
    /// What the outbox has yet to tell the ledger.
    pub unflushed: i128,
    /// What the store moved for entries that the ledger could not take in.
    pub quarantined: i128,
    /// What open holds have set aside.
    pub held: i128,
}

impl Terms {
    /// The formula.
    pub fn expected(&self) -> i128 {
        self.ledger - self.unapplied + self.unflushed + self.quarantined - self.held
    }
}

/// One thing that does not add up, with all that went into the sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Whose.
    pub account: AccountId,
    /// What.
    #[serde(flatten)]
    pub of: Of,
    /// How what the store ought to say comes about; `None` within the ledger.
    #[serde(flatten)]
    pub terms: Option<Terms>,
    /// What it ought to be.
    pub expected: i128,
    /// What it is.
    pub found: i128,
    /// What may account for the difference.
    pub because: Vec<Clue>,
}

impl Drift {
    /// How much more there is than there ought to be.
    pub fn difference(&self) -> i128 {
        self.found - self.expected
    }

    /// Takes up more that may account for it, nothing twice.
    pub fn blame(&mut self, clues: impl IntoIterator<Item = Clue>) {
        for clue in clues {
            if !self.because.contains(&clue) {
                self.because.push(clue);
            }
        }
    }

    /// What may account for it, in words.
    pub fn because(&self) -> String {
        if self.because.is_empty() {
            return "nothing is known that accounts for it".to_owned();
        }
        let clues: Vec<String> = self.because.iter().map(Clue::to_string).collect();
        format!("look at {}", clues.join(", "))
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (account, of) = (&self.account, &self.of);
        let (expected, found) = (self.expected, self.found);
        write!(
            f,
            "account {account}, {of}: expected {expected}, found {found}"
        )?;
        if let Some(terms) = &self.terms {
            let Terms {
                ledger,
                unapplied,
                unflushed,
                quarantined,
                held,
            } = terms;
            write!(
                f,
                " (ledger {ledger}, unapplied {unapplied}, unflushed {unflushed}, quarantined {quarantined}, held {held})"
            )?;
        }
        write!(f, "; {}", self.because())
    }
}
