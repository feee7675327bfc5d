-- Endings: what settle, release and lapse move, mark and write (rules 4 to 7).
--
-- Totals are {id, outcome, charge, counts}, each count {key, start, amount}, none with zero.
local TOTALS_OUTCOME, TOTALS_CHARGE, TOTALS_COUNTS = 2, 3, 4
local COUNT_KEY, COUNT_START, COUNT_AMOUNT = 1, 2, 3

-- What the wallet is charged, lot by lot: no lot twice, none with zero, in the order they were drawn. All of one
-- ending comes to no more than one amount: plain arithmetic.
local function add_charge(moved, lot_id, part)
  if part == 0 then
    return
  end
  for _, lot in ipairs(moved.lots) do
    if lot[1] == lot_id then
      lot[2] = lot[2] - part
      return
    end
  end
  moved.lots[#moved.lots + 1] = { lot_id, 0 - part }
end

local function find_lot(account, id)
  local lots = account[LOTS]
  for _, lot in ipairs(lots) do
    if lot[ID] == id then
      return lot
    end
  end
  lots[#lots + 1] = { id, 0, 0, false, false }
  return lots[#lots]
end

-- Charges what nothing was held for: live lots first, the rest is debt.
local function charge_wallet(account, moved, charge, now)
  local rest = draw(account, charge, now, function(lot, part)
    add_charge(moved, lot[ID], part)
  end)
  account[DEBT] = add(account[DEBT], rest)
  moved.debt = moved.debt + rest
end

-- Charges a hold where it was held, gives the unused rest back to where it came from (invariant 2), and charges what
-- exceeds the hold in full (invariant 5).
local function charge_hold(account, hold, charge, now)
  local moved, rest = { lots = {}, debt = 0 }, charge
  for _, slice in ipairs(hold[HOLD_SLICES]) do
    local lot, held = find_lot(account, slice[1]), slice[2]
    local part = rest < held and rest or held
    lot[HELD] = subtract(lot[HELD], held)
    lot[LEFT] = add(lot[LEFT], held - part)
    add_charge(moved, slice[1], part)
    rest = rest - part
  end
  local held = hold[HOLD_DEBT]
  local part = rest < held and rest or held
  account[DEBT_HELD] = subtract(account[DEBT_HELD], held)
  account[DEBT] = add(account[DEBT], part)
  moved.debt = part
  charge_wallet(account, moved, rest - part, now)
  return moved
end

local function count_all(account, counts)
  for _, count in ipairs(counts) do
    move_counter(account[COUNTERS], count[COUNT_KEY], count[COUNT_START], count[COUNT_AMOUNT], 0)
  end
end

-- What a list says of a counter; zero where it says nothing.
local function amount_of(list, key, start, amount_at)
  for _, item in ipairs(list) do
    if item[1] == key and item[2] == start then
      return item[amount_at]
    end
  end
  return 0
end

-- Whether it used more than was held, of credit or of any counter.
local function overruns(totals, reserved, lines)
  if totals[TOTALS_CHARGE] > reserved then
    return true
  end
  for _, count in ipairs(totals[TOTALS_COUNTS]) do
    if count[COUNT_AMOUNT] > amount_of(lines, count[COUNT_KEY], count[COUNT_START], LINE_AMOUNT) then
      return true
    end
  end
  return false
end

-- Leaves a mark, so that no late command holds or charges this id again (rule 5, invariant 4).
local function mark_ended(key, totals, now, lapse)
  local mark = { totals[TOTALS_OUTCOME], totals[TOTALS_CHARGE], now + ENDED_MARK_MS, lapse or false }
  redis.call('SET', key, cmsgpack.pack(mark), 'PX', ENDED_MARK_MS)
end

-- Ends an open hold. `call` names the keys and arguments of the verb; returns the entry's number.
local function end_hold(call, account, hold, totals, packed_totals, detail, now)
  local claim = cmsgpack.unpack(hold[HOLD_CLAIM])
  local lines, reserved, counts = claim[CLAIM_LINES], claim[CLAIM_CHARGE], totals[TOTALS_COUNTS]
  local moved = charge_hold(account, hold, totals[TOTALS_CHARGE], now)
  for _, line in ipairs(lines) do
    move_counter(account[COUNTERS], line[LINE_KEY], line[LINE_START], 0, 0 - line[LINE_AMOUNT])
  end
  count_all(account, counts)

  local lapse = totals[TOTALS_OUTCOME] == 'lapsed' and { reserved, lines, moved.lots, moved.debt, counts }
  local overrun = overruns(totals, reserved, lines)
  local entry = { tonumber(call.epoch), now, overrun, reserved, moved.lots, moved.debt, counts }
  write_account(call.account, account)
  mark_ended(call.reservation, totals, now, lapse)
  redis.call('ZREM', call.deadlines, call.member)
  local seq = next_seq(call.header)
  write_entry(call.outbox, seq, call.account_id, entry, packed_totals, detail)
  return seq
end
