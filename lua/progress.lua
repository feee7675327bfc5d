-- Progress: the heartbeat of a hold, with what has been metered so far (rule 3). It needs no warm account.
--
-- KEYS  header, reservation, deadlines
-- ARGV  epoch        that the caller has checked
--       metered      packed charge, {amount, …}: one a line of the hold in their order
--       detail       the record if it lapses from now on
--       member       of the deadlines: '<reservation>|<account>'
--       deadline_ms
-- Answers, first match:
--   {'lost', epoch found}, {'unknown'}, {'ended', outcome, charge}
--   {'held', deadline}    held on; an overdue hold that no sweeper has ended yet too

local reservation_key, deadlines = KEYS[2], KEYS[3]
local metered, detail, member, deadline_ms = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

-- What was metered never goes back, so that heartbeats may arrive in any order.
local function note_amounts(hold, amounts)
  local noted = hold[HOLD_AMOUNTS] or {}
  for i, amount in ipairs(amounts) do
    noted[i] = math.max(noted[i] or 0, amount)
  end
  hold[HOLD_AMOUNTS] = noted
end

local hold, mark = read_reservation(reservation_key, now)
if mark then
  return { 'ended', mark[MARK_OUTCOME], mark[MARK_CHARGE] }
end
if not hold then
  return { 'unknown' }
end

local charge, amounts = cmsgpack.unpack(metered)
if charge >= hold[HOLD_METERED] then
  hold[HOLD_METERED] = charge
else
  detail = detail_of(hold)
end
note_amounts(hold, amounts)
local deadline = math.max(hold[HOLD_DEADLINE], math.min(now + deadline_ms, hold[HOLD_LATEST]))
hold[HOLD_DEADLINE] = deadline
redis.call('SET', reservation_key, cmsgpack.pack(unpack(hold, HOLD_LINES)) .. detail)
redis.call('ZADD', deadlines, string.format('%d', deadline), member)
return { 'held', deadline }
