-- Credit that became available pays debt first (rule 27).

-- Live lots pay what is owed; returns the lots and the debt that moved, or nothing.
local function repay(account, now)
  local lots, owed = {}, account[DEBT]
  for lot = FIRST_LOT, account[COUNTERS] - 1, LOT_SIZE do
    local left = account[lot + LEFT]
    if is_live(account, lot, now) and less(0, left) and less(0, owed) then
      local part = less(left, owed) and left or owed
      account[lot + LEFT] = subtract(left, part)
      lots[#lots + 1], lots[#lots + 2] = account[lot + ID], subtract(0, part)
      owed = subtract(owed, part)
    end
  end
  if #lots == 0 then
    return nil
  end
  local moved = { lots = lots, debt = subtract(owed, account[DEBT]) }
  account[DEBT] = owed
  return moved
end
