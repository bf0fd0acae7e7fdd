-- Gives what was seen of each host that messages come from.
--
-- KEYS  1 hosts, by the time of their last message
-- ARGV  1 what the key of a host begins with
-- Returns { { host, sightings }, … }. Sightings are a list of field and "number time" by turns.
local reply = {}
for _, host in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  reply[#reply + 1] = { host, redis.call('HGETALL', ARGV[1] .. host) }
end
return reply
