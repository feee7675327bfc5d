-- The double entry: whatever moves credit is one posting, and what it takes from one book it puts into another. So a
-- balance is not only a number that somebody wrote, but the sum of lines that nobody can change.
--
-- Per lot, the balance is the sum of its `lot` entries; what an account owes is minus the sum of its `debt` entries; and
-- what its records charge is the sum of its `used` entries.
--
-- SQLite cannot look at all that one statement has written. So a posting begins open, and closing it, when its entries
-- are there, is refused unless they sum to zero. Entries point at a posting that is closed, by a key that is checked at
-- the end of the transaction: so none can be committed whose posting is open, and none can join one that is closed.

CREATE TABLE posting (
    -- Follows from what it is for, so that nothing is posted twice (invariant 4).
    id          BLOB    NOT NULL,
    account_id  TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    occurred_at INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER)),
    closed      INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT a_posting_is_made_once PRIMARY KEY (id),
    CONSTRAINT a_posting_is_named_by_16_bytes CHECK (length(id) = 16),
    CONSTRAINT a_posting_is_open_or_closed CHECK (closed IN (0, 1)),
    -- What the entries point at, so that none is of another account than its posting.
    CONSTRAINT a_posting_is_of_one_account UNIQUE (account_id, id, closed),
    CONSTRAINT a_posting_is_of_one_of_eight_kinds CHECK (kind IN (
        'grant', 'usage', 'correction', 'repayment', 'expiry', 'void', 'refund', 'adjustment'
    ))
) STRICT;

-- No foreign key to the lot: the flush has moved the lot in the same transaction, or it does not commit.
CREATE TABLE ledger_entry (
    posting_id   BLOB    NOT NULL,
    account_id   TEXT    NOT NULL,
    book         TEXT    NOT NULL,
    lot_id       INTEGER,
    -- Positive is what the book gained. What is owed is a negative amount on `debt`, what grants brought in a negative
    -- one on `granted`.
    amount_nanos INTEGER NOT NULL,
    closed       INTEGER NOT NULL DEFAULT 1,
    CONSTRAINT an_entry_is_of_a_closed_posting_of_its_account
        FOREIGN KEY (account_id, posting_id, closed) REFERENCES posting (account_id, id, closed)
        DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT an_entrys_posting_is_closed CHECK (closed = 1),
    CONSTRAINT a_book_is_one_of_eight CHECK (book IN (
        'lot', 'debt', 'granted', 'used', 'expired', 'voided', 'refunded', 'adjusted'
    )),
    CONSTRAINT a_lot_is_named_where_the_book_is_one CHECK ((book = 'lot') = (lot_id IS NOT NULL)),
    CONSTRAINT an_entry_moves_something CHECK (amount_nanos <> 0)
) STRICT;
-- Lots are numbered from one, so 0 stands for none: SQLite takes any two nulls for different.
CREATE UNIQUE INDEX a_posting_moves_each_book_once ON ledger_entry (posting_id, book, coalesce(lot_id, 0));
-- What an audit sums, and all it needs for that.
CREATE INDEX entries_of_a_book ON ledger_entry (account_id, book, lot_id, amount_nanos);

CREATE TRIGGER postings_begin_open BEFORE INSERT ON posting WHEN NEW.closed <> 0 BEGIN
    SELECT RAISE(ABORT, 'a posting is closed when its entries are there');
END;
-- An INSERT OR REPLACE deletes what it replaces without asking the trigger against that.
CREATE TRIGGER postings_are_never_replaced BEFORE INSERT ON posting
WHEN EXISTS (SELECT 1 FROM posting WHERE id = NEW.id) BEGIN
    SELECT RAISE(ABORT, 'posting is append-only: this id is posted already');
END;
CREATE TRIGGER postings_are_only_closed BEFORE UPDATE ON posting
WHEN OLD.closed <> 0 OR NEW.closed <> 1 OR NEW.id <> OLD.id OR NEW.account_id <> OLD.account_id
    OR NEW.kind <> OLD.kind OR NEW.occurred_at <> OLD.occurred_at BEGIN
    SELECT RAISE(ABORT, 'posting is append-only: UPDATE is refused, post the difference instead');
END;
CREATE TRIGGER postings_are_never_deleted BEFORE DELETE ON posting BEGIN
    SELECT RAISE(ABORT, 'posting is append-only: DELETE is refused, post the difference instead');
END;
-- Whole credits and the rest are summed apart, since a sum beyond 64 bits is an error of its own here.
CREATE TRIGGER a_posting_sums_to_zero BEFORE UPDATE OF closed ON posting
WHEN (SELECT sum(amount_nanos / 1000000000) * 1000000000 + sum(amount_nanos % 1000000000)
      FROM ledger_entry WHERE posting_id = NEW.id) <> 0 BEGIN
    SELECT RAISE(ABORT, 'a posting that does not sum to zero is refused');
END;

CREATE TRIGGER entries_join_no_closed_posting BEFORE INSERT ON ledger_entry
WHEN (SELECT closed FROM posting WHERE id = NEW.posting_id) BEGIN
    SELECT RAISE(ABORT, 'ledger_entry is append-only: its posting is closed');
END;
CREATE TRIGGER entries_are_never_changed BEFORE UPDATE ON ledger_entry BEGIN
    SELECT RAISE(ABORT, 'ledger_entry is append-only: UPDATE is refused, post the difference instead');
END;
CREATE TRIGGER entries_are_never_deleted BEFORE DELETE ON ledger_entry BEGIN
    SELECT RAISE(ABORT, 'ledger_entry is append-only: DELETE is refused, post the difference instead');
END;

-- The posting a record is part of: the records of an account that came in one flush have one. Nothing is posted for
-- what was before, as there is nothing: no version without this migration kept its ledger in SQLite.
ALTER TABLE usage_record ADD COLUMN posting_id BLOB
    CONSTRAINT what_is_charged_is_posted CHECK (charged_nanos = 0 OR posting_id IS NOT NULL);
