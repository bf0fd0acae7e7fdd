-- Adds one batch to the counters of an app, once and as a whole: a batch that was seen before changes nothing, and one
-- that Redis refuses changes no counter.
--
-- KEYS  1 meta   2 names   3 the writer's last sequence, and failures counted with it   4 stats of __other__   5 hosts by when they were last seen
--       6.. stats of each task in the batch, then sightings of each host in it
-- ARGV  schema, sequence, now, cap on names, seconds a writer is remembered, tasks in the batch, cap on hosts,
--       cap on sightings of a host, seconds a host is remembered, what the key of a host begins with,
--       how often the writer failed since it last could write; then the name of each task; then for each task:
--         n, n times (counter, by),
--         m, of these p with a place, e, m maxima, e exemplars, p times (value, task id, time), m - p times value,
--         e times (what it is, with its time last);
--       and for each host: host, n, n fields, n times (value and time)
-- Returns 2 when it added, and was the first to, 1 when it added, 0 when the batch had been added before.
--
-- A call costs Redis about a microsecond, whatever it does: so what can be asked or written at once is.
local schema = redis.call('HMGET', KEYS[1], 'schema')[1]
if schema and schema ~= ARGV[1] then
  return redis.error_reply('ARGSIZE_SCHEMA ' .. schema)
end
local last = redis.call('GET', KEYS[3])
local sequence, known_failures = (last or ''):match('^(%d+) ?(%d*)$')
sequence, known_failures = tonumber(sequence) or 0, tonumber(known_failures) or 0
local function count_failures(more)
  if more > 0 then
    redis.pcall('HINCRBY', KEYS[1], 'flush_failures', more) -- says how we are, and keeps no figures back
  end
end
if sequence >= tonumber(ARGV[2]) then
  count_failures(tonumber(ARGV[11]) - known_failures)
  -- a write, so that WAIT on this connection waits for what was added before
  redis.call('SET', KEYS[3], sequence .. ' ' .. ARGV[11], 'EX', ARGV[5])
  return 0
end
-- The first write: where Redis refuses writes (full, read-only) it refuses here, before anything has changed.
redis.call('HSET', KEYS[1], 'updated', ARGV[3])
if not schema then
  redis.call('HSET', KEYS[1], 'schema', ARGV[1], 'since', ARGV[3])
end

local at = 12 -- where in ARGV
local function take()
  at = at + 1
  return ARGV[at - 1]
end
local function ask(key, n) -- the n fields that come next
  at = at + n
  return n > 0 and redis.call('HMGET', key, unpack(ARGV, at - n, at - 1)) or {}
end
local function later(text, known) -- by the time that comes last in both
  return tonumber(text:match('%S+$')) >= (tonumber(known:match('%S+$')) or 0)
end
local function push(list, ...)
  for _, word in ipairs({ ... }) do
    list[#list + 1] = word
  end
end
local function set(key, fields)
  if #fields > 0 then
    redis.call('HSET', key, unpack(fields))
  end
end

-- First what may be done twice (names, maxima, hosts), as Redis does not undo a script that fails; then the counters.
local tasks, cap = tonumber(ARGV[6]), tonumber(ARGV[4])
at = at + tasks
local listed = tasks > 0 and redis.call('SMISMEMBER', KEYS[2], unpack(ARGV, 12, 11 + tasks))
local counters = {} -- { key, where in ARGV its counters begin, where they end }
for t = 1, tasks do
  local name, key = ARGV[11 + t], KEYS[5 + t]
  if listed[t] == 0 then
    if redis.call('SCARD', KEYS[2]) - redis.call('SMISMEMBER', KEYS[2], '__other__')[1] >= cap then
      name, key = '__other__', KEYS[4]
    end
    redis.call('SADD', KEYS[2], name)
  end
  local n = tonumber(take())
  counters[t] = { key, at, at + 2 * n - 2 }
  at = at + 2 * n
  local m, placed, exemplars = tonumber(take()), tonumber(take()), tonumber(take())
  local fields, newer = at, {}
  for i, known in ipairs(ask(key, m + exemplars)) do
    local field, value = ARGV[fields + i - 1], take()
    local id, seen
    if i <= placed then
      id, seen = take(), take()
    end
    if not known or i <= m and tonumber(value) > tonumber(known) or i > m and later(value, known) then
      push(newer, field, value)
      if id then
        push(newer, field .. '_id', id, field .. '_time', seen)
      end
    end
  end
  set(key, newer)
end

if #KEYS > 5 + tasks then
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', tonumber(ARGV[3]) - tonumber(ARGV[9]))
  for k = 6 + tasks, #KEYS do
    local host, key, n = take(), KEYS[k], tonumber(take())
    redis.call('ZADD', KEYS[5], ARGV[3], host)
    local fields, newer, room = at, {}, nil
    for i, known in ipairs(ask(key, n)) do
      local sighting = take()
      if not known then
        room = (room or tonumber(ARGV[8]) - redis.call('HLEN', key)) - 1
      end
      if known and later(sighting, known) or not known and room >= 0 then
        push(newer, ARGV[fields + i - 1], sighting)
      end
    end
    set(key, newer)
    redis.call('EXPIRE', key, ARGV[9])
  end
  local over = redis.call('ZCARD', KEYS[5]) - tonumber(ARGV[7])
  if over > 0 then
    for _, host in ipairs(redis.call('ZRANGE', KEYS[5], 0, over - 1)) do
      redis.call('DEL', ARGV[10] .. host)
    end
    redis.call('ZREMRANGEBYRANK', KEYS[5], 0, over - 1)
  end
end

local function undo(task, stop)
  for t = task, 1, -1 do
    local key, from, to = unpack(counters[t])
    for i = (t == task and stop or to), from, -2 do
      local by = ARGV[i + 1]
      redis.call('HINCRBY', key, ARGV[i], by:sub(1, 1) == '-' and by:sub(2) or '-' .. by)
    end
  end
  redis.call('SET', KEYS[3], last or '0', 'EX', ARGV[5])
end
redis.call('SET', KEYS[3], ARGV[2] .. ' ' .. ARGV[11], 'EX', ARGV[5])
local pcall = redis.pcall
for t, task in ipairs(counters) do
  local key, from, to = unpack(task)
  for i = from, to, 2 do
    local done = pcall('HINCRBY', key, ARGV[i], ARGV[i + 1])
    if type(done) == 'table' then -- an error, where a number should be
      undo(t, i - 2)
      return redis.error_reply(done.err .. ' (key ' .. key .. ', field ' .. ARGV[i] .. ')')
    end
  end
end
count_failures(tonumber(ARGV[11]))
return schema and 1 or 2
