-- Lapse: ends a hold whose deadline has passed, charging what was metered, or the floor (rule 6).
--
-- KEYS  header, account, reservation, outbox, deadlines
-- ARGV  epoch        that the caller has checked
--       account      its id
--       reservation  its id
--       member       of the deadlines: '<reservation>|<account>'
-- Answers, first match:
--   {'lost', epoch found}, {'unknown'}, {'ended', outcome, charge}
--   {'not_due', deadline}    a heartbeat came
--   {'cold'}                 the account must be loaded
--   {'lapsed', number of the entry}

local call = {
  header = KEYS[1], account = KEYS[2], reservation = KEYS[3], outbox = KEYS[4], deadlines = KEYS[5],
  epoch = ARGV[1], account_id = ARGV[2], member = ARGV[4],
}
local reservation_id = ARGV[3]

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

local found = redis.call('HGET', call.header, 'epoch')
if found ~= call.epoch then
  return { 'lost', found or 'none' }
end
local now = clock()
local hold, mark = read_reservation(call.reservation, now)
if mark then
  return { 'ended', mark[MARK_OUTCOME], mark[MARK_CHARGE] }
end
if not hold then
  -- Nothing is held under this name: it must not be found overdue for ever.
  redis.call('ZREM', call.deadlines, call.member)
  return { 'unknown' }
end
if now < hold[HOLD_DEADLINE] then
  return { 'not_due', hold[HOLD_DEADLINE] }
end
local account = read_account(call.account)
if is_cold(account, call.epoch) then
  return { 'cold' }
end

local totals = lapsed_totals(hold)
return { 'lapsed', end_hold(call, account, hold, totals, cmsgpack.pack(unpack(totals)), detail_of(hold), now) }
