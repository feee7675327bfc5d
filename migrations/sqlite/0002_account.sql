-- Accounts, and all that is sold to them: plans, prices, credit.
--
-- Money is in nanos, billionths of a credit, in 64-bit integers: the two ledgers must agree to the last nano. Single
-- amounts are at most 9e15, balances at most 4e18. A sum beyond 64 bits would become a float in SQLite; a STRICT column
-- refuses that.

-- One row. A sidecar asks for its version each second, and reads the prices again when it went up.
CREATE TABLE catalog (
    one            INTEGER PRIMARY KEY DEFAULT 1,
    version        INTEGER NOT NULL DEFAULT 1,
    -- Added to the cost of every call whose plan has no markup of its own. A decimal, as text: SQLite has none.
    markup_percent TEXT    NOT NULL DEFAULT '0',
    CONSTRAINT there_is_one_catalog CHECK (one = 1),
    CONSTRAINT a_markup_never_makes_a_price_negative CHECK (CAST(markup_percent AS REAL) >= -100)
) STRICT, WITHOUT ROWID;
INSERT INTO catalog DEFAULT VALUES;

-- The whole plan is one document, as the catalogue says it: it is read and written as a whole, and compared as a whole
-- to say what an `apply` would change.
CREATE TABLE plan (
    key        TEXT    NOT NULL PRIMARY KEY,
    body       TEXT    NOT NULL,
    created_at INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER)),
    CONSTRAINT a_plan_is_json CHECK (json_valid(body)),
    CONSTRAINT a_plan_is_filed_under_its_own_key CHECK (body ->> 'key' = key)
) STRICT;

-- A price that was charged by is named in usage records for ever, so it is retired, never deleted or rewritten.
CREATE TABLE model_price (
    -- AUTOINCREMENT, here and below: without it the number of a last row that is gone would be given out again.
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    provider   TEXT    NOT NULL,
    model      TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    -- Its place among the prices: where several match, the order decides.
    position   INTEGER NOT NULL,
    body       TEXT    NOT NULL,
    created_at INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER)),
    retired_at INTEGER,
    CONSTRAINT a_price_is_json CHECK (json_valid(body)),
    CONSTRAINT a_price_comes_from_the_seed_or_the_catalog CHECK (source IN ('seed', 'catalog'))
) STRICT;
CREATE INDEX prices_in_use_in_their_order ON model_price (position, id) WHERE retired_at IS NULL;

CREATE TABLE account (
    id            TEXT    NOT NULL PRIMARY KEY,
    -- Follows from the id and the number of shards; kept, so that SQL can ask by shard.
    shard         INTEGER NOT NULL REFERENCES shard (id),
    -- Bumped by every change of plan, keys, status, limits or lots; every reserve carries it (rule 13).
    version       INTEGER NOT NULL DEFAULT 1,
    -- Bumped by a revoked key: a sidecar that sees a higher one looks its cached keys up again.
    keys_version  INTEGER NOT NULL DEFAULT 1,
    plan_key      TEXT    REFERENCES plan (key),
    mode          TEXT    NOT NULL DEFAULT 'enforce',
    status        TEXT    NOT NULL DEFAULT 'active',
    -- What its months are counted from; null means the calendar.
    anchor_at     INTEGER,
    -- How far below zero the wallet may go.
    overage_nanos INTEGER NOT NULL DEFAULT 0,
    -- What it owes. Below zero it is credit: a give-back of what a grant had paid already.
    debt_nanos    INTEGER NOT NULL DEFAULT 0,
    created_at    INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER)),
    CONSTRAINT an_account_id_is_1_to_128_of_a_safe_alphabet
        CHECK (length(id) BETWEEN 1 AND 128 AND id NOT GLOB '*[^A-Za-z0-9._@-]*'),
    CONSTRAINT a_mode_is_enforce_monitor_or_off CHECK (mode IN ('enforce', 'monitor', 'off')),
    CONSTRAINT a_status_is_active_or_suspended CHECK (status IN ('active', 'suspended')),
    CONSTRAINT versions_are_positive CHECK (version > 0 AND keys_version > 0),
    CONSTRAINT an_overage_is_0_to_9e15_nanos CHECK (overage_nanos BETWEEN 0 AND 9000000000000000),
    CONSTRAINT a_debt_is_at_most_4e18_nanos
        CHECK (debt_nanos BETWEEN -4000000000000000000 AND 4000000000000000000)
) STRICT;
CREATE INDEX accounts_of_a_shard ON account (shard, id);
CREATE INDEX accounts_of_a_plan ON account (plan_key);

CREATE TABLE api_key (
    id         BLOB    NOT NULL PRIMARY KEY,
    account_id TEXT    NOT NULL REFERENCES account (id),
    name       TEXT    NOT NULL DEFAULT '',
    -- SHA-256 of the secret. The secret itself is shown once and stored nowhere; it is random and long, so a slow
    -- hash would protect nothing and cost every call.
    hash       BLOB    NOT NULL,
    created_at INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER)),
    revoked_at INTEGER,
    CONSTRAINT a_key_is_named_by_16_bytes CHECK (length(id) = 16),
    CONSTRAINT a_key_is_stored_as_32_bytes_of_hash CHECK (length(hash) = 32),
    CONSTRAINT no_two_keys_have_the_same_secret UNIQUE (hash)
) STRICT;
CREATE INDEX keys_of_an_account ON api_key (account_id);

-- Each grant is one lot, and its id is the lot's.
CREATE TABLE credit_grant (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    account_id    TEXT    NOT NULL REFERENCES account (id),
    amount_nanos  INTEGER NOT NULL,
    -- What the ledger says is left. Only outbox entries and numbered changes move it (rules 20, 24, 27). It has a bound
    -- but no floor: the flush must be able to write down what has happened, whatever it was.
    balance_nanos INTEGER NOT NULL,
    -- Lower numbers are drawn first.
    priority      INTEGER NOT NULL DEFAULT 0,
    -- Plan credit and paid credit never mix: a renewal or a change of plan touches plan grants only.
    kind          TEXT    NOT NULL,
    effective_at  INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER)),
    -- The first moment at which it is no longer drawn on; null means never.
    expires_at    INTEGER,
    -- Who made it (`cli`, `stripe`, ...), and what it calls the reason: the same reason twice makes one grant
    -- (invariant 4).
    source        TEXT    NOT NULL,
    source_ref    TEXT,
    created_at    INTEGER NOT NULL DEFAULT (CAST(round(unixepoch('subsec') * 1000) AS INTEGER)),
    CONSTRAINT a_grant_is_1_to_9e15_nanos CHECK (amount_nanos BETWEEN 1 AND 9000000000000000),
    CONSTRAINT a_balance_is_at_most_4e18_nanos
        CHECK (balance_nanos BETWEEN -4000000000000000000 AND 4000000000000000000),
    CONSTRAINT a_grant_is_plan_paid_or_promotional CHECK (kind IN ('plan', 'paid', 'promotional')),
    CONSTRAINT a_grant_expires_after_it_becomes_effective CHECK (expires_at > effective_at),
    CONSTRAINT a_reason_grants_an_account_once UNIQUE (account_id, source_ref)
) STRICT;
-- What an image and a new order of lots read: the lots with something left.
CREATE INDEX lots_with_something_left ON credit_grant (account_id) WHERE balance_nanos <> 0;
