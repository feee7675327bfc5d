-- What an operator takes out of a lot, or puts right by hand; and which lots have outlived their time.
--
-- Only the store takes from a lot (rule 27), so that nobody reckons with usage that has not been flushed. A withdrawal is
-- therefore asked for here, carried to the store by a numbered change, and done once the outbox has told what was there
-- to take.

CREATE TABLE withdrawal (
    id           BLOB    NOT NULL PRIMARY KEY,
    account_id   TEXT    NOT NULL REFERENCES account (id),
    lot_id       INTEGER NOT NULL REFERENCES credit_grant (id),
    reason       TEXT    NOT NULL,
    -- At the most: what is held or used already stays.
    amount_nanos INTEGER NOT NULL,
    -- What there was to take; null while the store has not told.
    taken_nanos  INTEGER,
    -- The change that asks the store for it. An image as of that change or a later one asks for it too (rule 22).
    shard        INTEGER NOT NULL REFERENCES shard (id),
    change_seq   INTEGER NOT NULL,
    -- What whoever asked calls the reason: the same reason twice is one withdrawal (invariant 4).
    source_ref   TEXT,
    requested_at INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER)),
    done_at      INTEGER,
    CONSTRAINT a_withdrawal_is_named_by_16_bytes CHECK (length(id) = 16),
    CONSTRAINT a_withdrawal_is_a_void_or_a_refund CHECK (reason IN ('void', 'refund')),
    CONSTRAINT a_withdrawal_is_1_to_9e15_nanos CHECK (amount_nanos BETWEEN 1 AND 9000000000000000),
    CONSTRAINT no_more_is_taken_than_was_asked_for CHECK (taken_nanos BETWEEN 0 AND amount_nanos),
    CONSTRAINT a_withdrawal_is_done_when_it_says_what_was_taken CHECK ((taken_nanos IS NULL) = (done_at IS NULL)),
    CONSTRAINT a_withdrawal_belongs_to_a_change CHECK (change_seq > 0),
    CONSTRAINT a_reason_withdraws_from_an_account_once UNIQUE (account_id, source_ref)
) STRICT;
CREATE INDEX withdrawals_that_are_pending ON withdrawal (account_id) WHERE taken_nanos IS NULL;
CREATE INDEX withdrawals_from_a_lot ON withdrawal (lot_id);

CREATE TABLE adjustment (
    id           BLOB    NOT NULL PRIMARY KEY,
    account_id   TEXT    NOT NULL REFERENCES account (id),
    -- Positive is more credit. It moves what is owed, since no grant has brought it.
    credit_nanos INTEGER NOT NULL,
    -- Why, for whoever audits the books later.
    reason       TEXT    NOT NULL,
    source_ref   TEXT,
    created_at   INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER)),
    CONSTRAINT an_adjustment_is_named_by_16_bytes CHECK (length(id) = 16),
    CONSTRAINT an_adjustment_is_1_to_9e15_nanos_either_way
        CHECK (credit_nanos <> 0 AND credit_nanos BETWEEN -9000000000000000 AND 9000000000000000),
    CONSTRAINT an_adjustment_says_why CHECK (length(reason) BETWEEN 1 AND 1000),
    CONSTRAINT a_reason_adjusts_an_account_once UNIQUE (account_id, source_ref)
) STRICT;
CREATE TRIGGER adjustments_are_never_changed BEFORE UPDATE ON adjustment BEGIN
    SELECT RAISE(ABORT, 'adjustment is append-only: UPDATE is refused, post the difference instead');
END;
CREATE TRIGGER adjustments_are_never_deleted BEFORE DELETE ON adjustment BEGIN
    SELECT RAISE(ABORT, 'adjustment is append-only: DELETE is refused, post the difference instead');
END;
-- An INSERT OR REPLACE deletes what it replaces without asking the trigger above.
CREATE TRIGGER adjustments_are_never_replaced BEFORE INSERT ON adjustment
WHEN EXISTS (SELECT 1 FROM adjustment WHERE id = NEW.id) BEGIN
    SELECT RAISE(ABORT, 'adjustment is append-only: this id is adjusted already');
END;

-- Whoever looks for lots whose time is over finds them here, and nothing else: what has expired is soon empty.
CREATE INDEX lots_that_expire ON credit_grant (expires_at) WHERE balance_nanos > 0 AND expires_at IS NOT NULL;
