-- Endings: what settle, release and lapse move, mark and write (rules 4 to 7). All of them have these
--
-- KEYS  header, account, reservation, outbox, deadlines
-- ARGV  epoch        that the caller has checked
--       account      its id
--       member       of the deadlines: '<reservation>|<account>'
--
-- and what each has of its own.

local account_key, reservation_key, outbox, deadlines = unpack(KEYS, 2)
local account_id, member = ARGV[2], ARGV[3]

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

-- Charges what nothing was held for, and adds it to what moved: live lots first. Returns the rest, which is debt, and what
-- would be owed beyond the bound, and is not charged.
local function charge_wallet(account, lots, charge, now)
  if charge == 0 then
    return 0, 0
  end
  local drawn, rest = draw(account, charge, now)
  for i = 1, #drawn, 2 do
    add_charge(lots, account[drawn[i] + ID], drawn[i + 1])
  end
  if rest == 0 then
    return 0, 0
  end
  local debt, held, beyond = add(account[DEBT], rest), account[DEBT_HELD], 0
  -- Sums within the doubles' exact range are far below the bound: `a == a + 0` asks for that, without a call.
  if debt ~= debt + 0 or held ~= held + 0 then
    local over = subtract(add(debt, held), MAX_DEBT)
    if less(0, over) then
      beyond = less(over, rest) and over or rest
      debt = subtract(debt, beyond)
    end
  end
  account[DEBT] = debt
  return rest - beyond, beyond
end

-- Charges a hold where it was held, gives the unused rest back to where it came from (invariant 2), and charges what
-- exceeds the hold, too (invariant 5). Returns the lots and the debt that moved, and what is not charged.
local function charge_hold(account, hold, charge, now)
  local lots, slices, rest = {}, hold[HOLD_SLICES], charge
  for slice = 1, #slices, 2 do
    local lot, held = find_lot(account, slices[slice]), slices[slice + 1]
    local part = rest < held and rest or held
    account[lot + HELD] = subtract(account[lot + HELD], held)
    account[lot + LEFT] = add(account[lot + LEFT], held - part)
    if part ~= 0 then
      add_charge(lots, slices[slice], part)
    end
    rest = rest - part
  end
  local held = hold[HOLD_DEBT]
  local part = rest < held and rest or held
  if held ~= 0 then
    account[DEBT_HELD] = subtract(account[DEBT_HELD], held)
    account[DEBT] = add(account[DEBT], part)
  end
  local debt, beyond = charge_wallet(account, lots, rest - part, now)
  return lots, part + debt, beyond
end

-- Takes out of the totals what they cannot take (rule 11): of the charge, and of each counter that this ending took beyond
-- its bound. Returns that, as the entry says it, or nothing; `moved` lists what the counters moved by, where the totals do
-- not say it.
local function cut_totals(account, totals, beyond, moved)
  local is_cut = beyond ~= 0
  for counter = account[COUNTERS], #account, COUNTER_SIZE do
    local used = account[counter + USED]
    -- Texts are beyond the doubles' exact range: the first test is for them, without a call.
    is_cut = is_cut or (used ~= used + 0 and less(MAX_BALANCE, used))
  end
  if not is_cut then
    return nil
  end

  -- Rare: what it needs is made inside.
  local cut = beyond ~= 0 and { beyond } or nil
  totals[TOTALS_CHARGE] = totals[TOTALS_CHARGE] - beyond

  local function find(list, first, key, start)
    for i = first, #list, COUNT_SIZE do
      if list[i] == key and list[i + COUNT_START] == start then
        return i
      end
    end
    return nil
  end

  local function take_out(list, first, key, start, amount)
    local i = find(list, first, key, start)
    if i then
      list[i + COUNT_AMOUNT] = list[i + COUNT_AMOUNT] - amount
      if list[i + COUNT_AMOUNT] == 0 then
        for _ = 1, COUNT_SIZE do
          table.remove(list, i)
        end
      end
    end
  end

  local function cut_counter(counter, over)
    local key, start = account[counter], account[counter + START]
    local list, first = moved or totals, moved and 1 or FIRST_COUNT
    local i = find(list, first, key, start)
    local by = i and list[i + COUNT_AMOUNT] or 0
    if by <= 0 then
      return
    end
    local amount = less(over, by) and over or by
    account[counter + USED] = subtract(account[counter + USED], amount)
    take_out(totals, FIRST_COUNT, key, start, amount)
    if moved then
      take_out(moved, 1, key, start, amount)
    end
    cut = cut or { 0 }
    cut[#cut + 1], cut[#cut + 2], cut[#cut + 3] = key, start, amount
  end

  for counter = account[COUNTERS], #account, COUNTER_SIZE do
    local over = subtract(account[counter + USED], MAX_BALANCE)
    if less(0, over) then
      cut_counter(counter, over)
    end
  end
  return cut
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
local function count_hold(account, hold, totals)
  local overrun, met, guess = false, 0, account[COUNTERS]
  for line = HOLD_FIRST_LINE, #hold, LINE_SIZE do
    local key, start, amount = hold[line], hold[line + LINE_START], hold[line + LINE_AMOUNT]
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
  -- A count that no line held: more than was held, so an overrun, unless it goes down.
  for count = FIRST_COUNT, #totals, COUNT_SIZE do
    local key, start, is_held = totals[count], totals[count + COUNT_START], false
    for line = HOLD_FIRST_LINE, #hold, LINE_SIZE do
      is_held = is_held or (hold[line] == key and hold[line + LINE_START] == start)
    end
    if not is_held then
      local amount = totals[count + COUNT_AMOUNT]
      move_counter(account, key, start, amount, 0)
      overrun = overrun or amount > 0
    end
  end
  return overrun
end

-- Writes what has changed, leaves a mark, so that no late command holds or charges this id again (rule 5, invariant 4),
-- and tells of it in the outbox; returns the entry's number.
local function write_ended(account, totals, packed_totals, detail, entry, now, lapse)
  local mark = cmsgpack.pack(totals[TOTALS_OUTCOME], totals[TOTALS_CHARGE], now + ENDED_MARK_MS, lapse or false)
  redis.call('HSET', account_key, 'state', cmsgpack.pack(unpack(account)))
  redis.call('SET', reservation_key, mark, 'PX', ENDED_MARK_PX)
  redis.call('ZREM', deadlines, member)
  local seq = next_seq(header)
  local id = string.format('%d-0', seq)
  redis.call('XADD', outbox, id, 'account', account_id, 'entry', entry, 'totals', packed_totals, 'detail', detail)
  return seq
end

-- Ends an open hold; returns the entry's number.
local function end_hold(account, hold, totals, packed_totals, detail, now)
  local reserved, charge = hold[HOLD_CHARGE], totals[TOTALS_CHARGE]
  local lots, debt, beyond = charge_hold(account, hold, charge, now)
  local overrun = count_hold(account, hold, totals) or charge > reserved
  local cut = cut_totals(account, totals, beyond)
  if cut then
    packed_totals = cmsgpack.pack(unpack(totals))
  end
  local entry = cmsgpack.pack(account[EPOCH], now, overrun, reserved, debt, lots, nil, cut)
  local lapse = totals[TOTALS_OUTCOME] == 'lapsed'
    and { reserved, { unpack(hold, HOLD_FIRST_LINE) }, debt, lots, { unpack(totals, FIRST_COUNT) } }
  return write_ended(account, totals, packed_totals, detail, entry, now, lapse)
end
