//! What one flush writes, each kind of row in as few statements as there is room for ([`super::rows`]).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::account::lots_of;
use super::change::{LockedShard, account_id};
use super::rows::{Bound, Rows};
use crate::clock::Clock;
use crate::ledger::LedgerError;
use crate::ledger::batch::{Batch, UsageRecord, orders_of};
use crate::ledger::posting::Posting;
use crate::ledger::sql::text;
use crate::ledger::unwritten::{Unwritten, expect_all};
use crate::money::Nanos;
use crate::quota::{AccountId, ChangeBody, LotId};

/// Where the room for rows is not used up.
const OF_ROWS: &str = ") WHERE column1 IS NOT NULL";
static RECORD: Rows = Rows::new(
    "INSERT INTO usage_record (id, account_id, occurred_at, route, provider, model, outcome, overrun, input_tokens, \
        output_tokens, cache_read_tokens, cache_write_tokens, reserved_nanos, charged_nanos, cost_nanos, price_id, \
        api_key_id, user_ref, project_ref, tags, usage, properties, corrects, allocation, posting_id) \
    SELECT * FROM (VALUES ",
    25,
    OF_ROWS,
);
static POST: Rows = Rows::new(
    "INSERT INTO posting (id, account_id, kind) SELECT * FROM (VALUES ",
    3,
    OF_ROWS,
);
static ENTER: Rows = Rows::new(
    "INSERT INTO ledger_entry (posting_id, account_id, book, lot_id, amount_nanos) SELECT * FROM (VALUES ",
    5,
    OF_ROWS,
);
static CLOSE_POSTINGS: Rows =
    Rows::new("UPDATE posting SET closed = 1 WHERE id IN (VALUES ", 1, ")");
static MOVE_LOTS: Rows = Rows::new(
    "UPDATE credit_grant SET balance_nanos = balance_nanos + move.column3 FROM (VALUES ",
    3,
    ") AS move WHERE id = move.column1 AND account_id = move.column2 RETURNING id, account_id, balance_nanos",
);
static MOVE_DEBTS: Rows = Rows::new(
    "UPDATE account SET debt_nanos = debt_nanos + move.column2 FROM (VALUES ",
    2,
    ") AS move WHERE id = move.column1",
);
static MOVE_COUNTERS: Rows = Rows::new(
    "INSERT INTO usage_counter (account_id, scope, resource, \"window\", window_start, used) SELECT * FROM (VALUES ",
    6,
    ") WHERE column1 IS NOT NULL \
    ON CONFLICT (account_id, scope, resource, \"window\", window_start) DO UPDATE SET used = used + excluded.used",
);
const WITHDRAWN: &str = "\
    UPDATE withdrawal SET taken_nanos = done.taken, done_at = ?2 \
    FROM (SELECT unhex(value ->> 0) AS withdrawal, value ->> 1 AS taken FROM json_each(?1)) AS done \
    WHERE id = done.withdrawal AND taken_nanos IS NULL";

/// Writes a batch, and numbers what the store must learn of it.
pub(super) async fn write(
    tx: &mut SqliteConnection,
    locked: &mut LockedShard,
    batch: Batch,
) -> Result<(), Unwritten> {
    post(tx, &batch.postings).await?;
    let mut texts = Texts::default();
    RECORD
        .execute(tx, &batch.records, |row, of| record(row, of, &mut texts))
        .await?;
    let risen = move_lots(tx, &batch).await?;
    move_debts(tx, &batch).await?;
    move_counters(tx, &batch).await?;
    withdraw(tx, &batch).await?;
    let mut changes = batch.rests;
    changes.extend(new_orders(tx, &risen).await?);
    locked.append(tx, &changes).await?;
    Ok(())
}

/// Opens the postings, enters what they move, and closes them, which the schema refuses where a sum is not zero.
pub(in crate::ledger) async fn post(
    tx: &mut SqliteConnection,
    postings: &[Posting],
) -> Result<(), Unwritten> {
    let entries = postings.iter().flat_map(|posting| {
        let entries = posting.entries.iter();
        entries.map(move |(book, nanos)| (posting, *book, *nanos))
    });
    let entries: Vec<_> = entries.collect();
    POST.execute(tx, postings, |row, posting| {
        let row = row.bind(posting.id).bind(posting.account.as_str());
        row.bind(posting.kind.as_str())
    })
    .await?;
    ENTER
        .execute(tx, &entries, |row, (posting, book, nanos)| {
            let row = row.bind(posting.id).bind(posting.account.as_str());
            let row = row.bind(book.as_str()).bind(book.lot().map(|lot| lot.0));
            row.bind(nanos.0)
        })
        .await?;
    CLOSE_POSTINGS
        .execute(tx, postings, |row, posting| row.bind(posting.id))
        .await?;
    Ok(())
}

/// Texts that nearly every record of a flush has, such as a route or a model, each made once: a text that is bound is
/// otherwise made for the thread of the file and given back by it, which costs more than to look it up.
#[derive(Default)]
struct Texts<'a>(HashMap<&'a str, Arc<str>>);

