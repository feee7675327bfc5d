-- The outbox: a stream whose ids are `<seq>-0`, written in the same step as what it tells of (invariant 3).
--
-- Fields: account; entry = epoch, at, overrun, reserved, moved debt, moved lots, moved counters; and, where a reservation
-- ended, totals = id, outcome, charge, counts, and detail. Moved lots are a list of id, by, …; counters and counts of key,
-- start, amount, …. Where the counters moved as the totals say, they are nil.

local function next_seq(header)
  return redis.call('HINCRBY', header, 'out_seq', 1)
end

local function write_ending(outbox, seq, account_id, entry, totals, detail)
  local id = string.format('%d-0', seq)
  redis.call('XADD', outbox, id, 'account', account_id, 'entry', entry, 'totals', totals, 'detail', detail)
end
