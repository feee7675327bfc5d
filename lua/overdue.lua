-- Overdue: the holds whose deadline has passed, the oldest first.
--
-- KEYS  header, deadlines
-- ARGV  epoch    that the caller has checked
--       max      how many at the most
-- Answers
--   {'lost', epoch found}
--   {'overdue', now, members}    each '<reservation>|<account>'

local header, deadlines = KEYS[1], KEYS[2]
local epoch, max = ARGV[1], ARGV[2]

local found = redis.call('HGET', header, 'epoch')
if found ~= epoch then
  return { 'lost', found or 'none' }
end
return { 'overdue', now, redis.call('ZRANGEBYSCORE', deadlines, '-inf', now, 'LIMIT', 0, max) }