impl<'a> Texts<'a> {
    fn of(&mut self, text: &'a str) -> Arc<str> {
        self.0.entry(text).or_insert_with(|| text.into()).clone()
    }

    /// Few calls have tags or properties.
    fn object(&mut self, members: &impl Serialize, is_empty: bool) -> Arc<str> {
        if is_empty {
            self.of("{}")
        } else {
            text(members).into()
        }
    }
}

fn record<'a>(row: Bound, record: &'a UsageRecord, texts: &mut Texts<'a>) -> Bound {
    let UsageRecord {
        numbers, detail, ..
    } = record;
    row.bind(record.id)
        .bind(texts.of(record.account.as_str()))
        .bind(record.occurred_at.0)
        .bind(texts.of(&detail.route))
        .bind(texts.of(&detail.provider))
        .bind(texts.of(&detail.model))
        .bind(texts.of(record.outcome))
        .bind(record.overrun)
        .bind(numbers.input_tokens)
        .bind(numbers.output_tokens)
        .bind(numbers.cache_read_tokens)
        .bind(numbers.cache_write_tokens)
        .bind(record.reserved.0)
        .bind(record.charged.0)
        .bind(numbers.cost.0)
        .bind(detail.price_id)
        .bind(detail.api_key_id)
        .bind(detail.user_ref.as_deref())
        .bind(detail.project_ref.as_deref())
        .bind(texts.object(&detail.tags, detail.tags.is_empty()))
        .bind(detail.usage.as_ref().map(|usage| usage.get()))
        .bind(texts.object(&detail.properties, detail.properties.is_empty()))
        .bind(record.corrects)
        .bind(text(&record.taken))
        .bind(record.posting)
}

/// Moves the lots, and says whose came back from nothing.
async fn move_lots(
    tx: &mut SqliteConnection,
    batch: &Batch,
) -> Result<BTreeSet<AccountId>, Unwritten> {
    let moves: Vec<_> = batch.lots.iter().collect();
    let rows = MOVE_LOTS
        .fetch(tx, &moves, |row, ((account, lot), nanos)| {
            row.bind(lot.0).bind(account.as_str()).bind(nanos.0)
        })
        .await?;
    expect_all("lot", batch.lots.len(), rows.len())?;
    let mut risen = BTreeSet::new();
    for row in &rows {
        let lot = (account_id(row)?, LotId(row.try_get("id")?));
        let left = Nanos(row.try_get("balance_nanos")?);
        let by = batch.lots.get(&lot).copied().unwrap_or_default();
        if left > Nanos::ZERO && left - by <= Nanos::ZERO {
            risen.insert(lot.0);
        }
    }
    Ok(risen)
}

async fn move_debts(tx: &mut SqliteConnection, batch: &Batch) -> Result<(), Unwritten> {
    let moves: Vec<_> = batch.debts.iter().collect();
    let found = MOVE_DEBTS
        .execute(tx, &moves, |row, (account, nanos)| {
            row.bind(account.as_str()).bind(nanos.0)
        })
        .await?;
    expect_all("account", batch.debts.len(), found)
}

async fn move_counters(tx: &mut SqliteConnection, batch: &Batch) -> Result<(), Unwritten> {
    let moves: Vec<_> = batch.counters.iter().collect();
    MOVE_COUNTERS
        .execute(tx, &moves, |row, ((account, key, start), amount)| {
            let row = row.bind(account.as_str()).bind(key.scope.name());
            let row = row.bind(key.resource.name());
            let row = row.bind(key.window.name()).bind(start.0);
            row.bind(amount.0)
        })
        .await?;
    Ok(())
}

/// The withdrawals that are done.
async fn withdraw(tx: &mut SqliteConnection, batch: &Batch) -> Result<(), Unwritten> {
    if batch.withdrawn.is_empty() {
        return Ok(());
    }
    let done = batch.withdrawn.iter();
    let done: Value = done.map(|(id, taken)| json!([hex(*id), taken.0])).collect();
    let done = sqlx::query(WITHDRAWN)
        .bind(done.to_string())
        .bind(Clock::System.now().0)
        .execute(tx)
        .await?;
    let found = usize::try_from(done.rows_affected()).unwrap_or(usize::MAX);
    expect_all("withdrawal", batch.withdrawn.len(), found)
}

/// Lists of lots for accounts that got credit back on a lot that had nothing left: the store may not have it in its
/// order any more.
async fn new_orders(
    tx: &mut SqliteConnection,
    risen: &BTreeSet<AccountId>,
) -> Result<Vec<(AccountId, ChangeBody)>, LedgerError> {
    if risen.is_empty() {
        return Ok(Vec::new());
    }
    let accounts: Vec<AccountId> = risen.iter().cloned().collect();
    Ok(orders_of(lots_of(tx, &accounts, &BTreeSet::new()).await?))
}

/// An id within JSON, which has no bytes.
pub(super) fn hex(id: Uuid) -> String {
    id.simple().to_string()
}
