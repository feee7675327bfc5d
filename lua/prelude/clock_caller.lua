-- For tests alone: the clock is the caller's, handed over as the last argument.
local now = tonumber(ARGV[#ARGV])
