-- The journal of the store, where that is a part of this process: what it has answered is here first (rule 28).
--
-- For SQLite alone. A store of many sidecars is a server of its own, which keeps its own files.

-- Commands in the order they were executed, some to a commit. Numbered on for ever.
CREATE TABLE journal_group (
    seq  INTEGER PRIMARY KEY,
    -- The store's own matter.
    body BLOB    NOT NULL,
    CONSTRAINT groups_are_numbered_from_one CHECK (seq > 0)
) STRICT;

-- A shard as it was after a group, in place of its commands up to that one.
CREATE TABLE journal_snapshot (
    -- No foreign key: the store says which shards there are.
    shard     INTEGER PRIMARY KEY,
    after_seq INTEGER NOT NULL,
    body      BLOB    NOT NULL,
    CONSTRAINT a_snapshot_is_after_no_group_or_one CHECK (after_seq >= 0)
) STRICT;
