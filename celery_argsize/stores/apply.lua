-- Adds one batch to the counters of an app, once and as a whole: a batch that was seen before changes nothing, and one
-- that Redis refuses changes no counter.
--
-- KEYS  1 meta   2 names   3 the writer's last sequence   4 stats of __other__   5 hosts by when they were last seen
--       6.. stats of each task in the batch, then sightings of each host in it
-- ARGV  schema, sequence, now, cap on names, seconds a writer is remembered, tasks in the batch, cap on hosts,
--       cap on sightings of a host, seconds a host is remembered, what the key of a host begins with, then for each task:
--       name, n, n times (field, by), m, m times (field, value, task id, time); and for each host:
--       host, n, n times (field, value and time)
-- Returns 2 when it added, and was the first to, 1 when it added, 0 when the batch had been added before.
local schema = redis.call('HGET', KEYS[1], 'schema')
if schema and schema ~= ARGV[1] then
  return redis.error_reply('ARGSIZE_SCHEMA ' .. schema)
end
local last = redis.call('GET', KEYS[3])
if last and tonumber(last) >= tonumber(ARGV[2]) then
  redis.call('EXPIRE', KEYS[3], ARGV[5]) -- a write, so that WAIT on this connection waits for what was added before
  return 0
end
-- The first write: where Redis refuses writes (full, read-only) it refuses here, before anything has changed.
redis.call('HSET', KEYS[1], 'updated', ARGV[3])
if not schema then
  redis.call('HSET', KEYS[1], 'schema', ARGV[1], 'since', ARGV[3])
end

local at = 11
local function take()
  at = at + 1
  return ARGV[at - 1]
end

-- First what may be done twice (names, maxima, hosts), as Redis does not undo a script that fails; then the counters.
local counters = {} -- { key, where in ARGV its counters begin, where they end }
local cap = tonumber(ARGV[4])
local last_task = 5 + tonumber(ARGV[6])
for k = 6, last_task do
  local name, key = take(), KEYS[k]
  if redis.call('SISMEMBER', KEYS[2], name) == 0 then
    if redis.call('SCARD', KEYS[2]) - redis.call('SISMEMBER', KEYS[2], '__other__') >= cap then
      name, key = '__other__', KEYS[4]
    end
    redis.call('SADD', KEYS[2], name)
  end
  local n = tonumber(take())
  counters[#counters + 1] = { key, at, at + 2 * n - 2 }
  at = at + 2 * n
  for _ = 1, tonumber(take()) do
    local field, value, id, seen = take(), take(), take(), take()
    local known = redis.call('HGET', key, field)
    if not known or tonumber(value) > tonumber(known) then
      if seen == '0.0' then -- nobody asks where
        redis.call('HSET', key, field, value)
      else
        redis.call('HSET', key, field, value, field .. '_id', id, field .. '_time', seen)
      end
    end
  end
end

local now, remembered = tonumber(ARGV[3]), tonumber(ARGV[9])
if #KEYS > last_task then
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now - remembered)
end
local function moment(sighting)
  return tonumber(sighting:match('%S+$'))
end
for k = last_task + 1, #KEYS do
  local host, key = take(), KEYS[k]
  redis.call('ZADD', KEYS[5], now, host)
  for _ = 1, tonumber(take()) do
    local field, sighting = take(), take()
    local known = redis.call('HGET', key, field)
    if known and moment(sighting) >= moment(known) or not known and redis.call('HLEN', key) < tonumber(ARGV[8]) then
      redis.call('HSET', key, field, sighting)
    end
  end
  redis.call('EXPIRE', key, ARGV[9])
end
local over = redis.call('ZCARD', KEYS[5]) - tonumber(ARGV[7])
if over > 0 then
  for _, host in ipairs(redis.call('ZRANGE', KEYS[5], 0, over - 1)) do
    redis.call('DEL', ARGV[10] .. host)
  end
  redis.call('ZREMRANGEBYRANK', KEYS[5], 0, over - 1)
end

local function undo(task, stop)
  for t = task, 1, -1 do
    local key, from, to = unpack(counters[t])
    for i = (t == task and stop or to), from, -2 do
      redis.call('HINCRBY', key, ARGV[i], '-' .. ARGV[i + 1])
    end
  end
  redis.call('SET', KEYS[3], last or '0', 'EX', ARGV[5])
end
redis.call('SET', KEYS[3], ARGV[2], 'EX', ARGV[5])
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
return schema and 1 or 2
