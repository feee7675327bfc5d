-- What the store keeps of one reservation: a string; a hold while it is open, a mark once it has ended.

-- A claim: seven fields, then the lines. The bound is how long the outbox may be.
local CLAIM_VERSION, CLAIM_CHARGE, CLAIM_FLOOR, CLAIM_ADMISSION = 1, 2, 3, 4
local CLAIM_DEADLINE_MS, CLAIM_MAX_AGE_MS, CLAIM_BOUND = 5, 6, 7
local STRICT, AGAIN = 0, 2
local FIRST_LINE, LINE_SIZE = 8, 6
local LINE_KEY, LINE_START, LINE_END, LINE_AMOUNT, LINE_FLOOR, LINE_LIMIT = 0, 1, 2, 3, 4, 5
-- A hold, as it is stored: packed, the number of its lines (so that its first byte says how much is to be unpacked, and is
-- no mark's), when it lapses, when it does so at the latest, whether it fits, what of the debt it holds, what was metered,
-- a list of the metered amounts, one a line, or `false` before the first heartbeat, and the list of its slices, lot and
-- part in the order they were drawn; then the claim and the detail as the reserve brought them. The detail is long and only
-- a lapse asks for it: it is not unpacked. A heartbeat packs head and claim anew, and puts its own detail in place of it.
local HOLD_HEAD_SIZE, CLAIM_HEAD_SIZE = 8, 7
-- As it is read: the string, where in it the detail begins (-1: at its end), and what was packed.
local HOLD_STRING, HOLD_DETAIL_AT, HOLD_LINES, HOLD_DEADLINE, HOLD_LATEST, HOLD_FITS = 1, 2, 3, 4, 5, 6
local HOLD_DEBT, HOLD_METERED, HOLD_AMOUNTS, HOLD_SLICES = 7, 8, 9, 10
local HOLD_CHARGE, HOLD_FLOOR, HOLD_FIRST_LINE = 12, 13, 18
-- A mark: how it ended, its charge, when it is forgotten, and of a lapse what a settle that comes late must know:
-- {reserved, lines, moved debt, moved lots, counts}.
local MARK_OUTCOME, MARK_CHARGE, MARK_UNTIL, MARK_LAPSE = 1, 2, 3, 4

-- The hold and nothing, nothing and the mark, or nothing at all.
local function read_reservation(key, now)
  local stored = redis.call('GET', key)
  if not stored then
    return nil, nil
  end
  local lines = string.byte(stored)
  if lines <= MAX_LINES then
    local size = HOLD_HEAD_SIZE + CLAIM_HEAD_SIZE + lines * LINE_SIZE
    return { stored, cmsgpack.unpack_limit(stored, size) }, nil
  end
  local mark = { cmsgpack.unpack(stored) }
  -- Redis forgets marks by itself; the test is for callers with a clock of their own.
  return nil, now < mark[MARK_UNTIL] and mark or nil
end
