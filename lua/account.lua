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

local account_key, outbox, deadlines = KEYS[2], KEYS[3], KEYS[4]
local account_id = ARGV[2]
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
  for lot = FIRST_LOT, account[COUNTERS] - 1, LOT_SIZE do
    local id, left, held, effective, expires = unpack(account, lot, lot + LOT_SIZE - 1)
    if effective then
      order[#order + 1] = { id, effective, expires }
    end
    if left ~= 0 or held ~= 0 then
      lots[#lots + 1] = { id, left, held }
    end
  end
  return order, lots
end

local function view_counters(account)
  local counters = {}
  for counter = account[COUNTERS], #account, COUNTER_SIZE do
    counters[#counters + 1] = { unpack(account, counter, counter + COUNTER_SIZE - 1) }
  end
  return counters
end

local function view_hold(id, hold)
  local drawn, slices, lines = hold[HOLD_SLICES], {}, {}
  for slice = 1, #drawn, 2 do
    slices[#slices + 1] = { drawn[slice], drawn[slice + 1] }
  end
  for line = HOLD_FIRST_LINE, #hold, LINE_SIZE do
    lines[#lines + 1] = { hold[line], hold[line + LINE_START], hold[line + LINE_AMOUNT] }
  end
  return { id, hold[HOLD_DEADLINE], hold[HOLD_CHARGE], slices, lines }
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

local account = read_account(account_key)
if not account or account[EPOCH] ~= tonumber(epoch) then
  return { 'cold' }
end
local ids = held_ids()
if not are_known(ids, #KEYS - FIRST_HOLD + 1) then
  return { 'others', ids }
end

local holds = {}
for i, id in ipairs(ids) do
  local hold = read_reservation(KEYS[FIRST_HOLD + i - 1], now)
  holds[i] = view_hold(id, hold)
end
local order, lots = view_lots(account)
return {
  'account', redis.call('HGET', account_key, 'snapshot'), account[AS_OF], redis.call('HGET', header, 'applied_seq'),
  account[DEBT], account[DEBT_HELD], order, lots, view_counters(account), holds, view_entries(),
}
