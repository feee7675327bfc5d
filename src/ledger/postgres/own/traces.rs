//! Where to look for what accounts for a drift, as statements: each answers a name and a text, and a few lines at most.

pub(in crate::ledger) const BOOKS: &str = "\
    SELECT concat_ws(' ', book, lot_id), amount_nanos::text FROM ledger_entry \
    WHERE posting_id = $1 ORDER BY book, lot_id LIMIT $2";
// Those of the very amount come first.
pub(in crate::ledger) const RECORDS_OF: &str = "\
    SELECT id::text, charged_nanos::text FROM usage_record \
    WHERE account_id = $1 AND charged_nanos <> 0 \
      AND coalesce(posting_id, encode(substring(sha256(convert_to('backfill ' || account_id, 'UTF8')) \
              FROM 1 FOR 16), 'hex')::uuid) = $2 \
    ORDER BY abs(charged_nanos) = $3::numeric DESC, occurred_at DESC LIMIT $4";
pub(in crate::ledger) const POSTING_OF: &str = "\
    SELECT posting_id::text, amount_nanos::text FROM usage_record JOIN ledger_entry USING (posting_id) \
    WHERE id = $1 AND book = 'used'";
pub(in crate::ledger) const CORRECTIONS: &str = "\
    SELECT id::text, charged_nanos::text FROM usage_record WHERE account_id = $1 AND corrects = $2 LIMIT $3";
// Of the very amount, or of a posting that is odd itself.
pub(in crate::ledger) const POSTINGS: &str = "\
    SELECT posting_id::text, amount_nanos::text FROM ledger_entry AS entry \
    WHERE account_id = $1 AND book = $2 AND coalesce(lot_id, 0) = $3 \
      AND (abs(amount_nanos) = $4::numeric \
           OR (SELECT sum(amount_nanos) FROM ledger_entry WHERE posting_id = entry.posting_id) <> 0) \
    LIMIT $5";
pub(in crate::ledger) const WITHDRAWALS: &str = "\
    SELECT id::text, amount_nanos::text FROM withdrawal \
    WHERE account_id = $1 AND lot_id = $2 AND taken_nanos IS NULL ORDER BY requested_at LIMIT $3";
pub(in crate::ledger) const RECORDS: &str = "\
    SELECT id::text, allocation::text FROM usage_record WHERE account_id = $1 ORDER BY occurred_at DESC LIMIT $2";
pub(in crate::ledger) const CHANGES: &str = "\
    SELECT seq::text, body::text FROM store_change WHERE account_id = $1 ORDER BY seq DESC LIMIT $2";
pub(in crate::ledger) const QUARANTINED: &str = "\
    SELECT seq::text, moved::text FROM quarantine \
    WHERE account_id = $1 AND resolved_at IS NULL AND moved IS NOT NULL ORDER BY seq LIMIT $2";
