//! Usage in SQLite, a page at a time.

use uuid::Uuid;

use super::SqliteLedger;
use super::file;
use crate::clock::UnixMs;
use crate::ledger::LedgerError;
use crate::ledger::usage::{By, PAGE, UsageOf};

/// A record, as an object of JSON.
macro_rules! record {
    () => {
        "json_object( \
        'id', lower(hex(id)), 'occurred_at', occurred_at, 'outcome', outcome, \
        'overrun', json(iif(overrun, 'true', 'false')), 'route', route, 'provider', provider, 'model', model, \
        'input_tokens', input_tokens, 'output_tokens', output_tokens, 'cache_read_tokens', cache_read_tokens, \
        'cache_write_tokens', cache_write_tokens, 'reserved_nanos', reserved_nanos, 'charged_nanos', charged_nanos, \
        'cost_nanos', cost_nanos, 'price_id', price_id, \
        'api_key_id', iif(api_key_id IS NULL, NULL, lower(hex(api_key_id))), 'user_ref', user_ref, \
        'project_ref', project_ref, 'tags', json(tags), 'usage', json(usage), 'properties', json(properties), \
        'corrects', iif(corrects IS NULL, NULL, lower(hex(corrects))))"
    };
}

const RECORDS: &str = concat!(
    "SELECT ",
    record!(),
    " FROM usage_record WHERE account_id = ?1 AND occurred_at >= ?2 AND occurred_at < ?3 AND (occurred_at, id) > (?4, ?5) \
    ORDER BY occurred_at, id LIMIT ?6"
);
const HISTORY: &str = concat!(
    "SELECT json_object('account', account_id, 'record', ",
    record!(),
    ", 'taken', json(allocation), 'price', json((SELECT body FROM model_price WHERE model_price.id = price_id)), \
        'posting', json((SELECT json_object( \
            'id', lower(hex(posting.id)), 'kind', kind, 'occurred_at', posting.occurred_at, \
            'entries', json((SELECT json_group_array(json_object('book', book, 'lot', lot_id, 'amount_nanos', amount_nanos)) \
                             FROM (SELECT * FROM ledger_entry WHERE posting_id = posting.id ORDER BY book, lot_id)))) \
            FROM posting WHERE posting.id = usage_record.posting_id))) \
    FROM usage_record WHERE id IN (?1, ?2) ORDER BY corrects NULLS FIRST"
);

/// Records in groups, by an expression of a record.
macro_rules! grouped_by {
    ($group:literal) => {
        concat!(
            "SELECT json_object( \
                'group', part, 'records', count(*), 'input_tokens', sum(input_tokens), \
                'output_tokens', sum(output_tokens), 'cache_read_tokens', sum(cache_read_tokens), \
                'cache_write_tokens', sum(cache_write_tokens), 'charged_nanos', sum(charged_nanos), \
                'cost_nanos', sum(cost_nanos)) \
            FROM (SELECT coalesce(",
            $group,
            ", '') AS part, usage_record.* FROM usage_record \
                WHERE account_id = ?1 AND occurred_at >= ?2 AND occurred_at < ?3) AS record \
            WHERE ?4 IS NULL OR part > ?4 GROUP BY part ORDER BY part LIMIT ?5"
        )
    };
}

impl SqliteLedger {
    pub(in crate::ledger) async fn records(
        &self,
        of: &UsageOf,
        (at, id): (UnixMs, Uuid),
    ) -> Result<Vec<String>, LedgerError> {
        file::read(async {
            let lines = sqlx::query_scalar(RECORDS)
                .bind(of.account.as_str())
                .bind(of.from.0)
                .bind(of.to.0)
                .bind(at.0)
                .bind(id)
                .bind(i64::try_from(PAGE).unwrap_or(i64::MAX));
            Ok(lines.fetch_all(&mut *self.file.reader().await?).await?)
        })
        .await
    }

    pub(in crate::ledger) async fn history(
        &self,
        [record, correction]: [Uuid; 2],
    ) -> Result<Vec<String>, LedgerError> {
        file::read(async {
            let lines = sqlx::query_scalar(HISTORY).bind(record).bind(correction);
            Ok(lines.fetch_all(&mut *self.file.reader().await?).await?)
        })
        .await
    }

    pub(in crate::ledger) async fn groups(
        &self,
        of: &UsageOf,
        by: By,
        after: Option<&str>,
    ) -> Result<Vec<String>, LedgerError> {
        let statement = match by {
            By::Day => grouped_by!("strftime('%Y-%m-%d', occurred_at / 1000, 'unixepoch')"),
            By::Model => grouped_by!("model"),
            By::Route => grouped_by!("route"),
            By::Project => grouped_by!("project_ref"),
            By::Key => grouped_by!("iif(api_key_id IS NULL, NULL, lower(hex(api_key_id)))"),
            By::User => grouped_by!("user_ref"),
        };
        crate::ledger::own::patiently(async {
            let groups = sqlx::query_scalar(statement)
                .bind(of.account.as_str())
                .bind(of.from.0)
                .bind(of.to.0)
                .bind(after)
                .bind(i64::try_from(PAGE).unwrap_or(i64::MAX));
            Ok(groups.fetch_all(&mut *self.file.reader().await?).await?)
        })
        .await
    }
}
