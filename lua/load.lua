-- Load: makes a cold account live from what the ledger knows, and keeps what is held (rule 22).
--
-- KEYS  header, account, outbox
-- ARGV  epoch        that the caller has checked
--       account      its id
--       image        packed {as_of, version, overage, lots, debt, counters, withdrawals}: a lot is {id, balance,
--                    effective, expires}, in the order they are drawn; a counter {key, start, used}; a withdrawal as in
--                    withdraw.lua
--       snapshot     what sidecars cache, as text
-- Answers, first match:
--   {'lost', epoch found}
--   {'warm'}      it is live already; nothing was moved
--   {'behind'}    the image is older than what the store has applied
--   {'loaded'}

local account_key, outbox = KEYS[2], KEYS[3]
local account_id, image, snapshot = ARGV[2], ARGV[3], ARGV[4]

-- Of each balance, calls in flight hold a part already; a lot that the ledger no longer lists is kept while they do.
local function load_lots(account, known, balances)
  local held = {}
  for lot = FIRST_LOT, known[COUNTERS] - 1, LOT_SIZE do
    held[known[lot + ID]] = known[lot + HELD]
  end
  local function list(id, left, held_of, effective, expires)
    for _, field in ipairs({ id, left, held_of, effective, expires }) do
      account[#account + 1] = field
    end
    account[COUNTERS] = account[COUNTERS] + LOT_SIZE
    held[id] = nil
  end
  for _, balance_of in ipairs(balances) do
    local id, left, effective, expires = unpack(balance_of)
    local held_of = held[id] or 0
    list(id, subtract(left, held_of), held_of, effective, expires)
  end
  for lot = FIRST_LOT, known[COUNTERS] - 1, LOT_SIZE do
    local id = known[lot + ID]
    if held[id] and held[id] ~= 0 then
      list(id, subtract(0, held[id]), held[id], false, false)
    end
  end
end

-- A span later than any the ledger has counted in has used nothing, but its start does not go back, and its holds are
-- there.
local function load_counters(account, known, balances)
  for counter = known[COUNTERS], #known, COUNTER_SIZE do
    move_counter(account, known[counter], known[counter + START], 0, known[counter + IN_FLIGHT])
  end
  for _, balance_of in ipairs(balances) do
    local key, start, used = unpack(balance_of)
    move_counter(account, key, start, used, 0)
  end
end

local known = read_account(account_key)
if known and known[EPOCH] == tonumber(epoch) then
  return { 'warm' }
end
local as_of, version, overage, lots, debt, counters, withdrawals = unpack(cmsgpack.unpack(image))
if as_of < tonumber(redis.call('HGET', header, 'applied_seq')) then
  return { 'behind' }
end

known = known or { [DEBT_HELD] = 0, [COUNTERS] = FIRST_LOT }
local account = { tonumber(epoch), version, overage, as_of, debt, known[DEBT_HELD], FIRST_LOT }
load_lots(account, known, lots)
load_counters(account, known, counters)
local taken = withdraw_all(account, withdrawals)
local repaid = repay(account, now)
redis.call('HSET', account_key, 'state', cmsgpack.pack(unpack(account)), 'snapshot', snapshot)
write_withdrawals(header, outbox, account_id, epoch, now, withdrawals, taken)
if repaid then
  write_credit(header, outbox, account_id, epoch, now, repaid.lots, repaid.debt)
end
return { 'loaded' }
