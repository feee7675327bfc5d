-- Open: writes a header where there is none, or an older epoch's; never back to an earlier one (rule 21).
--
-- KEYS  header
-- ARGV  install, format, epoch, out_seq, applied_seq
-- Answers {'open', epoch that is there now}

local header = KEYS[1]
local install, format, epoch, out_seq, applied_seq = unpack(ARGV)

local known, last = unpack(redis.call('HMGET', header, 'epoch', 'out_seq'))
if known and tonumber(known) >= tonumber(epoch) then
  return { 'open', known }
end
-- Entries may have been written since the header was looked at: numbers go on from wherever they are (rule 18).
if last and tonumber(last) > tonumber(out_seq) then
  out_seq = last
end
redis.call('HSET', header, 'install', install, 'format', format, 'epoch', epoch, 'out_seq', out_seq, 'applied_seq', applied_seq)
return { 'open', epoch }
