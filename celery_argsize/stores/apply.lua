-- Adds one batch to the figures of an app: exactly once, and as a whole.
--
-- Redis does not undo a script that fails half-way. So the script first writes what may
-- safely be written twice: times, names, maxima, hosts. If Redis takes no writes (no
-- memory, a missing right), it mostly fails there. The counters come last. If Redis
-- refuses one of them, the script takes back the others, and the number of the batch.
--
-- KEYS
--   1     meta
--   2     names
--   3     the writer: the number of its last batch, a space, and how many of its failures
--         were counted with that batch
--   4     figures of __other__
--   5     hosts, by the time of their last message
--   6 …   figures of each task in the batch, then sightings of each host in it
-- ARGV
--   1     schema
--   2     number of the batch
--   3     now, in seconds since the epoch
--   4     most task names
--   5     seconds that a writer is remembered
--   6     tasks in the batch
--   7     most hosts
--   8     most sightings of one host
--   9     seconds that a host is remembered
--   10    prefix of a host's key
--   11    how often the writer failed since its last write
--   12 …  the name of each task;
--         for each task: how many counters, maxima and exemplars it has, then the fields
--           of all, then the values of all (counter: the number to add; maximum: "number"
--           or "number id time"; exemplar: "bytes id time");
--         for each host: its name, how many sightings it has, their fields, then their
--           values ("number time")
-- Returns 2 if this was the first batch of the app, 1 if it was a later one, 0 if it had
-- been added before.
--
-- Each redis.call costs about a microsecond, so one call reads or writes many fields.
-- HMGET, as users have no right to HGET
local schema = redis.call('HMGET', KEYS[1], 'schema')[1]
if schema and schema ~= ARGV[1] then
  return redis.error_reply('ARGSIZE_SCHEMA ' .. schema)
end
local function add_failures(count)
  if count > 0 then
    redis.pcall('HINCRBY', KEYS[1], 'flush_failures', count) -- pcall: an error here must not stop the batch
  end
end
local writer = redis.call('GET', KEYS[3])
local sequence, failures = (writer or ''):match('^(%d+) ?(%d*)$')
if sequence and tonumber(sequence) >= tonumber(ARGV[2]) then
  add_failures(ARGV[11] - (tonumber(failures) or 0))
  -- Written even if nothing changed: WAIT waits for the last write of its connection,
  -- and for all that Redis wrote before.
  redis.call('SET', KEYS[3], sequence .. ' ' .. ARGV[11], 'EX', ARGV[5])
  return 0
end
-- If Redis takes no writes at all, it refuses this first one, and nothing has changed.
redis.call('HSET', KEYS[1], 'updated', ARGV[3])
if not schema then
  redis.call('HSET', KEYS[1], 'schema', ARGV[1], 'since', ARGV[3])
end

local tasks = tonumber(ARGV[6])
local position = 12 + tasks -- of the next item in ARGV
local function take(count)
  position = position + (count or 1)
  return ARGV[position - 1]
end
local function read(key, first, count) -- the values of *count* fields, named in ARGV from *first*
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
local function is_later(value, stored) -- both end in a time
  return tonumber(value:match('%S+$')) >= (tonumber(stored:match('%S+$')) or 0)
end

local listed = tasks > 0 and redis.call('SMISMEMBER', KEYS[2], unpack(ARGV, 12, 11 + tasks))
local counters = {} -- for each task: its key, how many counters, positions of their fields and values in ARGV
for t = 1, tasks do
  local name, key = ARGV[11 + t], KEYS[5 + t]
  if listed[t] == 0 then
    if redis.call('SCARD', KEYS[2]) - redis.call('SMISMEMBER', KEYS[2], '__other__')[1] >= tonumber(ARGV[4]) then
      name, key = '__other__', KEYS[4]
    end
    redis.call('SADD', KEYS[2], name)
  end
  local count, maxima, exemplars = tonumber(take()), tonumber(take()), tonumber(take())
  local total = count + maxima + exemplars
  local fields, values = position, position + total
  counters[t] = { key = key, count = count, fields = fields, values = values }
  local changed = {}
  for i, stored in ipairs(read(key, fields + count, maxima + exemplars)) do
    local field, value = ARGV[fields + count + i - 1], ARGV[values + count + i - 1]
    if i > maxima then
      if not stored or is_later(value, stored) then
        push(changed, field, value)
      end
    else
      local number = value:match('^%d+')
      if not stored or tonumber(number) > tonumber(stored) then
        push(changed, field, number)
        local id, time = value:match(' (.*) (%S+)$')
        if time then
          push(changed, field .. '_id', id, field .. '_time', time)
        end
      end
    end
  end
  write(key, changed)
  take(2 * total)
end

if #KEYS > 5 + tasks then
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', ARGV[3] - ARGV[9])
  for k = 6 + tasks, #KEYS do
    local host, key, count = take(), KEYS[k], tonumber(take())
    redis.call('ZADD', KEYS[5], ARGV[3], host)
    local changed, room = {}, nil
    for i, stored in ipairs(read(key, position, count)) do
      local field, sighting = ARGV[position + i - 1], ARGV[position + count + i - 1]
      if not stored then
        room = (room or ARGV[8] - redis.call('HLEN', key)) - 1
      end
      if stored and is_later(sighting, stored) or not stored and room >= 0 then
        push(changed, field, sighting)
      end
    end
    write(key, changed)
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

redis.call('SET', KEYS[3], ARGV[2] .. ' ' .. ARGV[11], 'EX', ARGV[5])
local pcall = redis.pcall
for t, task in ipairs(counters) do
  for i = 0, task.count - 1 do
    local field = ARGV[task.fields + i]
    local reply = pcall('HINCRBY', task.key, field, ARGV[task.values + i])
    if type(reply) == 'table' then -- an error; a number otherwise
      task.count = i -- of its counters, only these were added
      for undone = 1, t do
        local added = counters[undone]
        for j = 0, added.count - 1 do
          pcall('HINCRBY', added.key, ARGV[added.fields + j], '-' .. ARGV[added.values + j])
        end
      end
      redis.call('SET', KEYS[3], writer or '0', 'EX', ARGV[5])
      return redis.error_reply(reply.err .. ' (key ' .. task.key .. ', field ' .. field .. ')')
    end
  end
end
add_failures(tonumber(ARGV[11]))
return schema and 1 or 2
