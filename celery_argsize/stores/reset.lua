-- Forgets the stats of one task, or of all. Writers stay known, so that a batch from before is not added after.
--
-- KEYS  1 meta   2 names   3 hosts
-- ARGV  schema, what the key of a task's stats begins with, now, what the key of a host begins with,
--       a task or nothing for all
-- Returns how many tasks were forgotten.
local schema = redis.call('HMGET', KEYS[1], 'schema')[1]
if schema and schema ~= ARGV[1] then
  return redis.error_reply('ARGSIZE_SCHEMA ' .. schema)
end
local names = #ARGV == 5 and { ARGV[5] } or redis.call('SMEMBERS', KEYS[2])
local forgotten = 0
for _, name in ipairs(names) do
  forgotten = forgotten + redis.call('DEL', ARGV[2] .. name)
  redis.call('SREM', KEYS[2], name)
end
for _, host in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  if #ARGV == 4 then
    redis.call('DEL', ARGV[4] .. host)
  else
    for _, kind in ipairs({ 'size', 'depth', 'whole', 'deep' }) do
      redis.call('HDEL', ARGV[4] .. host, kind .. ':args:' .. ARGV[5], kind .. ':kwargs:' .. ARGV[5])
    end
  end
end
if #ARGV == 4 then
  redis.call('DEL', KEYS[3])
end
if schema and #ARGV == 4 then
  redis.call('HSET', KEYS[1], 'since', ARGV[3])
  redis.call('HDEL', KEYS[1], 'updated')
end
return forgotten
