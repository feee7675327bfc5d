//! What may account for a drift: whatever moved, holds or awaits the very amount that is missing, or is in doubt anyway.
//!
//! A clue is no proof. It names what to look at, so that nobody has to search a whole history for one number.

use std::fmt;

use serde::Serialize;
use uuid::Uuid;

use super::own::{nonsense, to_uuid};
use super::{Books, Drift, Thing};
use crate::clock::UnixMs;
use crate::ledger::LedgerError;
use crate::ledger::decide::Taken;
use crate::quota::{
    AccountView, ChangeBody, ChangeSeq, Count, CounterKey, LotId, Moved, OutSeq, ReservationId,
};

/// The most clues of one kind for one drift.
pub const MOST_CLUES: usize = 8;
/// How many of an account's latest records are looked through.
pub const RECENT_RECORDS: i64 = 500;
/// How many of an account's latest changes are looked through.
pub const RECENT_CHANGES: i64 = 100;

/// Something that may account for a drift, and its amount on the very thing that drifts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Clue {
    /// What.
    #[serde(flatten)]
    pub suspect: Suspect,
    /// How much of it is there.
    pub amount: i128,
}

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "clue", rename_all = "snake_case")]
pub enum Suspect {
    /// An entry of the outbox.
    Entry {
        /// Its number.
        seq: OutSeq,
    },
    /// An open hold.
    Hold {
        /// Its reservation.
        id: ReservationId,
    },
    /// A numbered change.
    Change {
        /// Its number.
        seq: ChangeSeq,
    },
    /// An entry in quarantine.
    Quarantined {
        /// Its number.
        seq: OutSeq,
    },
    /// A usage record.
    Record {
        /// Its id.
        id: Uuid,
    },
    /// A posting.
    Posting {
        /// Its id.
        id: Uuid,
    },
    /// One entry of the posting that drifts.
    Book {
        /// Which book; a lot is named by its id besides.
        book: String,
    },
    /// A withdrawal that the ledger has asked for and the store has not told of.
    Withdrawal {
        /// Its id.
        id: Uuid,
    },
}

impl fmt::Display for Clue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.suspect {
            Suspect::Entry { seq } => write!(f, "outbox entry {seq}"),
            Suspect::Hold { id } => write!(f, "hold {id}"),
            Suspect::Change { seq } => write!(f, "change {seq}"),
            Suspect::Quarantined { seq } => write!(f, "entry {seq} in quarantine"),
            Suspect::Record { id } => write!(f, "record {id}"),
            Suspect::Posting { id } => write!(f, "posting {id}"),
            Suspect::Book { book } => write!(f, "its entry on {book}"),
            Suspect::Withdrawal { id } => write!(f, "pending withdrawal {id}"),
        }?;
        write!(f, " ({})", self.amount)
    }
}

/// What store and ledger say, as they were read: the clues for a drift between them.
pub fn in_readings(drift: &Drift, books: &Books, view: &AccountView) -> Vec<Clue> {
    let thing = drift.of.thing();
    let fits = |amount: &i128| *amount != 0 && amount.abs() == drift.difference().abs();
    let mut clues = Vec::new();
    let mut take = |suspects: &mut dyn Iterator<Item = Clue>| {
        clues.extend(suspects.take(MOST_CLUES));
    };
    take(&mut view.holds.iter().filter_map(|hold| {
        let on_lots = hold.slices.iter().map(|(_, nanos)| i128::from(nanos.0));
        let amount = match &thing {
            Thing::Lot(lot) => of_lot(&hold.slices, *lot),
            Thing::Debt => i128::from(hold.reserved.0) - on_lots.sum::<i128>(),
            Thing::Counter(key, start) => of_counter(&hold.counts, key, *start),
            _ => 0,
        };
        fits(&amount).then_some(Clue {
            suspect: Suspect::Hold { id: hold.id },
            amount,
        })
    }));
    if drift.of.is_held() {
        return clues;
    }
    take(&mut view.unflushed.iter().filter_map(|entry| {
        let amount = moved(&entry.moved, &thing);
        fits(&amount).then_some(Clue {
            suspect: Suspect::Entry { seq: entry.seq },
            amount,
        })
    }));
    let applied = view.applied_seq.max(view.as_of);
    take(&mut books.changes.iter().filter_map(|(seq, change)| {
        let amount = moved(change, &thing);
        let in_doubt = *seq > applied && amount != 0;
        (in_doubt || fits(&amount)).then_some(Clue {
            suspect: Suspect::Change { seq: *seq },
            amount,
        })
    }));
    clues
}

