-- The live state of one account, kept packed in the field `state` of its hash, beside the text of its `snapshot`.
--
-- Everything is an array, because names would be packed and unpacked again in every call.

-- {epoch, version, overage, as_of, debt, debt held, lots, counters by key}
local EPOCH, VERSION, OVERAGE, AS_OF, DEBT, DEBT_HELD, LOTS, COUNTERS = 1, 2, 3, 4, 5, 6, 7, 8
-- A lot: {id, left, held, effective at, expires at}. First those that may be drawn, in their order; then those of which
-- only a balance is left, with `false` for effective. Expires is `false` where it never does.
local ID, LEFT, HELD, EFFECTIVE, EXPIRES = 1, 2, 3, 4, 5
-- A counter in its latest span: {start, used, held}.
local START, USED, COUNTER_HELD = 1, 2, 3

local function read_account(key)
  local state = redis.call('HGET', key, 'state')
  return state and cmsgpack.unpack(state)
end

local function write_account(key, account)
  redis.call('HSET', key, 'state', cmsgpack.pack(account))
end

-- An account of another epoch is as good as unknown until it is loaded (rule 22).
local function is_cold(account, epoch)
  return not account or account[EPOCH] ~= tonumber(epoch)
end

local function is_live(lot, now)
  local effective, expires = lot[EFFECTIVE], lot[EXPIRES]
  return effective and effective <= now and (not expires or now < expires)
end

local function balance(account, now)
  local sum = subtract(subtract(0, account[DEBT]), account[DEBT_HELD])
  for _, lot in ipairs(account[LOTS]) do
    if is_live(lot, now) then
      sum = add(sum, lot[LEFT])
    end
  end
  return sum
end

-- Takes an amount from the live lots, in their order, and says by `take(lot, part)` from which; returns what they lack.
-- Parts and rest never exceed the amount: plain arithmetic.
local function draw(account, amount, now, take)
  local rest = amount
  for _, lot in ipairs(account[LOTS]) do
    if rest == 0 then
      break
    end
    if is_live(lot, now) and less(0, lot[LEFT]) then
      local part = min(lot[LEFT], rest)
      lot[LEFT] = subtract(lot[LEFT], part)
      take(lot, part)
      rest = rest - part
    end
  end
  return rest
end

-- The stored start never goes back (rule 12): what belongs to an earlier span is over in the store, and counted by the
-- ledger alone. Holds of a span that the store no longer knows went with it: nothing is taken back.
local function move_counter(counters, key, start, used, held)
  local counter = counters[key]
  if not counter or counter[START] < start then
    counters[key] = { start, used, less(held, 0) and 0 or held }
  elseif counter[START] == start then
    counter[USED] = add(counter[USED], used)
    counter[COUNTER_HELD] = add(counter[COUNTER_HELD], held)
  end
end
