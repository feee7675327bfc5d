-- View: a shard's header, the server that keeps it and its clock, in one atomic read (rule 21).
--
-- KEYS  header, outbox
-- Answers
--   {name of the server, now, maxmemory-policy, length of the outbox, epoch of its oldest entry or -1, install, format,
--    epoch, out_seq, applied_seq}
--   where the last five are missing if there is no header

local header, outbox = KEYS[1], KEYS[2]

-- One that nobody can read is of the oldest epoch there is: nothing is loaded before it is out of the way (rule 22).
local function oldest_epoch()
  local oldest = redis.call('XRANGE', outbox, '-', '+', 'COUNT', 1)[1]
  if not oldest then
    return -1
  end
  local fields = oldest[2]
  for i = 1, #fields, 2 do
    if fields[i] == 'entry' then
      local well, _, epoch = pcall(cmsgpack.unpack_one, fields[i + 1])
      return well and tonumber(epoch) or 0
    end
  end
  return 0
end

local info = redis.call('INFO', 'server', 'replication', 'memory')
local policy = string.match(info, 'maxmemory_policy:([%w-]+)')
return {
  server_name(info), now, policy, redis.call('XLEN', outbox), oldest_epoch(),
  unpack(redis.call('HMGET', header, 'install', 'format', 'epoch', 'out_seq', 'applied_seq')),
}
