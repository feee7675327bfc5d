-- The live state of one account, kept packed in the field `state` of its hash, beside the text of its `snapshot`.
--
-- It is one flat list, because tables are what costs most in a call: seven fields, then the lots, then the counters. A lot
-- or a counter is known by the place where it begins; its fields are counted from there.

-- `COUNTERS` is where the counters begin.
local EPOCH, VERSION, OVERAGE, AS_OF, DEBT, DEBT_HELD, COUNTERS = 1, 2, 3, 4, 5, 6, 7
-- Lots: first those that may be drawn, in their order; then those of which only a balance is left, which are effective
-- `false`. They expire `false` where they never do.
local FIRST_LOT, LOT_SIZE = 8, 5
local ID, LEFT, HELD, EFFECTIVE, EXPIRES = 0, 1, 2, 3, 4
-- Counters: each in its latest span.
local COUNTER_SIZE = 4
local KEY, START, USED, IN_FLIGHT = 0, 1, 2, 3

-- One of another epoch is cold, as good as unknown, until it is loaded (rule 22).
local function read_account(key)
  local state = redis.call('HGET', key, 'state')
  return state and { cmsgpack.unpack(state) }
end

local function is_live(account, lot, now)
  local effective, expires = account[lot + EFFECTIVE], account[lot + EXPIRES]
  return effective and effective <= now and (not expires or now < expires)
end

-- Takes an amount from the live lots, in their order; returns from which, as a list of lot and part, and what they lack.
-- Parts and rest never exceed the amount, which is a single one: plain arithmetic.
local function draw(account, amount, now)
  local drawn, n, rest = {}, 0, amount
  for lot = FIRST_LOT, account[COUNTERS] - 1, LOT_SIZE do
    if rest == 0 then
      break
    end
    local left = account[lot + LEFT]
    if is_live(account, lot, now) and less(0, left) then
      local part = less(left, rest) and left or rest
      account[lot + LEFT] = subtract(left, part)
      drawn[n + 1], drawn[n + 2] = lot, part
      n, rest = n + 2, rest - part
    end
  end
  return drawn, rest
end

-- Where a counter is, or nothing.
local function find_counter(account, key)
  for counter = account[COUNTERS], #account, COUNTER_SIZE do
    if account[counter] == key then
      return counter
    end
  end
  return nil
end

-- The stored start never goes back (rule 12): what belongs to an earlier span is over in the store, and counted by the
-- ledger alone. Holds of a span that the store no longer knows went with it: nothing is taken back.
-- `guess`: where the counter is if they are in the order in which they are asked for, as they mostly are, since the same
-- calls made them. Returns the guess for the next.
local function move_counter(account, key, start, used, held, guess)
  local counter = account[guess] == key and guess or find_counter(account, key)
  local known = counter and account[counter + START]
  if known == start then
    if used ~= 0 then
      account[counter + USED] = add(account[counter + USED], used)
    end
    account[counter + IN_FLIGHT] = add(account[counter + IN_FLIGHT], held)
  elseif not known or known < start then
    counter = counter or #account + 1
    account[counter + KEY], account[counter + START] = key, start
    account[counter + USED], account[counter + IN_FLIGHT] = used, less(held, 0) and 0 or held
  end
  return counter + COUNTER_SIZE
end
