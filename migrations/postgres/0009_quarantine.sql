-- Outbox entries that the ledger could not take in for what they say (rule 26): so that one odd entry does not hold up
-- all that come after it, and is not lost either.
--
-- What the store moved for them is moved all the same. Until they are resolved it counts in every load of the account
-- and in every audit.
CREATE TABLE quarantine (
    -- Named by its shard, its number and its bytes: servers that parted may have numbered different entries alike.
    id             uuid        NOT NULL,
    shard          smallint    NOT NULL REFERENCES shard (id),
    -- Its number in the outbox.
    seq            bigint      NOT NULL,
    -- No foreign key: that there is no such account may be what is wrong. Null where nobody can tell whose it is.
    account_id     text,
    -- As it came, to the byte: what is odd about it may be what no text column takes. An entry that can be read is here
    -- as JSON.
    raw            bytea       NOT NULL,
    reason         text        NOT NULL,
    -- What the store moved; null where nobody can tell. `json`, not `jsonb`, which refuses \u0000.
    moved          json,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    -- When it was tried again and taken in.
    resolved_at    timestamptz,
    CONSTRAINT an_entry_is_quarantined_once PRIMARY KEY (id),
    CONSTRAINT what_was_moved_is_somebodys CHECK (moved IS NULL OR account_id IS NOT NULL)
);
CREATE INDEX entries_in_quarantine ON quarantine (account_id) WHERE resolved_at IS NULL;
CREATE INDEX entries_in_quarantine_by_number ON quarantine (shard, seq) WHERE resolved_at IS NULL;
