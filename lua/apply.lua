-- Apply: follows the ledger by its next change, never skipped, never twice (rule 20).
--
-- KEYS  header, account, outbox
-- ARGV  epoch        that the caller has checked
--       account      its id
--       seq          the change's number
--       change       packed {snapshot, lots, moved lots, moved debt, moved counters, repay, withdrawals}: snapshot is
--                    {version, overage} or false; lots are {id, effective, expires} in their new order, or false;
--                    withdrawals are as in withdraw.lua
--       snapshot     what sidecars are to know from now on, as text, where the change has one
-- Answers, first match:
--   {'lost', epoch found}
--   {'at', number}    the store is at this number; only the next one is accepted
--   {'applied'}       or passed over, because the account is cold or was loaded later

local account_key, outbox = KEYS[2], KEYS[3]
local account_id, seq, change, snapshot_text = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]

-- The same account with its lots in a new order. Lots that left it are kept while they have a balance, since holds may
-- still give back to them.
local function reordered(account, order)
  local new, places = { unpack(account, 1, COUNTERS) }, {}
  new[COUNTERS] = FIRST_LOT
  for lot = FIRST_LOT, account[COUNTERS] - 1, LOT_SIZE do
    places[account[lot + ID]] = lot
  end
  local function list(id, left, held, effective, expires)
    for _, field in ipairs({ id, left, held, effective, expires }) do
      new[#new + 1] = field
    end
    new[COUNTERS] = new[COUNTERS] + LOT_SIZE
    places[id] = nil
  end
  for _, ordered in ipairs(order) do
    local id, effective, expires = unpack(ordered)
    local lot = places[id]
    list(id, lot and account[lot + LEFT] or 0, lot and account[lot + HELD] or 0, effective, expires)
  end
  for lot = FIRST_LOT, account[COUNTERS] - 1, LOT_SIZE do
    local id, left, held = account[lot + ID], account[lot + LEFT], account[lot + HELD]
    if places[id] and (left ~= 0 or held ~= 0) then
      list(id, left, held, false, false)
    end
  end
  for place = account[COUNTERS], #account do
    new[#new + 1] = account[place]
  end
  return new
end

local applied = tonumber(redis.call('HGET', header, 'applied_seq'))
if seq ~= applied + 1 then
  return { 'at', applied }
end
local account = read_account(account_key)
if not account or account[EPOCH] ~= tonumber(epoch) or seq <= account[AS_OF] then
  redis.call('HSET', header, 'applied_seq', ARGV[3])
  return { 'applied' }
end

local snapshot, order, moved_lots, moved_debt, moved_counters, may_repay, withdrawals = unpack(cmsgpack.unpack(change))
if snapshot then
  account[VERSION], account[OVERAGE] = unpack(snapshot)
end
if order then
  account = reordered(account, order)
end
for _, moved in ipairs(moved_lots) do
  local lot = find_lot(account, moved[1])
  account[lot + LEFT] = add(account[lot + LEFT], moved[2])
end
account[DEBT] = add(account[DEBT], moved_debt)
for _, moved in ipairs(moved_counters) do
  local key, start, by = unpack(moved)
  move_counter(account, key, start, by, 0)
end
local taken = withdraw_all(account, withdrawals)
local repaid = may_repay and repay(account, now)
local state = cmsgpack.pack(unpack(account))
-- From here on nothing stops half-way: a number without its change would be a change that is lost (rule 10).
redis.call('HSET', header, 'applied_seq', ARGV[3])
redis.call('HSET', account_key, 'state', state)
if snapshot then
  redis.call('HSET', account_key, 'snapshot', snapshot_text)
end
write_withdrawals(header, outbox, account_id, epoch, now, withdrawals, taken)
if repaid then
  write_credit(header, outbox, account_id, epoch, now, repaid.lots, repaid.debt)
end
return { 'applied' }
