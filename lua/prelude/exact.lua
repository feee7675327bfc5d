-- Exact integers: balances and counters go up to 4e18, beyond what a Lua number, a double, holds exactly.
--
-- A value is a Lua number while it is between -2^53 and 2^53, without the ends, and a canonical decimal text beyond. It is
-- packed, answered and compared as it is: cmsgpack and Redis write such numbers as integers, never in parts or exponents.
-- Single amounts are at most 9e15 < 2^53: sums that cannot exceed one amount are plain Lua arithmetic, and say so.

local EXACT = 9007199254740992 -- 2^53
local LIMB = 1000000000

-- Only texts go through here, and numbers whose sum leaves the doubles' exact range.
local function add_limbs(a, b)
  -- High and low part, both with the value's sign. fmod is exact, and so is what remains divided.
  local function limbs(value)
    if type(value) == 'number' then
      local low = math.fmod(value, LIMB)
      return (value - low) / LIMB, low
    end
    local sign, digits = string.match(value, '^(-?)(%d+)$')
    sign = sign == '-' and -1 or 1
    return sign * tonumber(string.sub(digits, 1, -10)), sign * tonumber(string.sub(digits, -9))
  end

  local high_a, low_a = limbs(a)
  local high_b, low_b = limbs(b)
  local high, low = high_a + high_b, low_a + low_b
  -- Rounding keeps order, and 2^53 itself is exact: so this test is right even where the sum is rounded.
  local rounded = high * LIMB + low
  if rounded < EXACT and rounded > -EXACT then
    return rounded + 0 -- not -0
  end
  local sign = rounded < 0 and -1 or 1
  high, low = high * sign, low * sign
  if low < 0 then
    high, low = high - 1, low + LIMB
  elseif low >= LIMB then
    high, low = high + 1, low - LIMB
  end
  return string.format('%s%d%09d', sign < 0 and '-' or '', high, low)
end

-- A text never equals a number, not even its own: `a == a + 0` asks whether a is a number, without a call.
local function add(a, b)
  local sum = a + b
  if sum < EXACT and sum > -EXACT and a == a + 0 and b == b + 0 then
    return sum
  end
  return add_limbs(a, b)
end

local function subtract(a, b)
  local difference = a - b
  if difference < EXACT and difference > -EXACT and a == a + 0 and b == b + 0 then
    return difference
  end
  if b == b + 0 then
    return add_limbs(a, 0 - b)
  end
  return add_limbs(a, string.byte(b) == 45 and string.sub(b, 2) or '-' .. b)
end

local function less(a, b)
  if a == a + 0 and b == b + 0 then
    return a < b
  end
  local difference = subtract(a, b)
  if difference == difference + 0 then
    return difference < 0
  end
  return string.byte(difference) == 45
end

-- Whether two balances and an amount come to no more than a limit. Most often all of them are numbers, and their plain sum
-- says so exactly: where rounding could touch it, it is beyond every limit that is a number.
local function is_within(limit, a, b, amount)
  if a == a + 0 and b == b + 0 and limit == limit + 0 then
    return a + b + amount <= limit
  end
  return not less(limit, add(add(a, b), amount))
end
