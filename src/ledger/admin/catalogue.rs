//! The catalogue: compared with what the ledger has, written, and carried to the accounts it concerns.
//!
//! The plan is written first and its accounts follow in batches, so that no shard is locked for long. A plan whose
//! accounts have not all followed is found by its editions, so an `apply` that was cut off is finished by the next one.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use sqlx::types::Json;

use super::Admin;
use super::prices::{bump_catalog, compare, lock_catalog, write};
use crate::catalog::{Catalog, Plan};
use crate::ledger::LedgerError;
use crate::ledger::sql::account_id;
use crate::ledger::tx::{Dialects, Tx, on};
use crate::price::{PriceEntry, PriceSource};
use crate::quota::{AccountId, ChangeBody, ShardId};

const PLANS: &str = "\
    SELECT body, (SELECT count(*) FROM account WHERE plan_key = plan.key) AS accounts FROM plan ORDER BY key";
const ADD_PLAN: &str = "INSERT INTO plan (key, body) VALUES ($1, $2)";
const EDIT_PLAN: &str = "UPDATE plan SET body = $2, edition = edition + $3 WHERE key = $1";
const SET_MARKUP: Dialects = Dialects {
    postgres: "UPDATE catalog SET markup_percent = $1::text::numeric",
    sqlite: "UPDATE catalog SET markup_percent = $1",
};
const UNMOVED: &str =
    "SELECT key, edition FROM plan WHERE moved_edition < edition ORDER BY key LIMIT 1";
const SHARDS_OF_PLAN: &str =
    "SELECT DISTINCT shard FROM account WHERE plan_key = $1 ORDER BY shard";
const ACCOUNTS_OF_PLAN: &str = "\
    SELECT id AS account_id FROM account WHERE shard = $1 AND plan_key = $2 AND id > $3 ORDER BY id LIMIT $4";
const MOVED: &str = "UPDATE plan SET moved_edition = $2 WHERE key = $1 AND moved_edition < $2";

/// Accounts that follow their plan in one transaction.
const BATCH: i64 = 100;

/// How far edited plans have reached their accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Followed {
    /// How many accounts know.
    pub accounts: usize,
    /// The shards that have a change for the store.
    pub shards: BTreeSet<ShardId>,
}

/// One thing that a catalogue changes.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// A plan that was not there.
    PlanAdded(Plan),
    /// A plan that reads differently.
    PlanChanged {
        /// As it was.
        before: Box<Plan>,
        /// As it will be.
        after: Box<Plan>,
        /// How many accounts are on it.
        accounts: i64,
    },
    /// A plan that the catalogue does not name. It stays: accounts may be on it, and records name it.
    PlanKept {
        /// Its key.
        key: String,
        /// How many accounts are on it.
        accounts: i64,
    },
    /// A price that was not in use.
    PriceAdded(PriceEntry),
    /// A price that is used no longer.
    PriceRetired(PriceEntry),
    /// Prices that are the same in another order, which decides where several match.
    PricesReordered,
    /// Another markup.
    Markup {
        /// In percent.
        before: Decimal,
        /// In percent.
        after: Decimal,
    },
}

impl Difference {
    /// Whether the ledger changes by it.
    pub fn changes_something(&self) -> bool {
        !matches!(self, Self::PlanKept { .. })
    }
}

impl Admin {
    /// Says what a catalogue would change, and changes nothing.
    pub async fn compare_catalog(&self, catalog: &Catalog) -> Result<Vec<Difference>, LedgerError> {
        self.rehearse(async |tx: &mut Tx<'_>| turn_into(tx, catalog).await)
            .await
    }

    /// Writes a catalogue and says what changed. Its accounts do not know yet: [`Admin::move_accounts`].
    pub async fn write_catalog(&self, catalog: &Catalog) -> Result<Vec<Difference>, LedgerError> {
        self.write(async |tx: &mut Tx<'_>| turn_into(tx, catalog).await)
            .await
    }

    /// Tells the accounts of every edited plan, calling `progress` after each batch.
    pub async fn move_accounts(
        &self,
        mut progress: impl FnMut(&Followed),
    ) -> Result<Followed, LedgerError> {
        let mut followed = Followed::default();
        while let Some((plan, edition)) = self.unmoved_plan().await? {
            for shard in self.shards_of_plan(&plan).await? {
                let mut after = String::new();
                while let Some((last, count)) = self.move_batch(shard, &plan, &after).await? {
                    after = last;
                    followed.accounts += count;
                    followed.shards.insert(shard);
                    progress(&followed);
                }
            }
            self.write(async |tx: &mut Tx<'_>| {
                on!(tx, conn => {
                    let moved = sqlx::query(MOVED).bind(&plan).bind(edition);
                    moved.execute(conn).await?;
                });
                Ok(())
            })
            .await?;
        }
        Ok(followed)
    }

    async fn unmoved_plan(&self) -> Result<Option<(String, i64)>, LedgerError> {
        self.read(async |tx: &mut Tx<'_>| {
            Ok(on!(tx, conn => sqlx::query_as(UNMOVED).fetch_optional(conn).await?))
        })
        .await
    }

