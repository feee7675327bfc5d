-- Outbox: the oldest entries of a shard, and the server they were read from (rule 19).
--
-- KEYS  header, outbox
-- ARGV  epoch    that the caller has checked
--       max      how many at the most
-- Answers
--   {'lost', epoch found}
--   {'outbox', name of the server, entries}    each {'<seq>-0', {field, value, …}}, see entry.lua

local header, outbox = KEYS[1], KEYS[2]
local epoch, max = ARGV[1], ARGV[2]

local found = redis.call('HGET', header, 'epoch')
if found ~= epoch then
  return { 'lost', found or 'none' }
end
local name = server_name(redis.call('INFO', 'server', 'replication'))
return { 'outbox', name, redis.call('XRANGE', outbox, '-', '+', 'COUNT', max) }
