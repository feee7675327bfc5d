-- The double entry: whatever moves credit is one posting, and what it takes from one book it puts into another. So a
-- balance is not only a number that somebody wrote, but the sum of lines that nobody can change.
--
-- Per lot, the balance is the sum of its `lot` entries; what an account owes is minus the sum of its `debt` entries; and
-- what its records charge is the sum of its `used` entries.

-- Whoever moves credit holds its shard's row, so that nothing moves while what has happened is posted below.
SELECT FROM shard ORDER BY id FOR UPDATE;

CREATE TABLE posting (
    -- Follows from what it is for, so that nothing is posted twice (invariant 4).
    id          uuid        NOT NULL,
    account_id  text        NOT NULL,
    kind        text        NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT a_posting_is_made_once PRIMARY KEY (id),
    -- What the entries point at, so that none is of another account than its posting.
    CONSTRAINT a_posting_is_of_one_account UNIQUE (account_id, id),
    CONSTRAINT a_posting_is_of_one_of_eight_kinds CHECK (kind IN (
        'grant', 'usage', 'correction', 'repayment', 'expiry', 'void', 'refund', 'adjustment'
    ))
);

-- No foreign key to the lot: the flush has moved the lot in the same transaction, or it does not commit.
CREATE TABLE ledger_entry (
    posting_id   uuid   NOT NULL,
    account_id   text   NOT NULL,
    book         text   NOT NULL,
    lot_id       bigint,
    -- Positive is what the book gained. What is owed is a negative amount on `debt`, what grants brought in a negative
    -- one on `granted`.
    amount_nanos bigint NOT NULL,
    CONSTRAINT an_entry_is_of_its_postings_account
        FOREIGN KEY (account_id, posting_id) REFERENCES posting (account_id, id),
    CONSTRAINT a_book_is_one_of_eight CHECK (book IN (
        'lot', 'debt', 'granted', 'used', 'expired', 'voided', 'refunded', 'adjusted'
    )),
    CONSTRAINT a_lot_is_named_where_the_book_is_one CHECK ((book = 'lot') = (lot_id IS NOT NULL)),
    CONSTRAINT an_entry_moves_something CHECK (amount_nanos <> 0)
);
-- Lots are numbered from one, so 0 stands for none: `NULLS NOT DISTINCT` came only with Postgres 15.
CREATE UNIQUE INDEX a_posting_moves_each_book_once ON ledger_entry (posting_id, book, coalesce(lot_id, 0));
-- What an audit sums.
CREATE INDEX entries_of_a_book ON ledger_entry (account_id, book, lot_id) INCLUDE (amount_nanos);

CREATE FUNCTION is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation',
              HINT = 'Post the difference instead.';
END
$$;

CREATE TRIGGER postings_are_never_changed BEFORE UPDATE OR DELETE ON posting
    FOR EACH ROW EXECUTE FUNCTION is_append_only();
CREATE TRIGGER postings_are_never_truncated BEFORE TRUNCATE ON posting
    FOR EACH STATEMENT EXECUTE FUNCTION is_append_only();
CREATE TRIGGER entries_are_never_changed BEFORE UPDATE OR DELETE ON ledger_entry
    FOR EACH ROW EXECUTE FUNCTION is_append_only();
CREATE TRIGGER entries_are_never_truncated BEFORE TRUNCATE ON ledger_entry
    FOR EACH STATEMENT EXECUTE FUNCTION is_append_only();

-- All entries of a posting are written by one statement, so what one statement writes sums to zero for each posting. A
-- deferred check of each row would say the same later, and cost a lookup a row. A sum of bigints is a numeric, so it
-- cannot overflow.
CREATE FUNCTION a_posting_sums_to_zero() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    odd record;
BEGIN
    SELECT posting_id, sum(amount_nanos) AS total INTO odd
        FROM written GROUP BY posting_id HAVING sum(amount_nanos) <> 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'posting % sums to %, not to zero', odd.posting_id, odd.total
            USING ERRCODE = 'check_violation', CONSTRAINT = 'a_posting_sums_to_zero', TABLE = 'ledger_entry';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER a_posting_sums_to_zero AFTER INSERT ON ledger_entry
    REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION a_posting_sums_to_zero();

-- The posting a record is part of: the records of an account that came in one flush have one. Those from before have
-- none.
ALTER TABLE usage_record ADD COLUMN posting_id uuid;
-- Not checked for what is there already. A sidecar of an earlier version cannot charge without posting: what it has to
-- flush waits in the outbox for one that can.
ALTER TABLE usage_record
    ADD CONSTRAINT what_is_charged_is_posted CHECK (charged_nanos = 0 OR posting_id IS NOT NULL) NOT VALID;

-- What happened before this migration is posted in sums: each grant, and for each account one posting of its usage, which
-- is that of all records without a posting. What was drawn to pay debt is in its lots' balances and no longer in its
-- debt, so it cancels out.
--
-- These ids are no version 5 of the names that postings have, so no posting will ever be taken for one of them.
CREATE FUNCTION backfill_id(name text) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT encode(substring(sha256(convert_to('backfill ' || name, 'UTF8')) FROM 1 FOR 16), 'hex')::uuid
$$;

INSERT INTO posting (id, account_id, kind, occurred_at)
    SELECT backfill_id('grant ' || account_id || ' ' || id), account_id, 'grant', created_at
    FROM credit_grant;
INSERT INTO ledger_entry (posting_id, account_id, book, lot_id, amount_nanos)
    SELECT backfill_id('grant ' || account_id || ' ' || id), account_id, side.book, side.lot_id, side.amount_nanos
    FROM credit_grant
    CROSS JOIN LATERAL (VALUES ('lot', id, amount_nanos), ('granted', NULL, -amount_nanos))
        AS side (book, lot_id, amount_nanos);

INSERT INTO posting (id, account_id, kind)
    SELECT backfill_id(id), id, 'usage' FROM account
    WHERE debt_nanos <> 0
        OR EXISTS (SELECT FROM credit_grant WHERE account_id = account.id AND balance_nanos <> amount_nanos);
INSERT INTO ledger_entry (posting_id, account_id, book, lot_id, amount_nanos)
    WITH wallet (account_id, book, lot_id, amount_nanos) AS (
        SELECT account_id, 'lot', id, balance_nanos - amount_nanos FROM credit_grant
        UNION ALL
        SELECT id, 'debt', NULL, -debt_nanos FROM account
    ), side AS (
        SELECT * FROM wallet
        UNION ALL
        SELECT account_id, 'used', NULL, -sum(amount_nanos)::bigint FROM wallet GROUP BY account_id
    )
    SELECT backfill_id(account_id), account_id, book, lot_id, amount_nanos FROM side WHERE amount_nanos <> 0;

DROP FUNCTION backfill_id(text);
