//! Prices: a source's whole list put in place of its last one.
//!
//! A price that was charged by is named in usage records for ever, so one that is gone is retired, and one that is
//! still there keeps its id.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use serde_json::json;
use sqlx::types::Json;

use super::Admin;
use crate::ledger::LedgerError;
use crate::ledger::tx::{Dialects, Tx, on};
use crate::price::{PriceEntry, PriceSource};

/// Orders all that change the catalogue, and answers its markup.
const LOCK_CATALOG: Dialects = Dialects {
    postgres: "SELECT markup_percent::text FROM catalog FOR UPDATE",
    sqlite: "SELECT markup_percent FROM catalog",
};
const BUMP_CATALOG: &str = "UPDATE catalog SET version = version + 1";
const IN_USE: &str = "\
    SELECT id, position, body FROM model_price WHERE source = $1 AND retired_at IS NULL ORDER BY position, id";
// Lists go as one JSON text each, so that a whole catalogue is three statements.
const RETIRE: Dialects = Dialects {
    postgres: "\
        UPDATE model_price SET retired_at = now() \
        WHERE id IN (SELECT value::bigint FROM jsonb_array_elements_text($1::text::jsonb) AS value)",
    sqlite: "\
        UPDATE model_price SET retired_at = CAST(round(unixepoch('subsec') * 1000) AS INTEGER) \
        WHERE id IN (SELECT value FROM json_each($1))",
};
const MOVE: Dialects = Dialects {
    postgres: "\
        UPDATE model_price SET position = (new ->> 1)::integer \
        FROM jsonb_array_elements($1::text::jsonb) AS new WHERE model_price.id = (new ->> 0)::bigint",
    sqlite: "\
        UPDATE model_price SET position = new.value ->> 1 \
        FROM json_each($1) AS new WHERE model_price.id = new.value ->> 0",
};
const ADD: Dialects = Dialects {
    postgres: "\
        INSERT INTO model_price (provider, model, source, position, body) \
        SELECT new -> 1 ->> 'provider', new -> 1 ->> 'model', $1, (new ->> 0)::integer, new -> 1 \
        FROM jsonb_array_elements($2::text::jsonb) AS new ORDER BY (new ->> 0)::integer",
    sqlite: "\
        INSERT INTO model_price (provider, model, source, position, body) \
        SELECT new.value ->> '$[1].provider', new.value ->> '$[1].model', $1, new.value ->> 0, new.value -> 1 \
        FROM json_each($2) AS new ORDER BY new.value ->> 0",
};

/// Of what is in use: a price's number, its position, and itself.
type Row = (i64, i32, Json<PriceEntry>);

/// What a new list changes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PricesChanged {
    /// Not in use before.
    pub added: Vec<PriceEntry>,
    /// In use until now.
    pub retired: Vec<PriceEntry>,
    moved: Vec<(i64, i32)>,
    added_at: Vec<i32>,
}

impl PricesChanged {
    /// Whether the lists are the same.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.retired.is_empty() && self.moved.is_empty()
    }
}

impl Admin {
    /// Puts the prices that the program brings along in place of those an older one brought.
    pub async fn seed_prices(&self, entries: &[PriceEntry]) -> Result<PricesChanged, LedgerError> {
        // Nearly every start finds what the one before has left. To see that takes no lock; and it takes one price after
        // the other, because what a process has once had it mostly keeps.
        let are_there = async |tx: &mut Tx<'_>| are_in_use(tx, PriceSource::Seed, entries).await;
        if self.read(are_there).await? {
            return Ok(PricesChanged::default());
        }
        self.write(async |tx: &mut Tx<'_>| {
            lock_catalog(tx).await?;
            let changed = compare(tx, PriceSource::Seed, entries).await?;
            if !changed.is_empty() {
                write(tx, PriceSource::Seed, &changed).await?;
                bump_catalog(tx).await?;
            }
            Ok(changed)
        })
        .await
    }
}

