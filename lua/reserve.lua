-- Reserve: claims credit and quota for one call, all or nothing (rules 1, 9, 12, 13).
--
-- KEYS  header, account, reservation, outbox, deadlines
-- ARGV  epoch        that the caller has checked
--       claim        packed, see reservation.lua; limits and overage are at most MAX_BALANCE
--       detail       the record if it lapses before any progress
--       member       of the deadlines: '<reservation>|<account>'
--       deadline_ms, max_age_ms
--       bound        how long the outbox may be
-- Answers, first match:
--   {'lost', epoch found}            the shard must be checked
--   {'held', deadline, fits, seen…}  it is held, now or since before; fits is 1 or 0
--   {'ended', outcome, charge}       this id has ended
--   {'cold'}                         the account must be loaded
--   {'stale', snapshot}              the caller's version is not this one
--   {'outbox_full'}
--   {'window_moved', at}             build the lines for this moment
--   {'short', seen…}                 it does not fit; nothing was taken
-- where seen… is balance, held of the wallet, then used and held of each line.

local header, account_key, reservation_key, outbox, deadlines = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local epoch, packed_claim, detail, member = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local deadline_ms, max_age_ms, bound = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])

-- The moment the lines must be built for, where theirs is another: the clock, or the start of a span that was seen
-- already. So a clock that steps back moves no window back, and lines built for the answer always pass.
local function moved_window(counters, lines, now)
  local at = now
  for _, line in ipairs(lines) do
    local counter = counters[line[LINE_KEY]]
    if counter and counter[START] > at then
      at = counter[START]
    end
  end
  for _, line in ipairs(lines) do
    local counter, start = counters[line[LINE_KEY]], line[LINE_START]
    if start > at or at >= line[LINE_END] or (counter and counter[START] > start) then
      return at
    end
  end
  return nil
end

-- Appends to the answer what the decision sees, before this claim.
local function see(answer, account, lines, now)
  local held = account[DEBT_HELD]
  for _, lot in ipairs(account[LOTS]) do
    held = add(held, lot[HELD])
  end
  local n = #answer
  answer[n + 1], answer[n + 2] = balance(account, now), held
  n = n + 2
  for _, line in ipairs(lines) do
    local counter = account[COUNTERS][line[LINE_KEY]]
    if counter and counter[START] == line[LINE_START] then
      answer[n + 1], answer[n + 2] = counter[USED], counter[COUNTER_HELD]
    else
      answer[n + 1], answer[n + 2] = 0, 0
    end
    n = n + 2
  end
  return answer
end

-- Whether wallet and every line have room. What asks for nothing always fits. `seen` is an answer's tail from `from` on.
local function has_room(seen, from, claim, overage, cap)
  local charge = claim[CLAIM_CHARGE]
  if charge ~= 0 and less(add(seen[from], overage), charge) then
    return false
  end
  local at = from + 2
  for _, line in ipairs(claim[CLAIM_LINES]) do
    local amount = line[LINE_AMOUNT]
    if amount ~= 0 and less(cap or line[LINE_LIMIT], add(add(seen[at], seen[at + 1]), amount)) then
      return false
    end
    at = at + 2
  end
  return true
end

-- Sets the charge aside; returns the slices of lots and the slice of debt.
local function hold_credit(account, charge, now)
  local slices = {}
  local rest = draw(account, charge, now, function(lot, part)
    lot[HELD] = add(lot[HELD], part)
    slices[#slices + 1] = { lot[ID], part }
  end)
  account[DEBT_HELD] = add(account[DEBT_HELD], rest)
  return slices, rest
end

if is_lost(header, epoch) then
  return lost(header)
end
local now = clock()
local claim = cmsgpack.unpack(packed_claim)
local lines = claim[CLAIM_LINES]
local hold, mark = read_reservation(reservation_key, now)
if mark then
  return ended(mark)
end
local account = read_account(account_key)
if hold then
  return see({ 'held', hold[HOLD_DEADLINE], hold[HOLD_FITS] }, account, lines, now)
end
if is_cold(account, epoch) then
  return { 'cold' }
end
if account[VERSION] ~= claim[CLAIM_VERSION] then
  return { 'stale', redis.call('HGET', account_key, 'snapshot') }
end
if redis.call('XLEN', outbox) > bound then
  return { 'outbox_full' }
end
local at = moved_window(account[COUNTERS], lines, now)
if at then
  return { 'window_moved', at }
end
local answer = see({ 'held', now + math.min(deadline_ms, max_age_ms), 1 }, account, lines, now)
if not has_room(answer, 4, claim, account[OVERAGE]) then
  if claim[CLAIM_FORCED] == 0 or not has_room(answer, 4, claim, MAX_BALANCE, MAX_BALANCE) then
    return see({ 'short' }, account, lines, now)
  end
  answer[3] = 0
end

local deadline = answer[2]
local slices, debt = hold_credit(account, claim[CLAIM_CHARGE], now)
for _, line in ipairs(lines) do
  move_counter(account[COUNTERS], line[LINE_KEY], line[LINE_START], 0, line[LINE_AMOUNT])
end
hold = { 'held', deadline, now + max_age_ms, answer[3], slices, debt, 0, false, packed_claim, detail }
redis.call('HSET', account_key, 'state', cmsgpack.pack(account))
redis.call('SET', reservation_key, cmsgpack.pack(hold))
redis.call('ZADD', deadlines, deadline, member)
return answer
