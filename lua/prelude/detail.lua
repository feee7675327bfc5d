-- The record that a hold carries for whoever ends it in its caller's place.
local function detail_of(hold)
  local at = hold[HOLD_DETAIL_AT]
  return at < 0 and '' or string.sub(hold[HOLD_STRING], at + 1)
end
