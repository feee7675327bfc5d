-- What an operator takes out of a lot, or puts right by hand; and which lots have outlived their time.
--
-- Only the store takes from a lot (rule 27), so that nobody reckons with usage that has not been flushed. A withdrawal is
-- therefore asked for here, carried to the store by a numbered change, and done once the outbox has told what was there
-- to take.

CREATE TABLE withdrawal (
    id           uuid        PRIMARY KEY,
    account_id   text        NOT NULL REFERENCES account (id),
    lot_id       bigint      NOT NULL REFERENCES credit_grant (id),
    reason       text        NOT NULL,
    -- At the most: what is held or used already stays.
    amount_nanos bigint      NOT NULL,
    -- What there was to take; null while the store has not told.
    taken_nanos  bigint,
    -- The change that asks the store for it. An image as of that change or a later one asks for it too (rule 22).
    shard        smallint    NOT NULL REFERENCES shard (id),
    change_seq   bigint      NOT NULL,
    -- What whoever asked calls the reason: the same reason twice is one withdrawal (invariant 4).
    source_ref   text,
    requested_at timestamptz NOT NULL DEFAULT now(),
    done_at      timestamptz,
    CONSTRAINT a_withdrawal_is_a_void_or_a_refund CHECK (reason IN ('void', 'refund')),
    CONSTRAINT a_withdrawal_is_1_to_9e15_nanos CHECK (amount_nanos BETWEEN 1 AND 9000000000000000),
    CONSTRAINT no_more_is_taken_than_was_asked_for CHECK (taken_nanos BETWEEN 0 AND amount_nanos),
    CONSTRAINT a_withdrawal_is_done_when_it_says_what_was_taken CHECK ((taken_nanos IS NULL) = (done_at IS NULL)),
    CONSTRAINT a_withdrawal_belongs_to_a_change CHECK (change_seq > 0),
    CONSTRAINT a_reason_withdraws_from_an_account_once UNIQUE (account_id, source_ref)
);
CREATE INDEX withdrawals_that_are_pending ON withdrawal (account_id) WHERE taken_nanos IS NULL;
CREATE INDEX withdrawals_from_a_lot ON withdrawal (lot_id);

CREATE TABLE adjustment (
    id           uuid        PRIMARY KEY,
    account_id   text        NOT NULL REFERENCES account (id),
    -- Positive is more credit. It moves what is owed, since no grant has brought it.
    credit_nanos bigint      NOT NULL,
    -- Why, for whoever audits the books later.
    reason       text        NOT NULL,
    source_ref   text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT an_adjustment_is_1_to_9e15_nanos_either_way
        CHECK (credit_nanos <> 0 AND credit_nanos BETWEEN -9000000000000000 AND 9000000000000000),
    CONSTRAINT an_adjustment_says_why CHECK (length(reason) BETWEEN 1 AND 1000),
    CONSTRAINT a_reason_adjusts_an_account_once UNIQUE (account_id, source_ref)
);
CREATE TRIGGER adjustments_are_never_changed BEFORE UPDATE OR DELETE ON adjustment
    FOR EACH ROW EXECUTE FUNCTION is_append_only();
CREATE TRIGGER adjustments_are_never_truncated BEFORE TRUNCATE ON adjustment
    FOR EACH STATEMENT EXECUTE FUNCTION is_append_only();

-- Whoever looks for lots whose time is over finds them here, and nothing else: what has expired is soon empty.
CREATE INDEX lots_that_expire ON credit_grant (expires_at) WHERE balance_nanos > 0 AND expires_at IS NOT NULL;
