//! The checks as statements: each answers the account, what it is of, what is expected and what is found, as text, and
//! only where these differ.
//!
//! What is summed here is the balance of one lot, debt, counter or posting, which is far below 64 bits; a sum beyond them
//! is an error.

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
    SELECT account_id, lower(hex(posting_id)), '0', CAST(sum(amount_nanos) AS TEXT) FROM ledger_entry \
    WHERE account_id IN (SELECT value FROM json_each(?1)) \
    GROUP BY account_id, posting_id HAVING sum(amount_nanos) <> 0 LIMIT ?2";
// A record without a posting charges nothing: no ledger in SQLite is older than its postings.
const RECORDS: &str = "\
    WITH charged AS ( \
        SELECT account_id, coalesce(posting_id, x'') AS posting_id, sum(charged_nanos) AS charged FROM usage_record \
        WHERE account_id IN (SELECT value FROM json_each(?1)) GROUP BY 1, 2 \
    ), posted AS ( \
        SELECT account_id, posting_id, sum(amount_nanos) AS used FROM ledger_entry \
        WHERE account_id IN (SELECT value FROM json_each(?1)) AND book = 'used' GROUP BY 1, 2 \
    ) \
    SELECT account_id, lower(hex(posting_id)), CAST(coalesce(used, 0) AS TEXT), CAST(coalesce(charged, 0) AS TEXT) \
    FROM charged FULL JOIN posted USING (account_id, posting_id) \
    WHERE coalesce(used, 0) <> coalesce(charged, 0) LIMIT ?2";
const CHARGES: &str = "\
    WITH record AS ( \
        SELECT account_id, id, charged_nanos, allocation ->> 'debt' + coalesce( \
            (SELECT sum(lot.value ->> 1) FROM json_each(allocation, '$.lots') AS lot), 0) AS taken \
        FROM usage_record WHERE account_id IN (SELECT value FROM json_each(?1)) \
    ) \
    SELECT account_id, lower(hex(id)), CAST(taken AS TEXT), CAST(charged_nanos AS TEXT) \
    FROM record WHERE taken <> charged_nanos LIMIT ?2";
const LOTS: &str = "\
    WITH posted AS ( \
        SELECT account_id, lot_id, sum(amount_nanos) AS amount FROM ledger_entry \
        WHERE account_id IN (SELECT value FROM json_each(?1)) AND book = 'lot' GROUP BY 1, 2 \
    ), kept AS ( \
        SELECT account_id, id AS lot_id, balance_nanos FROM credit_grant \
        WHERE account_id IN (SELECT value FROM json_each(?1)) \
    ) \
    SELECT account_id, CAST(lot_id AS TEXT), CAST(coalesce(amount, 0) AS TEXT), CAST(coalesce(balance_nanos, 0) AS TEXT) \
    FROM posted FULL JOIN kept USING (account_id, lot_id) \
    WHERE coalesce(amount, 0) <> coalesce(balance_nanos, 0) LIMIT ?2";
const DEBT: &str = "\
    WITH posted AS ( \
        SELECT account_id, sum(amount_nanos) AS amount FROM ledger_entry \
        WHERE account_id IN (SELECT value FROM json_each(?1)) AND book = 'debt' GROUP BY 1 \
    ) \
    SELECT account.id, '', CAST(-coalesce(amount, 0) AS TEXT), CAST(debt_nanos AS TEXT) \
    FROM account LEFT JOIN posted ON posted.account_id = account.id \
    WHERE account.id IN (SELECT value FROM json_each(?1)) AND -coalesce(amount, 0) <> debt_nanos LIMIT ?2";
const COUNTERS: &str = "\
    WITH counted AS ( \
        SELECT account_id, count.value ->> 'key' AS key, count.value ->> 'start' AS start, \
               sum(count.value ->> 'amount') AS amount \
        FROM usage_record, json_each(allocation, '$.counts') AS count \
        WHERE account_id IN (SELECT value FROM json_each(?1)) GROUP BY 1, 2, 3 \
    ), kept AS ( \
        SELECT account_id, scope || '/' || resource || '/' || \"window\" AS key, window_start AS start, used \
        FROM usage_counter WHERE account_id IN (SELECT value FROM json_each(?1)) \
    ) \
    SELECT account_id, start || ' ' || key, CAST(coalesce(amount, 0) AS TEXT), CAST(coalesce(used, 0) AS TEXT) \
    FROM counted FULL JOIN kept USING (account_id, key, start) \
    WHERE coalesce(amount, 0) <> coalesce(used, 0) LIMIT ?2";
const CORRECTIONS: &str = "\
    SELECT correction.account_id, lower(hex(correction.corrects)), CAST(count(DISTINCT lapse.id) AS TEXT), \
           CAST(count(*) AS TEXT) \
    FROM usage_record AS correction LEFT JOIN usage_record AS lapse \
        ON lapse.id = correction.corrects AND lapse.account_id = correction.account_id AND lapse.outcome = 'lapsed' \
    WHERE correction.account_id IN (SELECT value FROM json_each(?1)) AND correction.corrects IS NOT NULL \
    GROUP BY 1, 2 HAVING count(*) <> count(DISTINCT lapse.id) LIMIT ?2";
