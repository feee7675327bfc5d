-- The entries of a posting, as the check of their foreign key looks for them.
--
-- Closing a posting changes the key that its entries point at, so SQLite looks for entries that pointed at it as it was
-- before, and for those that point at it now. The index for that had the posting alone, and the planner took the one by
-- account instead: each flush read all entries that an account ever had, one by one, twice.
--
-- For SQLite alone: in PostgreSQL a posting is never changed.

-- As unique as before: all entries of a posting are of its account, and closed.
DROP INDEX a_posting_moves_each_book_once;
CREATE UNIQUE INDEX a_posting_moves_each_book_once
    ON ledger_entry (posting_id, account_id, closed, book, coalesce(lot_id, 0));
