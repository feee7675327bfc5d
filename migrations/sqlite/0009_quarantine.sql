-- Outbox entries that the ledger could not take in for what they say (rule 26): so that one odd entry does not hold up
-- all that come after it, and is not lost either.
--
-- What the store moved for them is moved all the same. Until they are resolved it counts in every load of the account
-- and in every audit.
CREATE TABLE quarantine (
    -- Named by its shard, its number and its bytes: servers that parted may have numbered different entries alike.
    id             BLOB    NOT NULL,
    shard          INTEGER NOT NULL REFERENCES shard (id),
    -- Its number in the outbox.
    seq            INTEGER NOT NULL,
    -- No foreign key: that there is no such account may be what is wrong. Null where nobody can tell whose it is.
    account_id     TEXT,
    -- As it came, to the byte: what is odd about it may be what no text column takes. An entry that can be read is here
    -- as JSON.
    raw            BLOB    NOT NULL,
    reason         TEXT    NOT NULL,
    -- What the store moved; null where nobody can tell.
    moved          TEXT,
    quarantined_at INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER)),
    -- When it was tried again and taken in.
    resolved_at    INTEGER,
    CONSTRAINT an_entry_is_quarantined_once PRIMARY KEY (id),
    CONSTRAINT a_quarantined_entry_is_named_by_16_bytes CHECK (length(id) = 16),
    CONSTRAINT what_was_moved_is_somebodys CHECK (moved IS NULL OR account_id IS NOT NULL),
    CONSTRAINT what_was_moved_is_json CHECK (moved IS NULL OR json_valid(moved))
) STRICT;
CREATE INDEX entries_in_quarantine ON quarantine (account_id) WHERE resolved_at IS NULL;
CREATE INDEX entries_in_quarantine_by_number ON quarantine (shard, seq) WHERE resolved_at IS NULL;
