-- Reads the sightings of all hosts.
--
-- KEYS  1 hosts, by the time of their last message
-- ARGV  1 prefix of a host's key
-- Returns { { host, sightings }, … }. Sightings are { field, "number time", field, … }.
local reply = {}
for _, host in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  reply[#reply + 1] = { host, redis.call('HGETALL', ARGV[1] .. host) }
end
return reply
