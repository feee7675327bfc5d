-- What Tollgate is compared with: the same reserve and the same settle, by the same scripts with the same arguments, from
-- nginx. It estimates by length where Tollgate counts tokens, and has one account and one price in a file.
local cjson = require 'cjson.safe'
local settings = require 'settings'

local M = {}

-- MessagePack of what the arguments have: numbers that are not negative, and short texts.
local function pack(values)
  local parts = {}
  for i, value in ipairs(values) do
    if type(value) == 'string' then
      parts[i] = #value < 32 and string.char(0xa0 + #value) .. value or string.char(0xd9, #value) .. value
    elseif value < 128 then
      parts[i] = string.char(value)
    else
      local high, low = math.floor(value / 4294967296), value % 4294967296
      local bytes = { 0xd3 }
      for shift = 3, 0, -1 do
        bytes[5 - shift] = math.floor(high / 256 ^ shift) % 256
        bytes[9 - shift] = math.floor(low / 256 ^ shift) % 256
      end
      parts[i] = string.char(unpack(bytes))
    end
  end
  return table.concat(parts)
end

local function receive(socket)
  local line = assert(socket:receive())
  local kind, rest = line:sub(1, 1), line:sub(2)
  if kind == '*' then
    local list = {}
    for i = 1, tonumber(rest) do
      list[i] = receive(socket)
    end
    return list
  elseif kind == '$' then
    local text = assert(socket:receive(tonumber(rest) + 2))
    return text:sub(1, -3)
  elseif kind == '-' then
    error(rest)
  end
  return rest
end

local function call(words)
  local socket = ngx.socket.tcp()
  socket:settimeout(1000)
  assert(socket:connect('127.0.0.1', settings.redis_port))
  local parts = { '*' .. #words .. '\r\n' }
  for _, word in ipairs(words) do
    word = tostring(word)
    parts[#parts + 1] = '$' .. #word .. '\r\n' .. word .. '\r\n'
  end
  assert(socket:send(parts))
  local answer = receive(socket)
  socket:setkeepalive(60000, 64)
  return answer
end

local function uuid_v7()
  local ms = ngx.now() * 1000
  local random = math.random
  return string.format('%08x-%04x-7%03x-%04x-%04x%08x', math.floor(ms / 65536), ms % 65536, random(0, 4095),
    random(0x8000, 0xbfff), random(0, 65535), random(0, 4294967295))
end

local function script(sha, id, ...)
  local tag = settings.tag
  return call({ 'EVALSHA', sha, 5, tag .. ':h', tag .. ':a:' .. settings.account, tag .. ':r:' .. id, tag .. ':o', tag .. ':d',
    settings.epoch, ... })
end

-- What one line claims or counts.
local function amount(line, tokens, charge)
  return line.resource == 'tokens' and tokens or line.resource == 'spend' and charge or 1
end

local function detail(input, output, usage)
  return cjson.encode({ route = '/openai', provider = 'openai', model = 'house-chat', input_tokens = input, output_tokens = output,
    cache_read_tokens = 0, cache_write_tokens = 0, cost = 0, price_id = settings.price_id, api_key_id = settings.key_id,
    tags = settings.tags, usage = usage, properties = settings.tags })
end

function M.reserve()
  if ngx.var.http_authorization ~= settings.key then
    return ngx.exit(401)
  end
  ngx.req.read_body()
  local body = ngx.req.get_body_data()
  local asked = body and cjson.decode(body)
  if not asked then
    return ngx.exit(400)
  end
  local input, output = math.ceil(#body / 4), asked.max_tokens or 4096
  local charge = input * settings.input_nanos + output * settings.output_nanos
  local claim = { settings.version, charge, input * settings.input_nanos, 0, settings.deadline_ms, settings.max_age_ms, settings.bound }
  for _, line in ipairs(settings.lines) do
    local claimed = amount(line, input + output, charge)
    for _, value in ipairs({ line.key, line.from, line.to, claimed, amount(line, input, input * settings.input_nanos), line.limit }) do
      claim[#claim + 1] = value
    end
  end
  local id = uuid_v7()
  local answer = script(settings.reserve, id, pack(claim), detail(input, 0), id .. '|' .. settings.account)
  if answer[1] ~= 'held' then
    ngx.log(ngx.ERR, 'not held: ', answer[1])
    return ngx.exit(429)
  end
  ngx.ctx.id, ngx.ctx.pieces = id, {}
end

function M.read()
  local pieces = ngx.ctx.pieces
  if pieces then
    pieces[#pieces + 1] = ngx.arg[1]
  end
end

local function settle(_, id, body)
  local answered = cjson.decode(body)
  local usage = answered.usage
  local input, output = usage.prompt_tokens, usage.completion_tokens
  local charge = input * settings.input_nanos + output * settings.output_nanos
  local totals = { id, 'settled', charge }
  for _, line in ipairs(settings.lines) do
    for _, value in ipairs({ line.key, line.from, amount(line, input + output, charge) }) do
      totals[#totals + 1] = value
    end
  end
  local answer = script(settings.settle, id, settings.account, id .. '|' .. settings.account, pack(totals), detail(input, output, usage))
  if answer[1] ~= 'settled' then
    ngx.log(ngx.ERR, 'not settled: ', answer[1])
  end
end

-- After the answer, away from the caller: a timer, since nothing can wait for a socket while logging.
function M.settle()
  if ngx.ctx.id then
    ngx.timer.at(0, settle, ngx.ctx.id, table.concat(ngx.ctx.pieces))
  end
end

return M