/// What a backend found of an account, of whatever may account for a drift, each line a name and a text.
#[derive(Debug, Default)]
pub struct Traces {
    /// Postings, with what each moved of the very thing.
    pub postings: Vec<(String, String)>,
    /// The latest records, with their allocations.
    pub records: Vec<(String, String)>,
    /// The latest changes, with their bodies.
    pub changes: Vec<(String, String)>,
    /// What is in quarantine, with what the store moved for it.
    pub quarantined: Vec<(String, String)>,
    /// Pending withdrawals from the very lot, with how much they ask for.
    pub withdrawals: Vec<(String, String)>,
}

impl Traces {
    /// The clues among them.
    pub fn clues(&self, drift: &Drift) -> Result<Vec<Clue>, LedgerError> {
        let thing = drift.of.thing();
        let fits = |amount: i128| amount != 0 && amount.abs() == drift.difference().abs();
        let mut clues = postings_of(&self.postings)?;
        let mut of_records = 0;
        for (id, allocation) in &self.records {
            let taken: Taken = serde_json::from_str(allocation).map_err(nonsense)?;
            let amount = moved(&taken.movement(), &thing);
            if fits(amount) && of_records < MOST_CLUES {
                of_records += 1;
                let suspect = Suspect::Record { id: to_uuid(id)? };
                clues.push(Clue { suspect, amount });
            }
        }
        for (seq, body) in &self.changes {
            let body: ChangeBody = serde_json::from_str(body).map_err(nonsense)?;
            let amount = moved(&body.moved, &thing);
            if fits(amount) {
                let seq = ChangeSeq(seq.parse().map_err(nonsense)?);
                let suspect = Suspect::Change { seq };
                clues.push(Clue { suspect, amount });
            }
        }
        for (seq, body) in &self.quarantined {
            let body: Moved = serde_json::from_str(body).map_err(nonsense)?;
            let amount = moved(&body, &thing);
            if amount != 0 {
                let seq = OutSeq(seq.parse().map_err(nonsense)?);
                let suspect = Suspect::Quarantined { seq };
                clues.push(Clue { suspect, amount });
            }
        }
        for (id, amount) in &self.withdrawals {
            let suspect = Suspect::Withdrawal { id: to_uuid(id)? };
            clues.push(clue(suspect, amount)?);
        }
        Ok(clues)
    }
}

/// The entries of a posting, as a backend reads them: the book, and how much.
pub fn books_of(lines: Vec<(String, String)>) -> Result<Vec<Clue>, LedgerError> {
    let books = lines.into_iter();
    books
        .map(|(book, amount)| clue(Suspect::Book { book }, &amount))
        .collect()
}

/// Postings, as a backend reads them: the id, and what each moved of the very thing.
pub fn postings_of(lines: &[(String, String)]) -> Result<Vec<Clue>, LedgerError> {
    lines
        .iter()
        .map(|(id, amount)| clue(Suspect::Posting { id: to_uuid(id)? }, amount))
        .collect()
}

/// Records, as a backend reads them: the id, and what it charges.
pub fn records_of(lines: &[(String, String)]) -> Result<Vec<Clue>, LedgerError> {
    lines
        .iter()
        .map(|(id, charged)| clue(Suspect::Record { id: to_uuid(id)? }, charged))
        .collect()
}

fn clue(suspect: Suspect, amount: &str) -> Result<Clue, LedgerError> {
    let amount = amount.parse().map_err(nonsense)?;
    Ok(Clue { suspect, amount })
}

/// What a movement moves of it.
fn moved(moved: &Moved, thing: &Thing) -> i128 {
    match thing {
        Thing::Lot(lot) => of_lot(&moved.lots, *lot),
        Thing::Debt => i128::from(moved.debt.0),
        Thing::Counter(key, start) => of_counter(&moved.counters, key, *start),
        Thing::Posting(_) | Thing::Records(_) | Thing::Charge(_) | Thing::Corrections(_) => 0,
    }
}

pub(super) fn of_lot(lots: &[(LotId, crate::money::Nanos)], lot: LotId) -> i128 {
    let parts = lots.iter().filter(|(id, _)| *id == lot);
    parts.map(|(_, nanos)| i128::from(nanos.0)).sum()
}

pub(super) fn of_counter<'a>(
    counts: impl IntoIterator<Item = &'a Count>,
    key: &CounterKey,
    start: UnixMs,
) -> i128 {
    let counts = counts.into_iter();
    let of_it = counts.filter(|count| count.key == *key && count.start == start);
    of_it.map(|count| i128::from(count.amount.0)).sum()
}
