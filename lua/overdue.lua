-- Overdue: the holds whose deadline has passed, the oldest first.
--
-- KEYS  header, deadlines
-- ARGV  epoch    that the caller has checked
--       max      how many at the most
-- Answers
--   {'lost', epoch found}
--   {'overdue', now, members}    each '<reservation>|<account>'

local deadlines = KEYS[2]
local max = ARGV[2]

return { 'overdue', now, redis.call('ZRANGEBYSCORE', deadlines, '-inf', now, 'LIMIT', 0, max) }
