-- A server may lose a shard to another and get it back with the other's data, under its old name. Counted here is how
-- often the shard's row took another server: only a flush and an ending of the present tenure count (rules 19, 23).
ALTER TABLE shard ADD COLUMN tenure INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tenures_are_counted_from_zero CHECK (tenure >= 0);
UPDATE shard SET tenure = 1 WHERE run_id IS NOT NULL;
