-- The outbox: a stream whose ids are `<seq>-0`, written in the same step as what it tells of (invariant 3).
--
-- Fields: account; entry = epoch, at, overrun, reserved, moved debt, moved lots, moved counters, cut; and, where a
-- reservation ended, totals = id, outcome, charge, counts, and detail; where a lot's time was over, expired; where credit
-- was taken out of a lot because the ledger asked for it, withdrawal, as it asked. Moved lots are a list of id, by, …;
-- counters and counts of key, start, amount, …. Where the counters moved as the totals say, they are nil. The cut is what
-- a debt or a counter at its bound did not take: charge, then key, start, amount of each counter; mostly nil.

local function next_seq(header)
  return redis.call('HINCRBY', header, 'out_seq', '1')
end

-- Credit that moved otherwise than by a reservation's end. What follows `debt` says why; nothing: it paid debt.
local function write_credit(header, outbox, account_id, epoch, now, lots, debt, ...)
  local seq = next_seq(header)
  local entry = cmsgpack.pack(tonumber(epoch), now, false, 0, debt, lots, {}, nil)
  redis.call('XADD', outbox, string.format('%d-0', seq), 'account', account_id, 'entry', entry, ...)
  return seq
end
