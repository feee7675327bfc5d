//! Where to look for what accounts for a drift, as statements: each answers a name and a text, and a few lines at most.

pub(in crate::ledger) const BOOKS: &str = "\
    SELECT trim(book || ' ' || coalesce(lot_id, '')), CAST(amount_nanos AS TEXT) FROM ledger_entry \
    WHERE posting_id = ?1 ORDER BY book, lot_id LIMIT ?2";
// Those of the very amount come first.
pub(in crate::ledger) const RECORDS_OF: &str = "\
    SELECT lower(hex(id)), CAST(charged_nanos AS TEXT) FROM usage_record \
    WHERE account_id = ?1 AND charged_nanos <> 0 \
      AND posting_id IS ?2 \
    ORDER BY abs(charged_nanos) = CAST(?3 AS INTEGER) DESC, occurred_at DESC LIMIT ?4";
pub(in crate::ledger) const POSTING_OF: &str = "\
    SELECT lower(hex(posting_id)), CAST(amount_nanos AS TEXT) FROM usage_record JOIN ledger_entry USING (posting_id) \
    WHERE id = ?1 AND book = 'used'";
pub(in crate::ledger) const CORRECTIONS: &str = "\
    SELECT lower(hex(id)), CAST(charged_nanos AS TEXT) FROM usage_record WHERE account_id = ?1 AND corrects = ?2 LIMIT ?3";
// Of the very amount, or of a posting that is odd itself.
pub(in crate::ledger) const POSTINGS: &str = "\
    SELECT lower(hex(posting_id)), CAST(amount_nanos AS TEXT) FROM ledger_entry AS entry \
    WHERE account_id = ?1 AND book = ?2 AND coalesce(lot_id, 0) = ?3 \
      AND (abs(amount_nanos) = CAST(?4 AS INTEGER) \
           OR (SELECT sum(amount_nanos) FROM ledger_entry WHERE posting_id = entry.posting_id) <> 0) \
    LIMIT ?5";
pub(in crate::ledger) const WITHDRAWALS: &str = "\
    SELECT lower(hex(id)), CAST(amount_nanos AS TEXT) FROM withdrawal \
    WHERE account_id = ?1 AND lot_id = ?2 AND taken_nanos IS NULL ORDER BY requested_at LIMIT ?3";
pub(in crate::ledger) const RECORDS: &str = "\
    SELECT lower(hex(id)), allocation FROM usage_record WHERE account_id = ?1 ORDER BY occurred_at DESC LIMIT ?2";
pub(in crate::ledger) const CHANGES: &str = "\
    SELECT CAST(seq AS TEXT), body FROM store_change WHERE account_id = ?1 ORDER BY seq DESC LIMIT ?2";
pub(in crate::ledger) const QUARANTINED: &str = "\
    SELECT CAST(seq AS TEXT), moved FROM quarantine \
    WHERE account_id = ?1 AND resolved_at IS NULL AND moved IS NOT NULL ORDER BY seq LIMIT ?2";
