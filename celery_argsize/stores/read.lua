-- All figures of an app at one moment.
--
-- KEYS  1 meta   2 names        ARGV  what the key of a task's stats begins with
-- Returns { meta, { name, stats }, … }, meta and stats as flat lists of field and value.
local found = { redis.call('HGETALL', KEYS[1]) }
for _, name in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  found[#found + 1] = { name, redis.call('HGETALL', ARGV[1] .. name) }
end
return found
