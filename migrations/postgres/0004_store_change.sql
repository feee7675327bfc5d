-- What the ledger changed and the store must learn of, in one order a shard (rule 20).
--
-- Whoever writes a row holds the lock of its shard's row, gives it last_change + 1, and raises last_change, all in the
-- transaction that makes the change: so none is lost, and none can overtake another.
CREATE TABLE store_change (
    shard      smallint    NOT NULL REFERENCES shard (id),
    seq        bigint      NOT NULL,
    account_id text        NOT NULL REFERENCES account (id),
    body       jsonb       NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (shard, seq),
    CONSTRAINT changes_are_numbered_from_one CHECK (seq > 0)
);
-- What `verify` asks: which changes of an account the store has not applied yet.
CREATE INDEX changes_of_an_account ON store_change (account_id, seq);
