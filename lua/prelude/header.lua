-- The shard's header: a hash of install, format, epoch, out_seq and applied_seq.

-- Every verb looks first whether the shard is still in the epoch that its caller has checked (rule 21).
local function is_lost(header, epoch)
  return redis.call('HGET', header, 'epoch') ~= epoch
end

local function lost(header)
  return { 'lost', redis.call('HGET', header, 'epoch') or 'none' }
end
