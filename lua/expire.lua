-- Expire: takes what is left of a lot whose time is over (rule 27).
--
-- KEYS  header, account, outbox
-- ARGV  epoch        that the caller has checked
--       account      its id
--       lot          its id
--       expires_at   when its time is over
-- Answers, first match:
--   {'lost', epoch found}
--   {'not_due'}      not by this clock
--   {'cold'}         the account must be loaded
--   {'nothing'}      is left
--   {'expired', number of the entry}

local account_key, outbox = KEYS[2], KEYS[3]
local account_id, lot, expires_at = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

if now < expires_at then
  return { 'not_due' }
end
local account = read_account(account_key)
if not account or account[EPOCH] ~= tonumber(epoch) then
  return { 'cold' }
end
local taken = withdraw(account, lot)
if #taken == 0 then
  return { 'nothing' }
end
redis.call('HSET', account_key, 'state', cmsgpack.pack(unpack(account)))
return { 'expired', write_credit(header, outbox, account_id, epoch, now, taken, 0, 'expired', '1') }
