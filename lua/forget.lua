-- Forget: drops entries that the ledger has committed (rule 19).
--
-- KEYS  header, outbox
-- ARGV  epoch that the caller has checked, then the ids of the entries, '<seq>-0'
-- Answers
--   {'lost', epoch found}
--   {'forgotten', how many were there}

local outbox = KEYS[2]
local CHUNK = 1000 -- Lua puts an unpacked list on its stack, which is small.

local forgotten = 0
for first = 2, #ARGV, CHUNK do
  local last = math.min(first + CHUNK - 1, #ARGV)
  forgotten = forgotten + redis.call('XDEL', outbox, unpack(ARGV, first, last))
end
return { 'forgotten', forgotten }
