-- Account: all that the store knows of one account, in one atomic read.
--
-- KEYS  header, account, outbox, deadlines, then the account's reservations as far as the caller knows them
-- ARGV  epoch        that the caller has checked
--       account      its id
--       reservation  the id of each reservation in KEYS, in their order
-- Answers, first match:
--   {'lost', epoch found}
--   {'cold'}
--   {'others', ids}    these reservations are held, not those in KEYS: ask again with them
--   {'account', snapshot, as_of, applied_seq, debt, debt held, order, lots, counters, holds, entries}
--     order     {id, effective, expires}         lots      {id, left, held}, none with nothing
--     counters  {key, start, used, held}         holds     {id, deadline, reserved, slices, lines}
--     slices    {lot, part}                      lines     {key, start, amount}
--     entries   those of this account, as the outbox has them

local header, account_key, outbox, deadlines = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local epoch, account_id = ARGV[1], ARGV[2]
local FIRST_HOLD = 5 -- in KEYS; its id is two places earlier in ARGV

local function held_ids()
  local ids = {}
  for _, member in ipairs(redis.call('ZRANGE', deadlines, 0, -1)) do
    local id, account = string.match(member, '^([^|]+)|(.+)$')
    if account == account_id then
      ids[#ids + 1] = id
    end
  end
  table.sort(ids)
  return ids
end

local function are_known(ids, known)
  for i, id in ipairs(ids) do
    if id ~= ARGV[i + 2] then
      return false
    end
  end
  return #ids == known
end

local function view_lots(account)
  local order, lots = {}, {}
  for _, lot in ipairs(account[LOTS]) do
    if lot[EFFECTIVE] then
      order[#order + 1] = { lot[ID], lot[EFFECTIVE], lot[EXPIRES] }
    end
    if lot[LEFT] ~= 0 or lot[HELD] ~= 0 then
      lots[#lots + 1] = { lot[ID], lot[LEFT], lot[HELD] }
    end
  end
  return order, lots
end

local function view_counters(account)
  local counters = {}
  for key, counter in pairs(account[COUNTERS]) do
    counters[#counters + 1] = { key, counter[START], counter[USED], counter[COUNTER_HELD] }
  end
  return counters
end

local function view_hold(id, hold)
  local claim, lines = cmsgpack.unpack(hold[HOLD_CLAIM]), {}
  for i, line in ipairs(claim[CLAIM_LINES]) do
    lines[i] = { line[LINE_KEY], line[LINE_START], line[LINE_AMOUNT] }
  end
  return { id, hold[HOLD_DEADLINE], claim[CLAIM_CHARGE], hold[HOLD_SLICES], lines }
end

local function view_entries()
  local entries = {}
  for _, entry in ipairs(redis.call('XRANGE', outbox, '-', '+')) do
    if entry[2][2] == account_id then
      entries[#entries + 1] = entry
    end
  end
  return entries
end

if is_lost(header, epoch) then
  return lost(header)
end
local account = read_account(account_key)
if is_cold(account, epoch) then
  return { 'cold' }
end
local ids = held_ids()
if not are_known(ids, #KEYS - FIRST_HOLD + 1) then
  return { 'others', ids }
end

local now, holds = clock(), {}
for i, id in ipairs(ids) do
  local hold = read_reservation(KEYS[FIRST_HOLD + i - 1], now)
  holds[i] = view_hold(id, hold)
end
local order, lots = view_lots(account)
return {
  'account', redis.call('HGET', account_key, 'snapshot'), account[AS_OF], redis.call('HGET', header, 'applied_seq'),
  account[DEBT], account[DEBT_HELD], order, lots, view_counters(account), holds, view_entries(),
}
