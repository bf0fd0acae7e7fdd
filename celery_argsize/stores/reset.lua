-- Forgets the figures of one task, or of all. Writers stay, so a batch that was added
-- before is not added if it is sent again.
--
-- KEYS  1 meta   2 names   3 hosts, by the time of their last message
-- ARGV  1 schema   2 prefix of a task's key   3 now, in seconds since the epoch
--       4 prefix of a host's key   5 the task; left out for all
-- Returns how many tasks were forgotten.
local task = ARGV[5]
local schema = redis.call('HMGET', KEYS[1], 'schema')[1]
if schema and schema ~= ARGV[1] then
  return redis.error_reply('ARGSIZE_SCHEMA ' .. schema)
end
local forgotten = 0
for _, name in ipairs(task and { task } or redis.call('SMEMBERS', KEYS[2])) do
  forgotten = forgotten + redis.call('DEL', ARGV[2] .. name)
  redis.call('SREM', KEYS[2], name)
end
for _, host in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  local key = ARGV[4] .. host
  if task then
    for _, kind in ipairs({ 'size', 'depth', 'whole', 'deep' }) do
      redis.call('HDEL', key, kind .. ':args:' .. task, kind .. ':kwargs:' .. task)
    end
  else
    redis.call('DEL', key)
  end
end
if not task then
  redis.call('DEL', KEYS[3])
  if schema then
    redis.call('HSET', KEYS[1], 'since', ARGV[3])
    redis.call('HDEL', KEYS[1], 'updated')
  end
end
return forgotten
