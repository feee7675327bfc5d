-- Lapse: ends a hold whose deadline has passed, charging what was metered, or the floor (rule 6).
--
-- KEYS  as all endings have them: ending.lua
-- ARGV  epoch, account, member: ending.lua
--       reservation  its id
-- Answers, first match:
--   {'lost', epoch found}, {'unknown'}, {'ended', outcome, charge}
--   {'not_due', deadline}    a heartbeat came
--   {'cold'}                 the account must be loaded
--   {'lapsed', number of the entry}

local reservation_id = ARGV[4]

-- A lapse assumes that the call was forwarded: the floor at least, or what was metered (rule 6).
local function lapsed_totals(hold)
  local amounts = hold[HOLD_AMOUNTS] or {}
  local totals = { reservation_id, 'lapsed', math.max(hold[HOLD_FLOOR], hold[HOLD_METERED]) }
  for line = HOLD_FIRST_LINE, #hold, LINE_SIZE do
    local metered = amounts[(line - HOLD_FIRST_LINE) / LINE_SIZE + 1] or 0
    local amount = math.max(hold[line + LINE_FLOOR], metered)
    if amount ~= 0 then
      local n = #totals
      totals[n + 1], totals[n + 2], totals[n + 3] = hold[line], hold[line + LINE_START], amount
    end
  end
  return totals
end

local hold, mark = read_reservation(reservation_key, now)
if mark then
  return { 'ended', mark[MARK_OUTCOME], mark[MARK_CHARGE] }
end
if not hold then
  -- Nothing is held under this name: it must not be found overdue for ever.
  redis.call('ZREM', deadlines, member)
  return { 'unknown' }
end
if now < hold[HOLD_DEADLINE] then
  return { 'not_due', hold[HOLD_DEADLINE] }
end
local account = read_account(account_key)
if not account or account[EPOCH] ~= tonumber(epoch) then
  return { 'cold' }
end

local totals = lapsed_totals(hold)
return { 'lapsed', end_hold(account, hold, totals, cmsgpack.pack(unpack(totals)), detail_of(hold), now) }