    async fn shards_of_plan(&self, plan: &str) -> Result<Vec<ShardId>, LedgerError> {
        self.read(async |tx: &mut Tx<'_>| {
            let shards: Vec<i16> = on!(tx, conn => {
                let shards = sqlx::query_scalar(SHARDS_OF_PLAN).bind(plan);
                shards.fetch_all(conn).await?
            });
            let shards = shards
                .into_iter()
                .map(|shard| u16::try_from(shard).map(ShardId));
            shards
                .collect::<Result<_, _>>()
                .map_err(|_| LedgerError::Nonsense("a shard's number is negative".into()))
        })
        .await
    }

    /// One batch: the last account of it and how many there were; `None` where there are no more.
    async fn move_batch(
        &self,
        shard: ShardId,
        plan: &str,
        after: &str,
    ) -> Result<Option<(String, usize)>, LedgerError> {
        self.write(async |tx: &mut Tx<'_>| {
            // With the shard locked, none of its accounts can change its plan.
            tx.lock(shard).await?;
            let accounts: Vec<AccountId> = on!(tx, conn, ledger => {
                let rows = sqlx::query(ACCOUNTS_OF_PLAN)
                    .bind(ledger::change::column(shard))
                    .bind(plan)
                    .bind(after)
                    .bind(BATCH)
                    .fetch_all(conn)
                    .await?;
                rows.iter().map(account_id).collect::<Result<_, _>>()?
            });
            let mut changes = Vec::with_capacity(accounts.len());
            for account in accounts {
                let body = ChangeBody {
                    snapshot: Some(tx.new_version(&account).await?),
                    ..ChangeBody::default()
                };
                changes.push((account, body));
            }
            tx.append(shard, &changes).await?;
            let last = changes.last().map(|(last, _)| last.as_str().to_owned());
            Ok(last.map(|last| (last, changes.len())))
        })
        .await
    }
}

/// Turns the ledger's catalogue into this one, within a transaction that the caller ends either way.
async fn turn_into(tx: &mut Tx<'_>, catalog: &Catalog) -> Result<Vec<Difference>, LedgerError> {
    let before = lock_catalog(tx).await?;
    let mut differences = plans(tx, catalog).await?;
    let prices = compare(tx, PriceSource::Catalog, &catalog.prices).await?;
    let mut reloads = !prices.is_empty();
    if reloads {
        write(tx, PriceSource::Catalog, &prices).await?;
        if prices.added.is_empty() && prices.retired.is_empty() {
            differences.push(Difference::PricesReordered);
        }
        differences.extend(prices.retired.into_iter().map(Difference::PriceRetired));
        differences.extend(prices.added.into_iter().map(Difference::PriceAdded));
    }
    let before: Decimal = before
        .parse()
        .map_err(|_| LedgerError::Nonsense(format!("a markup of {before} percent")))?;
    let after = catalog.markup_percent;
    if before != after {
        let set = tx.sql(&SET_MARKUP);
        on!(tx, conn => {
            sqlx::query(set).bind(after.to_string()).execute(conn).await?;
        });
        differences.push(Difference::Markup { before, after });
        reloads = true;
    }
    if reloads {
        bump_catalog(tx).await?;
    }
    Ok(differences)
}

async fn plans(tx: &mut Tx<'_>, catalog: &Catalog) -> Result<Vec<Difference>, LedgerError> {
    let known: Vec<(Json<Plan>, i64)> =
        on!(tx, conn => sqlx::query_as(PLANS).fetch_all(conn).await?);
    let known = known
        .into_iter()
        .map(|(Json(plan), accounts)| (plan.key.clone(), (plan, accounts)));
    let mut known: BTreeMap<String, (Plan, i64)> = known.collect();
    let mut differences = Vec::new();
    for plan in &catalog.plans {
        match known.remove(&plan.key) {
            None => {
                on!(tx, conn => {
                    let added = sqlx::query(ADD_PLAN).bind(&plan.key).bind(Json(plan));
                    added.execute(conn).await?;
                });
                differences.push(Difference::PlanAdded(plan.clone()));
            }
            Some((before, _)) if before == *plan => {}
            Some((before, accounts)) => {
                let concerns = i64::from(concerns_accounts(&before, plan));
                on!(tx, conn => {
                    let edited = sqlx::query(EDIT_PLAN).bind(&plan.key).bind(Json(plan));
                    edited.bind(concerns).execute(conn).await?;
                });
                differences.push(Difference::PlanChanged {
                    before: before.into(),
                    after: plan.clone().into(),
                    accounts,
                });
            }
        }
    }
    let kept = known.into_iter();
    differences.extend(kept.map(|(key, (_, accounts))| Difference::PlanKept { key, accounts }));
    Ok(differences)
}

/// Whether snapshots read differently by an edit: its name and its price are nothing to a sidecar.
fn concerns_accounts(before: &Plan, after: &Plan) -> bool {
    before.quotas != after.quotas
        || before.markup_percent != after.markup_percent
        || before.throttle != after.throttle
}
