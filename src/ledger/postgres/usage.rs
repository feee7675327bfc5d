//! Usage in PostgreSQL, a page at a time.

use sqlx::PgPool;
use uuid::Uuid;

use super::PostgresLedger;
use crate::clock::UnixMs;
use crate::ledger::LedgerError;
use crate::ledger::usage::{By, PAGE, UsageOf};

/// A record, as an object of JSON.
macro_rules! record {
    () => {
        "json_build_object( \
        'id', id, 'occurred_at', (extract(epoch FROM occurred_at) * 1000)::bigint, 'outcome', outcome, \
        'overrun', overrun, 'route', route, 'provider', provider, 'model', model, 'input_tokens', input_tokens, \
        'output_tokens', output_tokens, 'cache_read_tokens', cache_read_tokens, \
        'cache_write_tokens', cache_write_tokens, 'reserved_nanos', reserved_nanos, 'charged_nanos', charged_nanos, \
        'cost_nanos', cost_nanos, 'price_id', price_id, 'api_key_id', api_key_id, 'user_ref', user_ref, \
        'project_ref', project_ref, 'tags', tags, 'usage', usage, 'properties', properties, 'corrects', corrects)"
    };
}

const RECORDS: &str = concat!(
    "SELECT ",
    record!(),
    "::text FROM usage_record WHERE account_id = $1 AND occurred_at >= $2 AND occurred_at < $3 AND (occurred_at, id) > ($4, $5) \
    ORDER BY occurred_at, id LIMIT $6"
);
const HISTORY: &str = concat!(
    "SELECT json_build_object('account', account_id, 'record', ",
    record!(),
    ", 'taken', allocation, 'price', (SELECT body FROM model_price WHERE model_price.id = price_id), \
        'posting', (SELECT json_build_object( \
            'id', posting.id, 'kind', kind, 'occurred_at', (extract(epoch FROM posting.occurred_at) * 1000)::bigint, \
            'entries', (SELECT json_agg(json_build_object('book', book, 'lot', lot_id, 'amount_nanos', amount_nanos) \
                                        ORDER BY book, lot_id) FROM ledger_entry WHERE posting_id = posting.id)) \
            FROM posting WHERE posting.id = usage_record.posting_id))::text \
    FROM usage_record WHERE id = ANY($1) ORDER BY corrects NULLS FIRST"
);

/// Records in groups, by an expression of a record.
macro_rules! grouped_by {
    ($group:literal) => {
        concat!(
            "SELECT json_build_object( \
                'group', part, 'records', count(*), 'input_tokens', sum(input_tokens), \
                'output_tokens', sum(output_tokens), 'cache_read_tokens', sum(cache_read_tokens), \
                'cache_write_tokens', sum(cache_write_tokens), 'charged_nanos', sum(charged_nanos), \
                'cost_nanos', sum(cost_nanos))::text \
            FROM (SELECT coalesce(",
            $group,
            ", '') COLLATE \"C\" AS part, usage_record.* FROM usage_record \
                WHERE account_id = $1 AND occurred_at >= $2 AND occurred_at < $3) AS record \
            WHERE $4::text IS NULL OR part > $4 GROUP BY part ORDER BY part LIMIT $5"
        )
    };
}

impl PostgresLedger {
    pub(in crate::ledger) async fn records(
        &self,
        of: &UsageOf,
        (at, id): (UnixMs, Uuid),
    ) -> Result<Vec<String>, LedgerError> {
        let of = of.clone();
        let read = async move |pool: PgPool| {
            let lines = sqlx::query_scalar(RECORDS)
                .bind(of.account.as_str())
                .bind(of.from.to_utc())
                .bind(of.to.to_utc())
                .bind(at.to_utc())
                .bind(id)
                .bind(i64::try_from(PAGE).unwrap_or(i64::MAX));
            Ok(lines.fetch_all(&pool).await?)
        };
        self.reads.read(read).await
    }

    pub(in crate::ledger) async fn history(
        &self,
        records: [Uuid; 2],
    ) -> Result<Vec<String>, LedgerError> {
        let read = async move |pool: PgPool| {
            let lines = sqlx::query_scalar(HISTORY).bind(records);
            Ok(lines.fetch_all(&pool).await?)
        };
        self.reads.read(read).await
    }

    pub(in crate::ledger) async fn groups(
        &self,
        of: &UsageOf,
        by: By,
        after: Option<&str>,
    ) -> Result<Vec<String>, LedgerError> {
        let statement = match by {
            By::Day => grouped_by!("to_char(occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')"),
            By::Model => grouped_by!("model"),
            By::Route => grouped_by!("route"),
            By::Project => grouped_by!("project_ref"),
            By::Key => grouped_by!("api_key_id::text"),
            By::User => grouped_by!("user_ref"),
        };
        let groups = sqlx::query_scalar(statement)
            .bind(of.account.as_str())
            .bind(of.from.to_utc())
            .bind(of.to.to_utc())
            .bind(after)
            .bind(i64::try_from(PAGE).unwrap_or(i64::MAX));
        let mut turn = self.audits.turn().await;
        let mut conn = turn.connection().await?;
        let lines =
            crate::ledger::own::patiently(async { Ok(groups.fetch_all(&mut conn).await?) }).await?;
        turn.keep(conn);
        Ok(lines)
    }
}
