-- A plan's edit reaches its accounts in batches, each a transaction of its own, so that no shard is locked for long. If
-- whoever carries it stops half-way, the next `apply` must find what is left to do.
--
-- An edition is counted up with every edit that accounts must learn of; accounts are at `moved_edition` at the least.
ALTER TABLE plan ADD COLUMN edition INTEGER NOT NULL DEFAULT 1;
ALTER TABLE plan ADD COLUMN moved_edition INTEGER NOT NULL DEFAULT 1
    CONSTRAINT accounts_are_never_ahead_of_their_plan CHECK (moved_edition <= edition);
