-- What was seen of each host that messages come from.
--
-- KEYS  1 hosts by when they were last seen        ARGV  what the key of a host begins with
-- Returns { { host, sightings }, … }, sightings as a flat list of field, value and time.
local found = {}
for _, host in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  found[#found + 1] = { host, redis.call('HGETALL', ARGV[1] .. host) }
end
return found
