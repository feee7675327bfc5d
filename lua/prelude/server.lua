-- The server that answers: its process, and the history of its data, which is another one after each promotion. So one
-- that has copied another's data and takes over again is not taken for the one that it was (rule 21).
local function server_name(info)
  return string.match(info, 'run_id:(%w+)') .. '-' .. string.match(info, 'master_replid:(%w+)')
end
