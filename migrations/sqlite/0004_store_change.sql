-- What the ledger changed and the store must learn of, in one order a shard (rule 20).
--
-- Whoever writes a row gives it the shard's last_change + 1, and raises last_change, all in the transaction that makes
-- the change: so none is lost, and none can overtake another.
CREATE TABLE store_change (
    shard      INTEGER NOT NULL REFERENCES shard (id),
    seq        INTEGER NOT NULL,
    account_id TEXT    NOT NULL REFERENCES account (id),
    body       TEXT    NOT NULL,
    created_at INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER)),
    PRIMARY KEY (shard, seq),
    CONSTRAINT changes_are_numbered_from_one CHECK (seq > 0),
    CONSTRAINT a_change_is_json CHECK (json_valid(body))
) STRICT;
-- What `verify` asks: which changes of an account the store has not applied yet.
CREATE INDEX changes_of_an_account ON store_change (account_id, seq);
