-- What was used: the records, which nobody can change, and the counters, which say it in sums.

-- One line says how a reservation ended; a correction is a line of its own.
--
-- No foreign keys: a record outlives whatever it names, and the flush must never be held up by what it points at.
-- Partitioned by the id, not by time: only so can the primary key keep one id unique, and a UUIDv7 begins with its
-- time anyway (rule 25). A correction's id keeps those bits, so it lies in the same partition.
CREATE TABLE usage_record (
    id                 uuid        NOT NULL,
    account_id         text        NOT NULL,
    -- By the store's clock.
    occurred_at        timestamptz NOT NULL,
    route              text        NOT NULL DEFAULT '',
    provider           text        NOT NULL DEFAULT '',
    model              text        NOT NULL DEFAULT '',
    outcome            text        NOT NULL,
    overrun            boolean     NOT NULL,
    input_tokens       bigint      NOT NULL DEFAULT 0,
    output_tokens      bigint      NOT NULL DEFAULT 0,
    cache_read_tokens  bigint      NOT NULL DEFAULT 0,
    cache_write_tokens bigint      NOT NULL DEFAULT 0,
    reserved_nanos     bigint      NOT NULL,
    -- What it moved the wallet by: the sum over an account's records is the sum of its charges (invariant 6).
    charged_nanos      bigint      NOT NULL,
    -- Before markup, in nanos of a credit too.
    cost_nanos         bigint      NOT NULL DEFAULT 0,
    price_id           bigint,
    api_key_id         uuid,
    user_ref           text,
    project_ref        text,
    tags               json        NOT NULL DEFAULT '{}',
    -- All that the provider reported. `json`, not `jsonb`: it keeps the text as it came, and jsonb refuses \u0000,
    -- which would let one odd answer stop a flush.
    usage              json,
    properties         json        NOT NULL DEFAULT '{}',
    -- Which record a correction corrects.
    corrects           uuid,
    -- What was taken from which lot, debt and counter, in the order it was taken: what rule 24 calls P.
    allocation         json        NOT NULL,
    recorded_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT an_id_is_recorded_once PRIMARY KEY (id),
    CONSTRAINT an_outcome_is_one_of_four CHECK (outcome IN ('settled', 'released', 'lapsed', 'correction')),
    CONSTRAINT a_correction_says_what_it_corrects CHECK ((outcome = 'correction') = (corrects IS NOT NULL))
) PARTITION BY RANGE (id);

CREATE INDEX records_of_an_account_by_time ON usage_record (account_id, occurred_at);

CREATE FUNCTION usage_record_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'usage_record is append-only: % is refused', TG_OP
        USING ERRCODE = 'integrity_constraint_violation',
              HINT = 'Write a correction instead.';
END
$$;

-- Postgres copies a row trigger to every partition, but not a TRUNCATE trigger: the parent's does not see the TRUNCATE
-- of one partition (rule 25).
CREATE TRIGGER records_are_never_changed BEFORE UPDATE OR DELETE ON usage_record
    FOR EACH ROW EXECUTE FUNCTION usage_record_is_append_only();
CREATE TRIGGER records_are_never_truncated BEFORE TRUNCATE ON usage_record
    FOR EACH STATEMENT EXECUTE FUNCTION usage_record_is_append_only();

-- Whatever has no month of its own, such as an id made by a clock that is far off: a missing partition stops no flush.
CREATE TABLE usage_record_default PARTITION OF usage_record DEFAULT;
CREATE TRIGGER records_are_never_truncated BEFORE TRUNCATE ON usage_record_default
    FOR EACH STATEMENT EXECUTE FUNCTION usage_record_is_append_only();

-- The least UUIDv7 of a moment: its milliseconds in the first 48 bits, and nothing else.
CREATE FUNCTION uuid_v7_floor(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- Makes the partitions of this month and of `months_ahead` more, and returns how many were missing. Migrate and the
-- sidecars call it again and again; one at a time does the work.
CREATE FUNCTION usage_record_make_partitions(months_ahead integer) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    month   timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    name    text;
    made    integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('usage_record_make_partitions'));
    FOR ahead IN 0..months_ahead LOOP
        name := 'usage_record_' || to_char(month, 'YYYY_MM');
        IF to_regclass(name) IS NULL THEN
            BEGIN
                EXECUTE format(
                    'CREATE TABLE %I PARTITION OF usage_record FOR VALUES FROM (%L) TO (%L)',
                    name,
                    uuid_v7_floor(month AT TIME ZONE 'UTC'),
                    uuid_v7_floor((month + interval '1 month') AT TIME ZONE 'UTC')
                );
                EXECUTE format(
                    'CREATE TRIGGER records_are_never_truncated BEFORE TRUNCATE ON %I '
                    'FOR EACH STATEMENT EXECUTE FUNCTION usage_record_is_append_only()',
                    name
                );
                made := made + 1;
            EXCEPTION WHEN check_violation THEN
                -- Records of that month are in the default partition already, and nothing may move them.
                RAISE WARNING 'the records of % stay in usage_record_default', to_char(month, 'YYYY-MM');
            END;
        END IF;
        month := month + interval '1 month';
    END LOOP;
    RETURN made;
END
$$;

-- What is used of each quota in each span of its window. It is never keyed by plan, so that a count survives a change
-- of plan (rule 12). No floor here either: the flush writes down what has happened.
CREATE TABLE usage_counter (
    account_id   text        NOT NULL,
    scope        text        NOT NULL,
    resource     text        NOT NULL,
    "window"     text        NOT NULL,
    window_start timestamptz NOT NULL,
    used         bigint      NOT NULL,
    PRIMARY KEY (account_id, scope, resource, "window", window_start),
    CONSTRAINT a_window_is_one_of_five CHECK ("window" IN ('day', 'week', 'month', 'overall', 'cumulative')),
    CONSTRAINT a_counter_is_at_most_4e18 CHECK (used BETWEEN -4000000000000000000 AND 4000000000000000000)
);
