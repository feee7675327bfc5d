-- Reserve: claims credit and quota for one call, all or nothing (rules 1, 9, 12, 13).
--
-- KEYS  header, account, reservation, outbox, deadlines
-- ARGV  epoch        that the caller has checked
--       claim        packed, see reservation.lua; limits and overage are at most MAX_BALANCE
--       detail       the record if it lapses before any progress
--       member       of the deadlines: '<reservation>|<account>'
-- Answers, first match:
--   {'lost', epoch found}            the shard must be checked
--   {'held', deadline, fits, seen}   it is held, now or since before; fits is 1 or 0
--   {'ended', outcome, charge}       this id has ended
--   {'cold'}                         the account must be loaded
--   {'stale', snapshot}              the caller's version is not this one
--   {'outbox_full'}
--   {'window_moved', at}             build the lines for this moment
--   {'short', seen}                  it does not fit; nothing was taken
-- where seen is packed: balance, held of the wallet, then used and held of each line.

local account_key, reservation_key, outbox, deadlines = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local packed_claim, detail, member = ARGV[2], ARGV[3], ARGV[4]

-- The moment the lines must be built for, where theirs is another: the clock, or the start of a span that was seen
-- already. So a clock that steps back moves no window back, and lines built for the answer always pass.
local function moved_window(account, claim, now)
  local at, counters = now, {}
  for line = FIRST_LINE, #claim, LINE_SIZE do
    local counter = find_counter(account, claim[line])
    local start = counter and account[counter + START] or 0
    counters[line] = start
    if start > at then
      at = start
    end
  end
  for line = FIRST_LINE, #claim, LINE_SIZE do
    local start = claim[line + LINE_START]
    if start > at or at >= claim[line + LINE_END] or counters[line] > start then
      return at
    end
  end
  return nil
end

-- What the decision sees, before this claim: balance, held of the wallet, then used and held of each line; how long that
-- list is; whether wallet and every line have room, where what asks for nothing always fits and `cap` takes the place of
-- the limits; and whether the lines are not built for now, as far as that can be seen from each alone.
local function see(account, claim, now, cap)
  local held = account[DEBT_HELD]
  local balance = subtract(0, add(account[DEBT], held))
  for lot = FIRST_LOT, account[COUNTERS] - 1, LOT_SIZE do
    local of_lot = account[lot + HELD]
    if of_lot ~= 0 then
      held = add(held, of_lot)
    end
    if is_live(account, lot, now) then
      balance = add(balance, account[lot + LEFT])
    end
  end
  local charge = claim[CLAIM_CHARGE]
  local fits = charge == 0 or not less(add(balance, cap or account[OVERAGE]), charge)

  -- With room for five lines, because a table that grows is made anew each time.
  local seen, n = { balance, held, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, 2
  local is_moved, guess = false, account[COUNTERS]
  for line = FIRST_LINE, #claim, LINE_SIZE do
    local key, start, amount = claim[line], claim[line + LINE_START], claim[line + LINE_AMOUNT]
    local used, in_flight = 0, 0
    local counter = account[guess] == key and guess or find_counter(account, key)
    if counter then
      local known = account[counter + START]
      if known == start then
        used, in_flight = account[counter + USED], account[counter + IN_FLIGHT]
      end
      is_moved = is_moved or known > start
      guess = counter + COUNTER_SIZE
    end
    is_moved = is_moved or start > now or now >= claim[line + LINE_END]
    fits = fits and (amount == 0 or is_within(cap or claim[line + LINE_LIMIT], used, in_flight, amount))
    seen[n + 1], seen[n + 2] = used, in_flight
    n = n + 2
  end
  return seen, n, fits, is_moved
end

-- Sets the charge aside; returns from which lots, as a list of lot and part, and what is held of the debt.
local function hold_credit(account, charge, now)
  local slices, rest = draw(account, charge, now)
  for i = 1, #slices, 2 do
    local lot = slices[i]
    account[lot + HELD] = add(account[lot + HELD], slices[i + 1])
    slices[i] = account[lot + ID]
  end
  if rest ~= 0 then
    account[DEBT_HELD] = add(account[DEBT_HELD], rest)
  end
  return slices, rest
end

local claim = { cmsgpack.unpack(packed_claim) }
local hold, mark = read_reservation(reservation_key, now)
if mark then
  return { 'ended', mark[MARK_OUTCOME], mark[MARK_CHARGE] }
end
local account = read_account(account_key)
if hold then
  local seen, n = see(account, claim, now)
  return { 'held', hold[HOLD_DEADLINE], hold[HOLD_FITS], cmsgpack.pack(unpack(seen, 1, n)) }
end
if not account or account[EPOCH] ~= tonumber(epoch) then
  return { 'cold' }
end
local seen, n, fits, is_moved = see(account, claim, now)
-- A hold that is made again was decided long ago (rule 23).
if claim[CLAIM_ADMISSION] ~= AGAIN then
  if account[VERSION] ~= claim[CLAIM_VERSION] then
    return { 'stale', redis.call('HGET', account_key, 'snapshot') }
  end
  if redis.call('XLEN', outbox) > claim[CLAIM_BOUND] then
    return { 'outbox_full' }
  end
  local at = is_moved and moved_window(account, claim, now)
  if at then
    return { 'window_moved', at }
  end
end
-- By force it is held all the same, as far as a balance goes.
if not fits and (claim[CLAIM_ADMISSION] == STRICT or not select(3, see(account, claim, now, MAX_BALANCE))) then
  return { 'short', cmsgpack.pack(unpack(seen, 1, n)) }
end

local max_age_ms = claim[CLAIM_MAX_AGE_MS]
local deadline, is_fit = now + math.min(claim[CLAIM_DEADLINE_MS], max_age_ms), fits and 1 or 0
local slices, debt = hold_credit(account, claim[CLAIM_CHARGE], now)
local guess = account[COUNTERS]
for line = FIRST_LINE, #claim, LINE_SIZE do
  guess = move_counter(account, claim[line], claim[line + LINE_START], 0, claim[line + LINE_AMOUNT], guess)
end
local lines = (#claim - CLAIM_HEAD_SIZE) / LINE_SIZE
local head = cmsgpack.pack(lines, deadline, now + max_age_ms, is_fit, debt, 0, false, slices)
redis.call('HSET', account_key, 'state', cmsgpack.pack(unpack(account)))
redis.call('SET', reservation_key, head .. packed_claim .. detail)
redis.call('ZADD', deadlines, string.format('%d', deadline), member)
return { 'held', deadline, is_fit, cmsgpack.pack(unpack(seen, 1, n)) }
