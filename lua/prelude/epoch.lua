-- Every verb looks first whether the shard is still in the epoch that its caller has checked (rule 21). It stands here as it
-- is, and is no function: one that is made in each call costs more than it does.
local header, epoch = KEYS[1], ARGV[1]
local found = redis.call('HGET', header, 'epoch')
if found ~= epoch then
  return { 'lost', found or 'none' }
end
