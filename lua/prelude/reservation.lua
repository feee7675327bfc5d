-- What the store keeps of one reservation: a string, packed; a hold while it is open, a mark once it has ended.

-- A hold: 'held' and these, then the slices, lot and part in the order they were drawn. The claim is kept as it came; the
-- metered amounts are a list, one a line, or `false` before the first heartbeat.
local HOLD_DEADLINE, HOLD_LATEST, HOLD_FITS, HOLD_DEBT, HOLD_METERED, HOLD_AMOUNTS = 2, 3, 4, 5, 6, 7
local HOLD_CLAIM, HOLD_DETAIL, FIRST_SLICE = 8, 9, 10
-- A claim: four fields, then the lines.
local CLAIM_VERSION, CLAIM_CHARGE, CLAIM_FLOOR, CLAIM_ADMISSION = 1, 2, 3, 4
local STRICT, AGAIN = 0, 2
local FIRST_LINE, LINE_SIZE = 5, 6
local LINE_KEY, LINE_START, LINE_END, LINE_AMOUNT, LINE_FLOOR, LINE_LIMIT = 0, 1, 2, 3, 4, 5
-- A mark: how it ended, its charge, when it is forgotten, and of a lapse what a settle that comes late must know:
-- {reserved, claim, moved debt, moved lots, counts}.
local MARK_OUTCOME, MARK_CHARGE, MARK_UNTIL, MARK_LAPSE = 1, 2, 3, 4

-- The hold and nothing, nothing and the mark, or nothing at all.
local function read_reservation(key, now)
  local packed = redis.call('GET', key)
  if not packed then
    return nil, nil
  end
  local kept = { cmsgpack.unpack(packed) }
  if kept[1] == 'held' then
    return kept, nil
  end
  -- Redis forgets marks by itself; the test is for callers with a clock of their own.
  return nil, now < kept[MARK_UNTIL] and kept or nil
end

local function ended(mark)
  return { 'ended', mark[MARK_OUTCOME], mark[MARK_CHARGE] }
end
