//! The double entry: whatever moves credit is one posting, and what it takes from one book it puts into another.
//!
//! A book of the wallet (a lot, the debt) stands for what the account may still use; the others say where credit came
//! from and where it went. Every posting sums to zero, and the database refuses one that does not.

use uuid::Uuid;

use crate::money::Nanos;
use crate::quota::{AccountId, Entry, LotId, Moved};

/// Where credit is, came from, or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Book {
    /// What is left of a lot.
    Lot(LotId),
    /// What is owed, as a negative amount.
    Debt,
    /// What grants have brought in, as a negative amount.
    Granted,
    /// What calls have used.
    Used,
    /// What was left of lots when their time was over: breakage.
    Expired,
    /// What was taken out of lots that should not have been made.
    Voided,
    /// What was taken out of lots whose price was paid back.
    Refunded,
    /// What an operator put right by hand.
    Adjusted,
}

impl Book {
    /// The word in the ledger; a lot is named by its id besides.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lot(_) => "lot",
            Self::Debt => "debt",
            Self::Granted => "granted",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Voided => "voided",
            Self::Refunded => "refunded",
            Self::Adjusted => "adjusted",
        }
    }

    /// Which lot, where it is one.
    pub const fn lot(self) -> Option<LotId> {
        match self {
            Self::Lot(lot) => Some(lot),
            _ => None,
        }
    }
}

/// What a posting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PostingKind {
    /// A grant was made.
    Grant,
    /// What the records of one account came to in one flush.
    Usage,
    /// A lapse was corrected.
    Correction,
    /// Credit paid debt.
    Repayment,
    /// A lot's time was over.
    Expiry,
    /// A grant was voided.
    Void,
    /// A grant was refunded.
    Refund,
    /// An operator put something right.
    Adjustment,
}

impl PostingKind {
    /// The word in the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Usage => "usage",
            Self::Correction => "correction",
            Self::Repayment => "repayment",
            Self::Expiry => "expiry",
            Self::Void => "void",
            Self::Refund => "refund",
            Self::Adjustment => "adjustment",
        }
    }
}

/// One transaction of the double entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// Follows from what it is for, so that nothing is posted twice.
    pub id: Uuid,
    /// Whose.
    pub account: AccountId,
    /// What for.
    pub kind: PostingKind,
    /// What it does to each book: no book twice, none with zero. Sums to zero.
    pub entries: Vec<(Book, Nanos)>,
}

impl Posting {
    /// Of what the outbox tells, with nothing in it yet. `entry` is the first that it is for: its number alone would not
    /// do, since two servers that parted have numbered their entries alike (rule 21).
    pub fn of_outbox(kind: PostingKind, entry: &Entry) -> Self {
        let Entry { epoch, seq, .. } = entry;
        Self::named(kind, &entry.account, &format!("{epoch} {seq}"))
    }

    /// What a grant brings in.
    pub fn of_grant(account: &AccountId, lot: LotId, amount: Nanos) -> Self {
        let mut posting = Self::named(PostingKind::Grant, account, &lot.to_string());
        posting.moves(Book::Lot(lot), amount);
        posting.moves(Book::Granted, -amount);
        posting
    }

    /// What an operator puts right: more credit, or less.
    pub fn of_adjustment(account: &AccountId, id: Uuid, credit: Nanos) -> Self {
        let mut posting = Self::named(PostingKind::Adjustment, account, &id.to_string());
        posting.moves(Book::Debt, credit);
        posting.moves(Book::Adjusted, -credit);
        posting
    }

    fn named(kind: PostingKind, account: &AccountId, name: &str) -> Self {
        let name = format!("{} {account} {name}", kind.as_str());
        Self {
            id: Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()),
            account: account.clone(),
            kind,
            entries: Vec::new(),
        }
    }

    /// What moved of the wallet, and its other side in one book.
    pub fn wallet(&mut self, moved: &Moved, other: Book) {
        for (lot, nanos) in &moved.lots {
            self.moves(Book::Lot(*lot), *nanos);
        }
        self.moves(Book::Debt, -moved.debt);
        self.moves(other, -moved.wallet());
    }

    fn moves(&mut self, book: Book, nanos: Nanos) {
        match self.entries.iter_mut().find(|(known, _)| *known == book) {
            Some((_, sum)) => *sum += nanos,
            None => self.entries.push((book, nanos)),
        }
        self.entries.retain(|(_, nanos)| *nanos != Nanos::ZERO);
    }
}
