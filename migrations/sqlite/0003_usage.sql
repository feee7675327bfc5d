-- What was used: the records, which nobody can change, and the counters, which say it in sums.

-- One line says how a reservation ended; a correction is a line of its own.
--
-- No foreign keys: a record outlives whatever it names, and the flush must never be held up by what it points at.
-- No partitions: SQLite has none, and an installation that outgrows one file moves to PostgreSQL. Rows are kept in the
-- order of their arrival, and the primary key alone keeps one id unique (rule 25).
CREATE TABLE usage_record (
    id                 BLOB    NOT NULL,
    account_id         TEXT    NOT NULL,
    -- By the store's clock.
    occurred_at        INTEGER NOT NULL,
    route              TEXT    NOT NULL DEFAULT '',
    provider           TEXT    NOT NULL DEFAULT '',
    model              TEXT    NOT NULL DEFAULT '',
    outcome            TEXT    NOT NULL,
    overrun            INTEGER NOT NULL,
    input_tokens       INTEGER NOT NULL DEFAULT 0,
    output_tokens      INTEGER NOT NULL DEFAULT 0,
    cache_read_tokens  INTEGER NOT NULL DEFAULT 0,
    cache_write_tokens INTEGER NOT NULL DEFAULT 0,
    reserved_nanos     INTEGER NOT NULL,
    -- What it moved the wallet by: the sum over an account's records is the sum of its charges (invariant 6).
    charged_nanos      INTEGER NOT NULL,
    -- Before markup, in nanos of a credit too.
    cost_nanos         INTEGER NOT NULL DEFAULT 0,
    price_id           INTEGER,
    api_key_id         BLOB,
    user_ref           TEXT,
    project_ref        TEXT,
    tags               TEXT    NOT NULL DEFAULT '{}',
    -- All that the provider reported, as it came.
    usage              TEXT,
    properties         TEXT    NOT NULL DEFAULT '{}',
    -- Which record a correction corrects.
    corrects           BLOB,
    -- What was taken from which lot, debt and counter, in the order it was taken: what rule 24 calls P.
    allocation         TEXT    NOT NULL,
    recorded_at        INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER)),
    CONSTRAINT an_id_is_recorded_once PRIMARY KEY (id),
    CONSTRAINT a_record_is_named_by_16_bytes CHECK (length(id) = 16),
    CONSTRAINT an_outcome_is_one_of_four CHECK (outcome IN ('settled', 'released', 'lapsed', 'correction')),
    CONSTRAINT an_overrun_is_yes_or_no CHECK (overrun IN (0, 1)),
    CONSTRAINT a_correction_says_what_it_corrects CHECK ((outcome = 'correction') = (corrects IS NOT NULL)),
    CONSTRAINT what_a_record_carries_is_json
        CHECK (json_valid(tags) AND (usage IS NULL OR json_valid(usage)) AND json_valid(properties)
               AND json_valid(allocation))
) STRICT;

CREATE INDEX records_of_an_account_by_time ON usage_record (account_id, occurred_at);

-- SQLite has no TRUNCATE: a DELETE without a WHERE is one, and a trigger makes it go row by row.
CREATE TRIGGER records_are_never_changed BEFORE UPDATE ON usage_record BEGIN
    SELECT RAISE(ABORT, 'usage_record is append-only: UPDATE is refused, write a correction instead');
END;
CREATE TRIGGER records_are_never_deleted BEFORE DELETE ON usage_record BEGIN
    SELECT RAISE(ABORT, 'usage_record is append-only: DELETE is refused, write a correction instead');
END;
-- An INSERT OR REPLACE deletes what it replaces without asking the trigger above.
CREATE TRIGGER records_are_never_replaced BEFORE INSERT ON usage_record
WHEN EXISTS (SELECT 1 FROM usage_record WHERE id = NEW.id) BEGIN
    SELECT RAISE(ABORT, 'usage_record is append-only: this id is recorded already');
END;

-- What is used of each quota in each span of its window. It is never keyed by plan, so that a count survives a change
-- of plan (rule 12). No floor here either: the flush writes down what has happened.
CREATE TABLE usage_counter (
    account_id   TEXT    NOT NULL,
    scope        TEXT    NOT NULL,
    resource     TEXT    NOT NULL,
    "window"     TEXT    NOT NULL,
    window_start INTEGER NOT NULL,
    used         INTEGER NOT NULL,
    PRIMARY KEY (account_id, scope, resource, "window", window_start),
    CONSTRAINT a_window_is_one_of_five CHECK ("window" IN ('day', 'week', 'month', 'overall', 'cumulative')),
    CONSTRAINT a_counter_is_at_most_4e18 CHECK (used BETWEEN -4000000000000000000 AND 4000000000000000000)
) STRICT, WITHOUT ROWID;
