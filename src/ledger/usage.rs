//! Usage as it is asked for: an account's records in the order of their time, or summed into groups, a page at a time.
//!
//! A backend answers each line as JSON, so that what a line says is written down once, here, for all of them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::decide::{Taken, correction_id};
use super::{AnyLedger, LedgerError};
use crate::clock::{UnixMs, rfc3339};
use crate::money::Nanos;
use crate::price::PriceEntry;
use crate::quota::{AccountId, LotId, ReservationId};

/// Lines of one page: so much is in memory at once.
pub const PAGE: usize = 500;

/// Whose usage, and when: from a moment on, up to another and without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageOf {
    /// Whose.
    pub account: AccountId,
    /// The first moment.
    pub from: UnixMs,
    /// The first moment after.
    pub to: UnixMs,
}

/// What usage is grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The day, in UTC.
    Day,
    /// The model that answered.
    Model,
    /// The route.
    Route,
    /// The project, as callers say.
    Project,
    /// The key that called.
    Key,
    /// The user, as callers say.
    User,
}

impl By {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Day,
        Self::Model,
        Self::Route,
        Self::Project,
        Self::Key,
        Self::User,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Model => "model",
            Self::Route => "route",
            Self::Project => "project",
            Self::Key => "key",
            Self::User => "user",
        }
    }
}

/// One usage record.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecordLine {
    /// Its id.
    pub id: Uuid,
    /// When it ended.
    #[serde(serialize_with = "rfc3339")]
    pub occurred_at: UnixMs,
    /// How.
    pub outcome: String,
    /// Whether more was used than reserved.
    pub overrun: bool,
    /// The route's prefix.
    pub route: String,
    /// Whose prices.
    pub provider: String,
    /// The model.
    pub model: String,
    /// All input.
    pub input_tokens: i64,
    /// All output.
    pub output_tokens: i64,
    /// Part of the input.
    pub cache_read_tokens: i64,
    /// Part of the input.
    pub cache_write_tokens: i64,
    /// What was held.
    pub reserved_nanos: Nanos,
    /// What was charged.
    pub charged_nanos: Nanos,
    /// Before markup.
    pub cost_nanos: Nanos,
    /// Which price it was charged by.
    pub price_id: Option<i64>,
    /// Which key called.
    pub api_key_id: Option<Uuid>,
    /// Which user.
    pub user_ref: Option<String>,
    /// Which project.
    pub project_ref: Option<String>,
    /// Tags.
    pub tags: Box<RawValue>,
    /// All that the provider reported.
    pub usage: Option<Box<RawValue>>,
    /// What else there is to say.
    pub properties: Box<RawValue>,
    /// Which record it corrects.
    pub corrects: Option<Uuid>,
}

/// One record of a reservation, with all that the ledger did for it.
#[derive(Debug, Serialize, Deserialize)]
pub struct HistoryLine {
    /// Whose.
    pub account: AccountId,
    /// The record itself, or its correction.
    pub record: RecordLine,
    /// What it took from which lot, as debt, and of which counter.
    pub taken: Taken,
    /// The price it was charged by; `None` where it had none.
    pub price: Option<PriceEntry>,
    /// What was posted for it; `None` where it moved no credit, or is from before there were postings.
    pub posting: Option<PostingLine>,
}

/// A posting: all records of its account that came in one flush, or a correction alone.
#[derive(Debug, Serialize, Deserialize)]
pub struct PostingLine {
    /// Its id.
    pub id: Uuid,
    /// What for.
    pub kind: String,
    /// When it was posted.
    #[serde(serialize_with = "rfc3339")]
    pub occurred_at: UnixMs,
    /// What each book gained; sums to zero.
    pub entries: Vec<EntryLine>,
}

/// One entry of a posting.
#[derive(Debug, Serialize, Deserialize)]
pub struct EntryLine {
    /// Which book.
    pub book: String,
    /// Which lot, where the book is one.
    pub lot: Option<LotId>,
    /// What it gained.
    pub amount_nanos: Nanos,
}

/// What several records come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLine {
    /// What they have in common; empty where they say nothing of it.
    pub group: String,
    /// How many there are, corrections included.
    pub records: i64,
    /// All input.
    pub input_tokens: i128,
    /// All output.
    pub output_tokens: i128,
    /// Part of the input.
    pub cache_read_tokens: i128,
    /// Part of the input.
    pub cache_write_tokens: i128,
    /// What was charged.
    pub charged_nanos: i128,
    /// Before markup.
    pub cost_nanos: i128,
}

impl AnyLedger {
    /// The next records after one, by time; none: there are no more.
    pub async fn records(
        &self,
        of: &UsageOf,
        after: Option<&RecordLine>,
    ) -> Result<Vec<RecordLine>, LedgerError> {
        let after = after.map_or((of.from, Uuid::nil()), |line| (line.occurred_at, line.id));
        let lines = match self {
            Self::Memory(_) => return Err(in_memory()),
            Self::Postgres(ledger) => ledger.records(of, after).await?,
            Self::Sqlite(ledger) => ledger.records(of, after).await?,
        };
        read(&lines)
    }

    /// What the ledger recorded of a reservation, its correction last; none: it has not ended there.
    pub async fn history(&self, id: ReservationId) -> Result<Vec<HistoryLine>, LedgerError> {
        let records = [id.0, correction_id(id)];
        let lines = match self {
            Self::Memory(_) => return Err(in_memory()),
            Self::Postgres(ledger) => ledger.history(records).await?,
            Self::Sqlite(ledger) => ledger.history(records).await?,
        };
        read(&lines)
    }

    /// The next groups after one, in the order of what they have in common; none: there are no more.
    pub async fn groups(
        &self,
        of: &UsageOf,
        by: By,
        after: Option<&GroupLine>,
    ) -> Result<Vec<GroupLine>, LedgerError> {
        let after = after.map(|line| line.group.as_str());
        let lines = match self {
            Self::Memory(_) => return Err(in_memory()),
            Self::Postgres(ledger) => ledger.groups(of, by, after).await?,
            Self::Sqlite(ledger) => ledger.groups(of, by, after).await?,
        };
        read(&lines)
    }
}

fn read<'a, T: Deserialize<'a>>(lines: &'a [String]) -> Result<Vec<T>, LedgerError> {
    let lines = lines.iter().map(|line| serde_json::from_str(line));
    let lines: Result<_, _> = lines.collect();
    lines.map_err(|error| LedgerError::Nonsense(format!("a line of usage: {error}")))
}

fn in_memory() -> LedgerError {
    LedgerError::Invalid("a ledger in memory is not asked for usage".into())
}