/// Nobody else changes the catalogue until the transaction ends. Says its markup, in percent.
pub(super) async fn lock_catalog(tx: &mut Tx<'_>) -> Result<String, LedgerError> {
    let lock = tx.sql(&LOCK_CATALOG);
    Ok(on!(tx, conn => sqlx::query_scalar(lock).fetch_one(conn).await?))
}

/// Makes every sidecar read the prices again.
pub(super) async fn bump_catalog(tx: &mut Tx<'_>) -> Result<(), LedgerError> {
    on!(tx, conn => {
        sqlx::query(BUMP_CATALOG).execute(conn).await?;
    });
    Ok(())
}

/// Whether a source's prices are these, in this order.
async fn are_in_use(
    tx: &mut Tx<'_>,
    source: PriceSource,
    entries: &[PriceEntry],
) -> Result<bool, LedgerError> {
    let mut wanted = (0..).zip(entries);
    on!(tx, conn => {
        let mut rows = sqlx::query_as::<_, Row>(IN_USE).bind(word(source)).fetch(conn);
        while let Some((_, position, Json(entry))) = rows.try_next().await? {
            let is_it = match wanted.next() {
                Some((place, wanted)) => place == position && text(wanted)? == text(&entry)?,
                None => false,
            };
            if !is_it {
                return Ok(false);
            }
        }
    });
    Ok(wanted.next().is_none())
}

/// What `entries` would change of a source's prices.
pub(super) async fn compare(
    tx: &mut Tx<'_>,
    source: PriceSource,
    entries: &[PriceEntry],
) -> Result<PricesChanged, LedgerError> {
    let rows: Vec<Row> = on!(tx, conn => {
        let rows = sqlx::query_as(IN_USE).bind(word(source));
        rows.fetch_all(conn).await?
    });
    let mut in_use: HashMap<String, Vec<(i64, i32, PriceEntry)>> = HashMap::new();
    for (id, position, Json(entry)) in rows.into_iter().rev() {
        let same = in_use.entry(text(&entry)?).or_default();
        same.push((id, position, entry));
    }
    let mut changed = PricesChanged::default();
    for (entry, place) in entries.iter().zip(0..) {
        match in_use.get_mut(&text(entry)?).and_then(Vec::pop) {
            Some((id, position, _)) if position != place => changed.moved.push((id, place)),
            Some(_) => {}
            None => {
                changed.added.push(PriceEntry {
                    id: 0,
                    ..entry.clone()
                });
                changed.added_at.push(place);
            }
        }
    }
    let gone = in_use.into_values().flatten();
    changed.retired = gone
        .map(|(id, _, entry)| PriceEntry { id, ..entry })
        .collect();
    changed.retired.sort_by_key(|entry| entry.id);
    Ok(changed)
}

/// Carries the changes out.
pub(super) async fn write(
    tx: &mut Tx<'_>,
    source: PriceSource,
    changed: &PricesChanged,
) -> Result<(), LedgerError> {
    let retired: Vec<i64> = changed.retired.iter().map(|entry| entry.id).collect();
    let added: Vec<_> = changed.added_at.iter().zip(&changed.added).collect();
    let lists = [json!(retired), json!(changed.moved), json!(added)].map(|list| list.to_string());
    let [retire, move_to, add] = [&RETIRE, &MOVE, &ADD].map(|text| tx.sql(text));
    let [retired, moved, added] = &lists;
    on!(tx, conn => {
        sqlx::query(retire).bind(retired).execute(&mut *conn).await?;
        sqlx::query(move_to).bind(moved).execute(&mut *conn).await?;
        sqlx::query(add).bind(word(source)).bind(added).execute(conn).await?;
    });
    Ok(())
}

/// A price as text, without its number: two are the same where this is.
fn text(entry: &PriceEntry) -> Result<String, LedgerError> {
    let unnumbered = PriceEntry {
        id: 0,
        ..entry.clone()
    };
    serde_json::to_string(&unnumbered).map_err(|error| LedgerError::Nonsense(error.to_string()))
}

const fn word(source: PriceSource) -> &'static str {
    match source {
        PriceSource::Seed => "seed",
        PriceSource::Catalog => "catalog",
    }
}
