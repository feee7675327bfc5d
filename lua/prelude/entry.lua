-- The outbox: a stream whose ids are `<seq>-0`, written in the same step as what it tells of (invariant 3).
--
-- Fields: account; entry = {epoch, at, overrun, reserved, moved lots, moved debt, moved counters}; and, where a reservation
-- ended, totals = {id, outcome, charge, counts} and detail. Moved lots are {id, by}, counters and counts {key, start, amount}.

local function next_seq(header)
  return redis.call('HINCRBY', header, 'out_seq', 1)
end

local function write_entry(outbox, seq, account_id, entry, totals, detail)
  local id = string.format('%d-0', seq)
  entry = cmsgpack.pack(entry)
  if totals then
    redis.call('XADD', outbox, id, 'account', account_id, 'entry', entry, 'totals', totals, 'detail', detail)
  else
    redis.call('XADD', outbox, id, 'account', account_id, 'entry', entry)
  end
end

-- Live lots pay what is owed (rule 27); returns the lots and the debt that moved, or nothing.
local function repay(account, now)
  if not less(0, account[DEBT]) then
    return nil
  end
  local lots, paid = {}, 0
  for _, lot in ipairs(account[LOTS]) do
    if is_live(lot, now) and less(0, lot[LEFT]) and less(paid, account[DEBT]) then
      local part = min(lot[LEFT], subtract(account[DEBT], paid))
      lot[LEFT] = subtract(lot[LEFT], part)
      lots[#lots + 1] = { lot[ID], negate(part) }
      paid = add(paid, part)
    end
  end
  if #lots == 0 then
    return nil
  end
  account[DEBT] = subtract(account[DEBT], paid)
  return { lots = lots, debt = negate(paid) }
end

local function write_repaid(header, outbox, account_id, epoch, now, repaid)
  local entry = { tonumber(epoch), now, false, 0, repaid.lots, repaid.debt, {} }
  write_entry(outbox, next_seq(header), account_id, entry)
end
