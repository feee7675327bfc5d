-- What is decided once, when an installation is first migrated, and the row that orders everything that happens to a
-- shard.
--
-- The same tables as in migrations/postgres, file by file. SQLite has neither uuid, boolean, jsonb nor timestamptz: an
-- id is its 16 bytes, a boolean is 0 or 1, a document is its text, a moment is a whole number of milliseconds since 1970.
-- STRICT, since otherwise a column takes whatever it is given, and a sum would quietly turn into a float.

-- One row for ever. The store's headers carry its id, so that two installations that share a store by mistake notice.
-- Without a rowid, which would be numbered on in place of the default.
CREATE TABLE installation (
    one        INTEGER PRIMARY KEY DEFAULT 1,
    id         BLOB    NOT NULL,
    shards     INTEGER NOT NULL,
    created_at INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER)),
    CONSTRAINT there_is_one_installation CHECK (one = 1),
    CONSTRAINT an_installation_is_named_by_16_bytes CHECK (length(id) = 16),
    -- The store's keys and every account's place follow from this number, so it never changes (rule 17).
    CONSTRAINT an_installation_has_1_to_16384_shards CHECK (shards BETWEEN 1 AND 16384)
) STRICT, WITHOUT ROWID;

-- SQLite locks the file, not a row, so two changes are never made at once anyway. What is read and written here is the
-- same all the same: whoever changes anything of a shard's accounts numbers it in this row (rule 20).
CREATE TABLE shard (
    id          INTEGER PRIMARY KEY,
    -- The life of the shard in the store; null until the store's header was opened for the first time.
    epoch       INTEGER,
    -- The server that keeps it, as it named itself at the last check (rule 21).
    run_id      TEXT,
    -- Every outbox entry up to this one is in the ledger (rule 19).
    flushed_seq INTEGER NOT NULL DEFAULT 0,
    -- The number of the last store_change.
    last_change INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT a_shard_has_a_server_exactly_when_it_has_an_epoch CHECK ((epoch IS NULL) = (run_id IS NULL)),
    CONSTRAINT a_shard_number_is_not_negative CHECK (id >= 0),
    CONSTRAINT an_epoch_is_positive CHECK (epoch > 0),
    CONSTRAINT entries_are_counted_from_zero CHECK (flushed_seq >= 0),
    CONSTRAINT changes_are_counted_from_zero CHECK (last_change >= 0)
) STRICT;
