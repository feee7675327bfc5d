-- Credit that leaves a lot otherwise than by being used (rule 27).

-- Takes what is there, up to an amount where there is one; what is held of it stays. Returns the lots that moved.
local function withdraw(account, id, amount)
  for lot = FIRST_LOT, account[COUNTERS] - 1, LOT_SIZE do
    local left = account[lot + LEFT]
    if account[lot + ID] == id and less(0, left) and amount ~= 0 then
      local part = amount and less(amount, left) and amount or left
      account[lot + LEFT] = subtract(left, part)
      return { id, subtract(0, part) }
    end
  end
  return {}
end

-- What the ledger asked for, {lot, amount, the whole of it as text} each: done before anything is written, so that
-- nothing can stop half-way.
local function withdraw_all(account, asked)
  local taken = {}
  for i, withdrawal in ipairs(asked) do
    taken[i] = withdraw(account, withdrawal[1], withdrawal[2])
  end
  return taken
end

-- An entry each, also where nothing was there to take: only so does the ledger learn that it was done.
local function write_withdrawals(header, outbox, account_id, epoch, now, asked, taken)
  for i, withdrawal in ipairs(asked) do
    write_credit(header, outbox, account_id, epoch, now, taken[i], 0, 'withdrawal', withdrawal[3])
  end
end
