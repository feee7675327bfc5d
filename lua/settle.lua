-- Settle and release: the end of a reservation, with what was really used (rules 4, 5, 6, 7).
--
-- KEYS  as all endings have them: ending.lua
-- ARGV  epoch, account, member: ending.lua
--       totals       packed, see ending.lua
--       detail       the record
-- Answers, first match:
--   {'lost', epoch found}
--   {'ended', outcome, charge}    it had ended before; nothing was moved
--   {'cold'}                      the account must be loaded
--   {'below_zero'}                a cumulative count would be; nothing was moved
--   {'settled', number of the entry}

local packed_totals, detail = ARGV[4], ARGV[5]

-- Whether a cumulative count would go down by more than it stands at (rule 33).
local function goes_below_zero(account, mark, totals)
  local lapsed = mark and mark[MARK_LAPSE][5] or {}
  for count = FIRST_COUNT, #totals, COUNT_SIZE do
    local key, start, by = totals[count], totals[count + COUNT_START], totals[count + COUNT_AMOUNT]
    if by < 0 then
      for i = 1, #lapsed, COUNT_SIZE do
        if lapsed[i] == key and lapsed[i + COUNT_START] == start then
          by = by - lapsed[i + COUNT_AMOUNT]
        end
      end
      local counter = find_counter(account, key)
      local stands = counter and account[counter + START] == start and account[counter + USED] or 0
      if less(add(stands, by), 0) then
        return true
      end
    end
  end
  return false
end

local hold, mark = read_reservation(reservation_key, now)
if mark and not mark[MARK_LAPSE] then
  return { 'ended', mark[MARK_OUTCOME], mark[MARK_CHARGE] }
end
local account = read_account(account_key)
if not account or account[EPOCH] ~= tonumber(epoch) then
  return { 'cold' }
end

local totals = { cmsgpack.unpack(packed_totals) }
if goes_below_zero(account, mark, totals) then
  return { 'below_zero' }
end
if hold then
  return { 'settled', end_hold(account, hold, totals, packed_totals, detail, now) }
end
-- What is left is rare: so what it needs is made only now.

-- A settle after a lapse moves the difference; its entry carries the total (rule 6).
local function correct(account, mark, totals, now)
  local reserved, lines, lapse_debt, lapse_lots, lapse_counts = unpack(mark[MARK_LAPSE])

  -- Gives back a part of what the lapse charged: debt first, then the lots, the last drawn first.
  local function give_back(amount)
    local part = math.min(amount, lapse_debt)
    local lots, rest = {}, amount - part
    account[DEBT] = subtract(account[DEBT], part)
    for i = #lapse_lots - 1, 1, -2 do
      local id, of_lot = lapse_lots[i], math.min(rest, 0 - lapse_lots[i + 1])
      if of_lot ~= 0 then
        local lot = find_lot(account, id)
        account[lot + LEFT] = add(account[lot + LEFT], of_lot)
        lots[#lots + 1], lots[#lots + 2] = id, of_lot
        rest = rest - of_lot
      end
    end
    return lots, 0 - part
  end

  -- What a list says of a counter; zero where it says nothing.
  local function amount_of(list, first, size, amount_at, key, start)
    for i = first, #list, size do
      if list[i] == key and list[i + 1] == start then
        return list[i + amount_at]
      end
    end
    return 0
  end

  local counts, overrun = {}, totals[TOTALS_CHARGE] > reserved
  local function count(key, start, by)
    if by ~= 0 then
      counts[#counts + 1], counts[#counts + 2], counts[#counts + 3] = key, start, by
      move_counter(account, key, start, by, 0)
    end
  end
  -- The new counts take the place of the lapse's; none is zero, so zero says that it is not in the list.
  local function recount()
    for i = FIRST_COUNT, #totals, COUNT_SIZE do
      local key, start, amount = totals[i], totals[i + COUNT_START], totals[i + COUNT_AMOUNT]
      count(key, start, amount - amount_of(lapse_counts, 1, COUNT_SIZE, COUNT_AMOUNT, key, start))
      overrun = overrun or amount > amount_of(lines, 1, LINE_SIZE, LINE_AMOUNT, key, start)
    end
    for i = 1, #lapse_counts, COUNT_SIZE do
      local key, start = lapse_counts[i], lapse_counts[i + COUNT_START]
      if counted(totals, key, start) == 0 then
        count(key, start, 0 - lapse_counts[i + COUNT_AMOUNT])
      end
    end
  end

  local more, lots, debt, beyond = totals[TOTALS_CHARGE] - mark[MARK_CHARGE], {}, 0, 0
  if more >= 0 then
    debt, beyond = charge_wallet(account, lots, more, now)
  else
    lots, debt = give_back(0 - more)
  end
  recount()
  local cut = cut_totals(account, totals, beyond, counts)
  return cmsgpack.pack(account[EPOCH], now, overrun, reserved, debt, lots, counts, cut), cut
end

-- An id that is not known is charged at once; the ledger decides whether that was right (rules 7 and 24).
local function charge_unknown(account, totals, now)
  local lots = {}
  local debt, beyond = charge_wallet(account, lots, totals[TOTALS_CHARGE], now)
  for count = FIRST_COUNT, #totals, COUNT_SIZE do
    move_counter(account, totals[count], totals[count + COUNT_START], totals[count + COUNT_AMOUNT], 0)
  end
  local cut = cut_totals(account, totals, beyond)
  return cmsgpack.pack(account[EPOCH], now, false, 0, debt, lots, nil, cut), cut
end

local entry, cut
if mark then
  entry, cut = correct(account, mark, totals, now)
else
  entry, cut = charge_unknown(account, totals, now)
end
if cut then
  packed_totals = cmsgpack.pack(unpack(totals))
end
return { 'settled', write_ended(account, totals, packed_totals, detail, entry, now) }
