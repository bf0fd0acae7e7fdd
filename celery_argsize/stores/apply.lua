-- Adds one batch to the figures of an app: exactly once, and as a whole.
--
-- Redis does not undo a script that fails half-way. So what may be written twice comes first: times, names, maxima, hosts.
-- What Redis refuses (no memory, a missing right), it mostly refuses there. The counters come last, and if it refuses one
-- of them, the script takes back the others, and the number of the batch.
--
-- KEYS
--   1     meta
--   2     names
--   3     the writer: the number of its last batch, a blank, how many of its failures were counted with that batch
--   4     figures of __other__
--   5     hosts, by the time of their last message
--   6 …   figures of each task in the batch, then sightings of each host in it
-- ARGV
--   1     schema
--   2     number of the batch
--   3     now
--   4     cap on task names
--   5     seconds that a writer is remembered
--   6     tasks in the batch
--   7     cap on hosts
--   8     cap on sightings of one host
--   9     seconds that a host is remembered
--   10    what the key of a host begins with
--   11    how often the writer failed since it last could write
--   12 …  the name of each task;
--         of each task: how many counters, maxima and exemplars there are, the fields of all, the values of all
--           (of a counter: what to add; of a maximum: "number" or "number id time"; an exemplar ends in its time);
--         of each host: its name, how many sightings there are, their fields, their values ("number time")
-- Returns 2 when it added the first batch of the app, 1 when it added another, 0 when the batch had been added before.
--
-- A call costs Redis about a microsecond, whatever it does. So what can be asked or written at once is.
local schema = redis.call('HMGET', KEYS[1], 'schema')[1]
if schema and schema ~= ARGV[1] then
  return redis.error_reply('ARGSIZE_SCHEMA ' .. schema)
end
local function add_failures(count)
  if count > 0 then
    redis.pcall('HINCRBY', KEYS[1], 'flush_failures', count) -- no reason to hold back the figures
  end
end
local last = redis.call('GET', KEYS[3])
local sequence, counted = (last or ''):match('^(%d+) ?(%d*)$')
if sequence and tonumber(sequence) >= tonumber(ARGV[2]) then
  add_failures(ARGV[11] - (tonumber(counted) or 0))
  -- Written even if nothing is new: WAIT waits for the last write of its connection, and so for the batch too.
  redis.call('SET', KEYS[3], sequence .. ' ' .. ARGV[11], 'EX', ARGV[5])
  return 0
end
-- The first write: where Redis takes no writes at all, it refuses this one, before anything has changed.
redis.call('HSET', KEYS[1], 'updated', ARGV[3])
if not schema then
  redis.call('HSET', KEYS[1], 'schema', ARGV[1], 'since', ARGV[3])
end

local tasks = tonumber(ARGV[6])
local at = 12 + tasks -- where in ARGV the next item is
local function take(count)
  at = at + (count or 1)
  return ARGV[at - 1]
end
local function read(key, first, count) -- what *key* has in the *count* fields from *first* in ARGV
  return count > 0 and redis.call('HMGET', key, unpack(ARGV, first, first + count - 1)) or {}
end
local function write(key, pairs)
  if #pairs > 0 then
    redis.call('HSET', key, unpack(pairs))
  end
end
local function push(list, ...)
  for _, item in ipairs({ ... }) do
    list[#list + 1] = item
  end
end
local function is_later(text, known) -- by the time at the end of both
  return tonumber(text:match('%S+$')) >= (tonumber(known:match('%S+$')) or 0)
end

local listed = tasks > 0 and redis.call('SMISMEMBER', KEYS[2], unpack(ARGV, 12, 11 + tasks))
local counters = {} -- of each task: its key, how many counters, where their fields and where their values are in ARGV
for t = 1, tasks do
  local name, key = ARGV[11 + t], KEYS[5 + t]
  if listed[t] == 0 then
    if redis.call('SCARD', KEYS[2]) - redis.call('SMISMEMBER', KEYS[2], '__other__')[1] >= tonumber(ARGV[4]) then
      name, key = '__other__', KEYS[4]
    end
    redis.call('SADD', KEYS[2], name)
  end
  local counts, maxima, exemplars = tonumber(take()), tonumber(take()), tonumber(take())
  local fields, values = at, at + counts + maxima + exemplars
  counters[t] = { key, counts, fields, values }
  local newer = {}
  for i, known in ipairs(read(key, fields + counts, maxima + exemplars)) do
    local field, value = ARGV[fields + counts + i - 1], ARGV[values + counts + i - 1]
    if i > maxima then
      if not known or is_later(value, known) then
        push(newer, field, value)
      end
    else
      local number = value:match('^%d+')
      if not known or tonumber(number) > tonumber(known) then
        push(newer, field, number)
        local id, time = value:match(' (.*) (%S+)$')
        if time then
          push(newer, field .. '_id', id, field .. '_time', time)
        end
      end
    end
  end
  write(key, newer)
  take(2 * (counts + maxima + exemplars))
end

if #KEYS > 5 + tasks then
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', ARGV[3] - ARGV[9])
  for k = 6 + tasks, #KEYS do
    local host, key, count = take(), KEYS[k], tonumber(take())
    redis.call('ZADD', KEYS[5], ARGV[3], host)
    local newer, room = {}, nil
    for i, known in ipairs(read(key, at, count)) do
      local field, sighting = ARGV[at + i - 1], ARGV[at + count + i - 1]
      if not known then
        room = (room or ARGV[8] - redis.call('HLEN', key)) - 1
      end
      if known and is_later(sighting, known) or not known and room >= 0 then
        push(newer, field, sighting)
      end
    end
    write(key, newer)
    redis.call('EXPIRE', key, ARGV[9])
    take(2 * count)
  end
  local over = redis.call('ZCARD', KEYS[5]) - ARGV[7]
  if over > 0 then
    for _, host in ipairs(redis.call('ZRANGE', KEYS[5], 0, over - 1)) do
      redis.call('DEL', ARGV[10] .. host)
    end
    redis.call('ZREMRANGEBYRANK', KEYS[5], 0, over - 1)
  end
end

local pcall = redis.pcall
redis.call('SET', KEYS[3], ARGV[2] .. ' ' .. ARGV[11], 'EX', ARGV[5])
for t, task in ipairs(counters) do
  local key, count, fields, values = unpack(task)
  for i = 0, count - 1 do
    local reply = pcall('HINCRBY', key, ARGV[fields + i], ARGV[values + i])
    if type(reply) == 'table' then -- an error, where a number should be
      for undone = t, 1, -1 do
        local its_key, its_count, its_fields, its_values = unpack(counters[undone])
        for j = 0, (undone == t and i or its_count) - 1 do
          pcall('HINCRBY', its_key, ARGV[its_fields + j], '-' .. ARGV[its_values + j])
        end
      end
      redis.call('SET', KEYS[3], last or '0', 'EX', ARGV[5])
      return redis.error_reply(reply.err .. ' (key ' .. key .. ', field ' .. ARGV[fields + i] .. ')')
    end
  end
end
add_failures(tonumber(ARGV[11]))
return schema and 1 or 2
