-- View: a shard's header, the server that keeps it and its clock, in one atomic read (rule 21).
--
-- KEYS  header, outbox
-- Answers
--   {run_id, now, maxmemory-policy, length of the outbox, install, format, epoch, out_seq, applied_seq}
--   where the last five are missing if there is no header

local header, outbox = KEYS[1], KEYS[2]

local info = redis.call('INFO', 'server', 'memory')
local run_id = string.match(info, 'run_id:(%w+)')
local policy = string.match(info, 'maxmemory_policy:([%w-]+)')
return {
  run_id, clock(), policy, redis.call('XLEN', outbox),
  unpack(redis.call('HMGET', header, 'install', 'format', 'epoch', 'out_seq', 'applied_seq')),
}
