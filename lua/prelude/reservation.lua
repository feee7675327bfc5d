-- What the store keeps of one reservation: a string, packed; a hold while it is open, a mark once it has ended.

-- A hold: {'held', deadline, latest, fits, slices, slice of debt, metered, metered amounts, claim as it came, detail}.
-- Slices are {lot id, part} in the order they were drawn; metered amounts are `false` before the first heartbeat.
local HOLD_DEADLINE, HOLD_LATEST, HOLD_FITS, HOLD_SLICES, HOLD_DEBT = 2, 3, 4, 5, 6
local HOLD_METERED, HOLD_AMOUNTS, HOLD_CLAIM, HOLD_DETAIL = 7, 8, 9, 10
-- A claim: {version, charge, floor, forced, lines}, each line {key, start, end, amount, floor, limit}.
local CLAIM_VERSION, CLAIM_CHARGE, CLAIM_FLOOR, CLAIM_FORCED, CLAIM_LINES = 1, 2, 3, 4, 5
local LINE_KEY, LINE_START, LINE_END, LINE_AMOUNT, LINE_FLOOR, LINE_LIMIT = 1, 2, 3, 4, 5, 6
-- A mark: {outcome, charge, forgotten at, lapse}; the last is what a settle that comes late must know:
-- {reserved, lines, moved lots, moved debt, counts}.
local MARK_OUTCOME, MARK_CHARGE, MARK_UNTIL, MARK_LAPSE = 1, 2, 3, 4
local LAPSE_RESERVED, LAPSE_LINES, LAPSE_LOTS, LAPSE_DEBT, LAPSE_COUNTS = 1, 2, 3, 4, 5

-- The hold and nothing, nothing and the mark, or nothing at all.
local function read_reservation(key, now)
  local packed = redis.call('GET', key)
  if not packed then
    return nil, nil
  end
  local kept = cmsgpack.unpack(packed)
  if kept[1] == 'held' then
    return kept, nil
  end
  -- Redis forgets marks by itself; the test is for callers with a clock of their own.
  return nil, now < kept[MARK_UNTIL] and kept or nil
end

local function ended(mark)
  return { 'ended', mark[MARK_OUTCOME], mark[MARK_CHARGE] }
end
