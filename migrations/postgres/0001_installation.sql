-- What is decided once, when an installation is first migrated, and the row that orders everything that happens to a
-- shard.

-- One row for ever. The store's headers carry its id, so that two installations that share a Redis by mistake notice.
CREATE TABLE installation (
    one        boolean     PRIMARY KEY DEFAULT true,
    id         uuid        NOT NULL,
    shards     smallint    NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT there_is_one_installation CHECK (one),
    -- The store's keys and every account's place follow from this number, so it never changes (rule 17).
    CONSTRAINT an_installation_has_1_to_16384_shards CHECK (shards BETWEEN 1 AND 16384)
);

-- Whoever changes anything of a shard's accounts locks this row first, and touches accounts of no other shard unless
-- it locks their rows too, in ascending order. So nothing below it can deadlock, and changes have one order (rule 20).
CREATE TABLE shard (
    id          smallint PRIMARY KEY,
    -- The life of the shard in the store; null until the store's header was opened for the first time.
    epoch       bigint,
    -- The server that keeps it, as it named itself at the last check (rule 21).
    run_id      text,
    -- Every outbox entry up to this one is in the ledger (rule 19).
    flushed_seq bigint   NOT NULL DEFAULT 0,
    -- The number of the last store_change.
    last_change bigint   NOT NULL DEFAULT 0,
    CONSTRAINT a_shard_has_a_server_exactly_when_it_has_an_epoch CHECK ((epoch IS NULL) = (run_id IS NULL)),
    CONSTRAINT a_shard_number_is_not_negative CHECK (id >= 0),
    CONSTRAINT an_epoch_is_positive CHECK (epoch > 0),
    CONSTRAINT entries_are_counted_from_zero CHECK (flushed_seq >= 0),
    CONSTRAINT changes_are_counted_from_zero CHECK (last_change >= 0)
);
