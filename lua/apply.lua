-- Apply: follows the ledger by its next change, never skipped, never twice (rule 20).
--
-- KEYS  header, account, outbox
-- ARGV  epoch        that the caller has checked
--       account      its id
--       seq          the change's number
--       change       packed {snapshot, lots, moved lots, moved debt, moved counters, repay}: snapshot is
--                    {version, overage} or false; lots are {id, effective, expires} in their new order, or false
--       snapshot     what sidecars are to know from now on, as text, where the change has one
-- Answers, first match:
--   {'lost', epoch found}
--   {'at', number}    the store is at this number; only the next one is accepted
--   {'applied'}       or passed over, because the account is cold or was loaded later

local header, account_key, outbox = KEYS[1], KEYS[2], KEYS[3]
local epoch, account_id, seq, change, snapshot_text = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]

-- Lots that left the order are kept while they have a balance, since holds may still give back to them.
local function reorder(account, order)
  local known, lots = {}, {}
  for _, lot in ipairs(account[LOTS]) do
    known[lot[ID]] = lot
  end
  for _, ordered in ipairs(order) do
    local id, effective, expires = unpack(ordered)
    local lot = known[id] or { id, 0, 0 }
    lots[#lots + 1] = { id, lot[LEFT], lot[HELD], effective, expires }
    known[id] = nil
  end
  for _, lot in ipairs(account[LOTS]) do
    if known[lot[ID]] and (lot[LEFT] ~= 0 or lot[HELD] ~= 0) then
      lots[#lots + 1] = { lot[ID], lot[LEFT], lot[HELD], false, false }
    end
  end
  account[LOTS] = lots
end

if is_lost(header, epoch) then
  return lost(header)
end
local now = clock()
local applied = tonumber(redis.call('HGET', header, 'applied_seq'))
if seq ~= applied + 1 then
  return { 'at', applied }
end
local account = read_account(account_key)
redis.call('HSET', header, 'applied_seq', ARGV[3])
if is_cold(account, epoch) or seq <= account[AS_OF] then
  return { 'applied' }
end

local snapshot, order, moved_lots, moved_debt, moved_counters, may_repay = unpack(cmsgpack.unpack(change))
if snapshot then
  account[VERSION], account[OVERAGE] = unpack(snapshot)
end
if order then
  reorder(account, order)
end
for _, moved in ipairs(moved_lots) do
  local lot = find_lot(account, moved[1])
  lot[LEFT] = add(lot[LEFT], moved[2])
end
account[DEBT] = add(account[DEBT], moved_debt)
count_all(account, moved_counters)
local repaid = may_repay and repay(account, now)
write_account(account_key, account)
if snapshot then
  redis.call('HSET', account_key, 'snapshot', snapshot_text)
end
if repaid then
  write_repaid(header, outbox, account_id, epoch, now, repaid)
end
return { 'applied' }
