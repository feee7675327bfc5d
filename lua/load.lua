-- Load: makes a cold account live from what the ledger knows, and keeps what is held (rule 22).
--
-- KEYS  header, account, outbox
-- ARGV  epoch        that the caller has checked
--       account      its id
--       image        packed {as_of, version, overage, lots, debt, counters}: a lot is {id, balance, effective, expires},
--                    in the order they are drawn; a counter {key, start, used}
--       snapshot     what sidecars cache, as text
-- Answers, first match:
--   {'lost', epoch found}
--   {'warm'}      it is live already; nothing was moved
--   {'behind'}    the image is older than what the store has applied
--   {'loaded'}

local header, account_key, outbox = KEYS[1], KEYS[2], KEYS[3]
local epoch, account_id, image, snapshot = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

-- Of each balance, calls in flight hold a part already; a lot that the ledger no longer lists is kept while they do.
local function load_lots(known, balances)
  local held, lots = {}, {}
  for _, lot in ipairs(known) do
    held[lot[ID]] = lot[HELD]
  end
  for _, balance_of in ipairs(balances) do
    local id, left, effective, expires = unpack(balance_of)
    local held_of = held[id] or 0
    lots[#lots + 1] = { id, subtract(left, held_of), held_of, effective, expires }
    held[id] = nil
  end
  for _, lot in ipairs(known) do
    local held_of = held[lot[ID]]
    if held_of and held_of ~= 0 then
      lots[#lots + 1] = { lot[ID], negate(held_of), held_of, false, false }
    end
  end
  return lots
end

-- A span later than any the ledger has counted in has used nothing, but its start does not go back, and its holds are
-- there.
local function load_counters(known, balances)
  local counters = {}
  for key, counter in pairs(known) do
    counters[key] = { counter[START], 0, counter[COUNTER_HELD] }
  end
  for _, balance_of in ipairs(balances) do
    local key, start, used = unpack(balance_of)
    move_counter(counters, key, start, used, 0)
  end
  return counters
end

if is_lost(header, epoch) then
  return lost(header)
end
local now = clock()
local known = read_account(account_key)
if not is_cold(known, epoch) then
  return { 'warm' }
end
local as_of, version, overage, lots, debt, counters = unpack(cmsgpack.unpack(image))
if as_of < tonumber(redis.call('HGET', header, 'applied_seq')) then
  return { 'behind' }
end

known = known or { [DEBT_HELD] = 0, [LOTS] = {}, [COUNTERS] = {} }
local account = {
  tonumber(epoch), version, overage, as_of, debt, known[DEBT_HELD],
  load_lots(known[LOTS], lots), load_counters(known[COUNTERS], counters),
}
local repaid = repay(account, now)
redis.call('HSET', account_key, 'state', cmsgpack.pack(account), 'snapshot', snapshot)
if repaid then
  write_repaid(header, outbox, account_id, epoch, now, repaid)
end
return { 'loaded' }
