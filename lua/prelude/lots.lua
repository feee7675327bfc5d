-- Lots that are met outside their order.

-- Where a lot is; one that the account does not list is listed now, with nothing in it and not to be drawn.
local function find_lot(account, id)
  local first_after = account[COUNTERS]
  for lot = FIRST_LOT, first_after - 1, LOT_SIZE do
    if account[lot + ID] == id then
      return lot
    end
  end
  for place, field in ipairs({ id, 0, 0, false, false }) do
    table.insert(account, first_after + place - 1, field)
  end
  account[COUNTERS] = account[COUNTERS] + LOT_SIZE
  return first_after
end
