-- Endings: what settle, release and lapse move, mark and write (rules 4 to 7).
--
-- Totals: three fields, then the counts; none is zero.
local TOTALS_OUTCOME, TOTALS_CHARGE = 2, 3
local FIRST_COUNT, COUNT_SIZE = 4, 3
local COUNT_KEY, COUNT_START, COUNT_AMOUNT = 0, 1, 2

-- What the wallet is charged, lot by lot: no lot twice, none with zero, in the order they were drawn. All of one
-- ending comes to no more than one amount: plain arithmetic.
local function add_charge(lots, id, part)
  for i = 1, #lots, 2 do
    if lots[i] == id then
      lots[i + 1] = lots[i + 1] - part
      return
    end
  end
  lots[#lots + 1], lots[#lots + 2] = id, 0 - part
end

-- Charges what nothing was held for, and adds it to what moved: live lots first; returns the rest, which is debt.
local function charge_wallet(account, lots, charge, now)
  if charge == 0 then
    return 0
  end
  local rest = draw(account, charge, now, function(lot, part)
    add_charge(lots, account[lot + ID], part)
  end)
  account[DEBT] = add(account[DEBT], rest)
  return rest
end

-- Charges a hold where it was held, gives the unused rest back to where it came from (invariant 2), and charges what
-- exceeds the hold in full (invariant 5). Returns the lots and the debt that moved.
local function charge_hold(account, hold, charge, now)
  local lots, rest = {}, charge
  for slice = FIRST_SLICE, #hold, 2 do
    local lot, held = find_lot(account, hold[slice]), hold[slice + 1]
    local part = rest < held and rest or held
    account[lot + HELD] = subtract(account[lot + HELD], held)
    account[lot + LEFT] = add(account[lot + LEFT], held - part)
    if part ~= 0 then
      add_charge(lots, hold[slice], part)
    end
    rest = rest - part
  end
  local held = hold[HOLD_DEBT]
  local part = rest < held and rest or held
  if held ~= 0 then
    account[DEBT_HELD] = subtract(account[DEBT_HELD], held)
    account[DEBT] = add(account[DEBT], part)
  end
  return lots, part + charge_wallet(account, lots, rest - part, now)
end

-- What the totals count of a counter; zero where they say nothing.
local function counted(totals, key, start)
  for count = FIRST_COUNT, #totals, COUNT_SIZE do
    if totals[count] == key and totals[count + COUNT_START] == start then
      return totals[count + COUNT_AMOUNT]
    end
  end
  return 0
end

-- Gives back what the lines hold and counts what was used; says whether any counter used more than it held.
local function count_hold(account, claim, totals)
  local overrun, met, guess = false, 0, lots_end(account)
  for line = FIRST_LINE, #claim, LINE_SIZE do
    local key, start, amount = claim[line], claim[line + LINE_START], claim[line + LINE_AMOUNT]
    -- Counts mostly come in the order of the lines, so the next one is looked at first.
    local count, used = FIRST_COUNT + met, nil
    if totals[count] == key and totals[count + COUNT_START] == start then
      used = totals[count + COUNT_AMOUNT]
    else
      used = counted(totals, key, start)
    end
    guess = move_counter(account, key, start, used, 0 - amount, guess)
    overrun = overrun or used > amount
    met = met + (used ~= 0 and COUNT_SIZE or 0)
  end
  if met == #totals - FIRST_COUNT + 1 then
    return overrun
  end
  -- A count that no line held: more than was held, so an overrun.
  for count = FIRST_COUNT, #totals, COUNT_SIZE do
    local key, start, is_held = totals[count], totals[count + COUNT_START], false
    for line = FIRST_LINE, #claim, LINE_SIZE do
      is_held = is_held or (claim[line] == key and claim[line + LINE_START] == start)
    end
    if not is_held then
      move_counter(account, key, start, totals[count + COUNT_AMOUNT], 0)
      overrun = true
    end
  end
  return overrun
end

-- Leaves a mark, so that no late command holds or charges this id again (rule 5, invariant 4).
local function mark_ended(key, totals, now, lapse)
  local mark = cmsgpack.pack(totals[TOTALS_OUTCOME], totals[TOTALS_CHARGE], now + ENDED_MARK_MS, lapse or false)
  redis.call('SET', key, mark, 'PX', ENDED_MARK_MS)
end

-- Ends an open hold. `call` names the keys and arguments of the verb; returns the entry's number.
local function end_hold(call, account, hold, totals, packed_totals, detail, now)
  local claim = { cmsgpack.unpack(hold[HOLD_CLAIM]) }
  local reserved, charge = claim[CLAIM_CHARGE], totals[TOTALS_CHARGE]
  local lots, debt = charge_hold(account, hold, charge, now)
  local overrun = count_hold(account, claim, totals) or charge > reserved

  redis.call('HSET', call.account, 'state', pack_account(account))
  local lapse = totals[TOTALS_OUTCOME] == 'lapsed'
    and { reserved, hold[HOLD_CLAIM], debt, lots, { unpack(totals, FIRST_COUNT) } }
  mark_ended(call.reservation, totals, now, lapse)
  redis.call('ZREM', call.deadlines, call.member)
  local seq = next_seq(call.header)
  local entry = cmsgpack.pack(tonumber(call.epoch), now, overrun, reserved, debt, lots, nil)
  write_ending(call.outbox, seq, call.account_id, entry, packed_totals, detail)
  return seq
end
