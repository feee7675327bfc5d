-- Settle and release: the end of a reservation, with what was really used (rules 4, 5, 6, 7).
--
-- KEYS  header, account, reservation, outbox, deadlines
-- ARGV  epoch        that the caller has checked
--       account      its id
--       totals       packed, see ending.lua
--       detail       the record
--       member       of the deadlines: '<reservation>|<account>'
-- Answers, first match:
--   {'lost', epoch found}
--   {'ended', outcome, charge}    it had ended before; nothing was moved
--   {'cold'}                      the account must be loaded
--   {'settled', number of the entry}

local call = {
  header = KEYS[1], account = KEYS[2], reservation = KEYS[3], outbox = KEYS[4], deadlines = KEYS[5],
  epoch = ARGV[1], account_id = ARGV[2], member = ARGV[5],
}
local packed_totals, detail = ARGV[3], ARGV[4]

-- Gives back a part of what a lapse charged: debt first, then the lots, the last drawn first.
local function give_back(account, lapse, amount)
  local rest = amount
  local part = math.min(rest, lapse[LAPSE_DEBT])
  local moved = { lots = {}, debt = 0 - part }
  account[DEBT] = subtract(account[DEBT], part)
  rest = rest - part
  for i = #lapse[LAPSE_LOTS], 1, -1 do
    local id, charged = lapse[LAPSE_LOTS][i][1], 0 - lapse[LAPSE_LOTS][i][2]
    part = math.min(rest, charged)
    if part == 0 then
      break
    end
    local lot = find_lot(account, id)
    lot[LEFT] = add(lot[LEFT], part)
    moved.lots[#moved.lots + 1] = { id, part }
    rest = rest - part
  end
  return moved
end

-- What moves where one list of counts takes the place of another: no zeros.
local function differences(before, after)
  local moved = {}
  local function move(count, by)
    if by ~= 0 then
      moved[#moved + 1] = { count[COUNT_KEY], count[COUNT_START], by }
    end
  end
  for _, count in ipairs(after) do
    move(count, count[COUNT_AMOUNT] - amount_of(before, count[COUNT_KEY], count[COUNT_START], COUNT_AMOUNT))
  end
  for _, count in ipairs(before) do
    -- No count is zero, so zero says that it is not in the list.
    if amount_of(after, count[COUNT_KEY], count[COUNT_START], COUNT_AMOUNT) == 0 then
      move(count, 0 - count[COUNT_AMOUNT])
    end
  end
  return moved
end

-- A settle after a lapse moves the difference; its entry carries the total (rule 6).
local function correct(account, mark, totals, now)
  local lapse, more = mark[MARK_LAPSE], totals[TOTALS_CHARGE] - mark[MARK_CHARGE]
  local moved = { lots = {}, debt = 0 }
  if more >= 0 then
    charge_wallet(account, moved, more, now)
  else
    moved = give_back(account, lapse, 0 - more)
  end
  local counts = differences(lapse[LAPSE_COUNTS], totals[TOTALS_COUNTS])
  count_all(account, counts)
  local overrun = overruns(totals, lapse[LAPSE_RESERVED], lapse[LAPSE_LINES])
  return { tonumber(call.epoch), now, overrun, lapse[LAPSE_RESERVED], moved.lots, moved.debt, counts }
end

-- An id that is not known is charged at once; the ledger decides whether that was right (rules 7 and 24).
local function charge_unknown(account, totals, now)
  local moved = { lots = {}, debt = 0 }
  charge_wallet(account, moved, totals[TOTALS_CHARGE], now)
  count_all(account, totals[TOTALS_COUNTS])
  return { tonumber(call.epoch), now, false, 0, moved.lots, moved.debt, totals[TOTALS_COUNTS] }
end

if is_lost(call.header, call.epoch) then
  return lost(call.header)
end
local now = clock()
local hold, mark = read_reservation(call.reservation, now)
if mark and not mark[MARK_LAPSE] then
  return ended(mark)
end
local account = read_account(call.account)
if is_cold(account, call.epoch) then
  return { 'cold' }
end

local totals = cmsgpack.unpack(packed_totals)
if hold then
  return { 'settled', end_hold(call, account, hold, totals, packed_totals, detail, now) }
end
local entry = mark and correct(account, mark, totals, now) or charge_unknown(account, totals, now)
write_account(call.account, account)
mark_ended(call.reservation, totals, now)
local seq = next_seq(call.header)
write_entry(call.outbox, seq, call.account_id, entry, packed_totals, detail)
return { 'settled', seq }
