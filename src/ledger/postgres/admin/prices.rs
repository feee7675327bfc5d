//! Prices: a source's whole list put in place of its last one.
//!
//! A price that was charged by is named in usage records for ever, so one that is gone is retired, and one that is
//! still there keeps its id.

use std::collections::HashMap;

use sqlx::types::Json;
use sqlx::{Connection, PgConnection, Row};

use super::Admin;
use crate::ledger::LedgerError;
use crate::price::{PriceEntry, PriceSource};

/// Orders all that change the catalogue, and is its version.
pub(super) const LOCK_CATALOG: &str =
    "SELECT version, markup_percent::text AS markup_percent FROM catalog FOR UPDATE";
pub(super) const BUMP_CATALOG: &str = "UPDATE catalog SET version = version + 1";
const IN_USE: &str = "\
    SELECT id, position, body FROM model_price WHERE source = $1 AND retired_at IS NULL ORDER BY position, id";
const RETIRE: &str = "UPDATE model_price SET retired_at = now() WHERE id = ANY($1)";
const MOVE: &str = "\
    UPDATE model_price SET position = new.position \
    FROM UNNEST($1::bigint[], $2::integer[]) AS new (id, position) WHERE model_price.id = new.id";
const ADD: &str = "\
    INSERT INTO model_price (provider, model, source, position, body) \
    SELECT provider, model, $1, position, body \
    FROM UNNEST($2::text[], $3::text[], $4::integer[], $5::jsonb[]) AS new (provider, model, position, body) \
    ORDER BY position";

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
        self.run(async |conn| {
            let mut tx = conn.begin().await?;
            sqlx::query(LOCK_CATALOG).fetch_one(&mut *tx).await?;
            let changed = compare(&mut tx, PriceSource::Seed, entries).await?;
            if !changed.is_empty() {
                write(&mut tx, PriceSource::Seed, &changed).await?;
                sqlx::query(BUMP_CATALOG).execute(&mut *tx).await?;
            }
            tx.commit().await?;
            Ok(changed)
        })
        .await
    }
}

/// What `entries` would change of a source's prices.
pub(super) async fn compare(
    tx: &mut PgConnection,
    source: PriceSource,
    entries: &[PriceEntry],
) -> Result<PricesChanged, LedgerError> {
    let rows = sqlx::query(IN_USE).bind(word(source)).fetch_all(tx).await?;
    let mut in_use: HashMap<String, Vec<(i64, i32, PriceEntry)>> = HashMap::new();
    for row in rows.iter().rev() {
        let Json(entry): Json<PriceEntry> = row.try_get("body")?;
        let same = in_use.entry(text(&entry)?).or_default();
        same.push((row.try_get("id")?, row.try_get("position")?, entry));
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
    tx: &mut PgConnection,
    source: PriceSource,
    changed: &PricesChanged,
) -> Result<(), LedgerError> {
    let retired: Vec<i64> = changed.retired.iter().map(|entry| entry.id).collect();
    sqlx::query(RETIRE).bind(retired).execute(&mut *tx).await?;
    let (ids, places): (Vec<i64>, Vec<i32>) = changed.moved.iter().copied().unzip();
    sqlx::query(MOVE)
        .bind(ids)
        .bind(places)
        .execute(&mut *tx)
        .await?;
    let added = &changed.added;
    let providers: Vec<&str> = added.iter().map(|entry| entry.provider.as_str()).collect();
    let models: Vec<&str> = added.iter().map(|entry| entry.model.as_str()).collect();
    let bodies: Vec<Json<&PriceEntry>> = added.iter().map(Json).collect();
    sqlx::query(ADD)
        .bind(word(source))
        .bind(providers)
        .bind(models)
        .bind(&changed.added_at)
        .bind(bodies)
        .execute(tx)
        .await?;
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
