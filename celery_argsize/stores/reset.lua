-- Forgets the stats of one task, or of all. Writers stay known, so that a batch from before is not added after.
--
-- KEYS  1 meta   2 names        ARGV  schema, what the key of a task's stats begins with, now, a task or nothing for all
-- Returns how many tasks were forgotten.
local schema = redis.call('HGET', KEYS[1], 'schema')
if schema and schema ~= ARGV[1] then
  return redis.error_reply('ARGSIZE_SCHEMA ' .. schema)
end
local names = #ARGV == 4 and { ARGV[4] } or redis.call('SMEMBERS', KEYS[2])
local forgotten = 0
for _, name in ipairs(names) do
  forgotten = forgotten + redis.call('DEL', ARGV[2] .. name)
  redis.call('SREM', KEYS[2], name)
end
if schema and #ARGV == 3 then
  redis.call('HSET', KEYS[1], 'since', ARGV[3])
  redis.call('HDEL', KEYS[1], 'updated')
end
return forgotten
