-- Outbox: the oldest entries of a shard, and the server they were read from (rule 19).
--
-- KEYS  header, outbox
-- ARGV  epoch    that the caller has checked
--       max      how many at the most
-- Answers
--   {'lost', epoch found}
--   {'outbox', name of the server, entries}    each {'<seq>-0', {field, value, …}}, see entry.lua

local outbox = KEYS[2]
local max = ARGV[2]

local name = server_name(redis.call('INFO', 'server', 'replication'))
return { 'outbox', name, redis.call('XRANGE', outbox, '-', '+', 'COUNT', max) }
