//! The checks as statements: each answers the account, what it is of, what is expected and what is found, as text, and
//! only where these differ.
//!
//! Sums of bigints are numerics, so none can overflow.

use crate::ledger::audit::Check;

pub(in crate::ledger) const ALL: [(Check, &str); 7] = [
    (Check::Postings, POSTINGS),
    (Check::Records, RECORDS),
    (Check::Charges, CHARGES),
    (Check::Lots, LOTS),
    (Check::Debt, DEBT),
    (Check::Counters, COUNTERS),
    (Check::Corrections, CORRECTIONS),
];

const POSTINGS: &str = "\
    SELECT account_id, posting_id::text, '0', sum(amount_nanos)::text FROM ledger_entry \
    WHERE account_id = ANY($1) GROUP BY account_id, posting_id HAVING sum(amount_nanos) <> 0 LIMIT $2";
// Records from before there were postings are summed in one that the migration made for their account.
const RECORDS: &str = "\
    WITH charged AS ( \
        SELECT account_id, coalesce(posting_id, encode(substring(sha256(convert_to('backfill ' || account_id, 'UTF8')) \
                   FROM 1 FOR 16), 'hex')::uuid) AS posting_id, \
               sum(charged_nanos) AS charged \
        FROM usage_record WHERE account_id = ANY($1) GROUP BY 1, 2 \
    ), posted AS ( \
        SELECT account_id, posting_id, sum(amount_nanos) AS used FROM ledger_entry \
        WHERE account_id = ANY($1) AND book = 'used' GROUP BY 1, 2 \
    ) \
    SELECT account_id, posting_id::text, coalesce(used, 0)::text, coalesce(charged, 0)::text \
    FROM charged FULL JOIN posted USING (account_id, posting_id) \
    WHERE coalesce(used, 0) <> coalesce(charged, 0) LIMIT $2";
const CHARGES: &str = "\
    WITH record AS ( \
        SELECT account_id, id, charged_nanos, (allocation ->> 'debt')::numeric + coalesce( \
            (SELECT sum((lot ->> 1)::numeric) FROM json_array_elements(allocation -> 'lots') AS lot), 0) AS taken \
        FROM usage_record WHERE account_id = ANY($1) \
    ) \
    SELECT account_id, id::text, taken::text, charged_nanos::text FROM record WHERE taken <> charged_nanos LIMIT $2";
const LOTS: &str = "\
    WITH posted AS ( \
        SELECT account_id, lot_id, sum(amount_nanos) AS amount FROM ledger_entry \
        WHERE account_id = ANY($1) AND book = 'lot' GROUP BY 1, 2 \
    ), kept AS ( \
        SELECT account_id, id AS lot_id, balance_nanos FROM credit_grant WHERE account_id = ANY($1) \
    ) \
    SELECT account_id, lot_id::text, coalesce(amount, 0)::text, coalesce(balance_nanos, 0)::text \
    FROM posted FULL JOIN kept USING (account_id, lot_id) \
    WHERE coalesce(amount, 0) <> coalesce(balance_nanos, 0) LIMIT $2";
const DEBT: &str = "\
    WITH posted AS ( \
        SELECT account_id, sum(amount_nanos) AS amount FROM ledger_entry \
        WHERE account_id = ANY($1) AND book = 'debt' GROUP BY 1 \
    ) \
    SELECT account.id, '', (-coalesce(amount, 0))::text, debt_nanos::text \
    FROM account LEFT JOIN posted ON posted.account_id = account.id \
    WHERE account.id = ANY($1) AND -coalesce(amount, 0) <> debt_nanos LIMIT $2";
const COUNTERS: &str = "\
    WITH counted AS ( \
        SELECT account_id, count ->> 'key' AS key, (count ->> 'start')::bigint AS start, \
               sum((count ->> 'amount')::bigint) AS amount \
        FROM usage_record CROSS JOIN LATERAL json_array_elements(allocation -> 'counts') AS count \
        WHERE account_id = ANY($1) GROUP BY 1, 2, 3 \
    ), kept AS ( \
        SELECT account_id, scope || '/' || resource || '/' || \"window\" AS key, \
               (extract(epoch FROM window_start) * 1000)::bigint AS start, used \
        FROM usage_counter WHERE account_id = ANY($1) \
    ) \
    SELECT account_id, start || ' ' || key, coalesce(amount, 0)::text, coalesce(used, 0)::text \
    FROM counted FULL JOIN kept USING (account_id, key, start) \
    WHERE coalesce(amount, 0) <> coalesce(used, 0) LIMIT $2";
const CORRECTIONS: &str = "\
    SELECT correction.account_id, correction.corrects::text, count(DISTINCT lapse.id)::text, count(*)::text \
    FROM usage_record AS correction LEFT JOIN usage_record AS lapse \
        ON lapse.id = correction.corrects AND lapse.account_id = correction.account_id AND lapse.outcome = 'lapsed' \
    WHERE correction.account_id = ANY($1) AND correction.corrects IS NOT NULL \
    GROUP BY 1, 2 HAVING count(*) <> count(DISTINCT lapse.id) LIMIT $2";
