-- All figures of an app at one moment.
--
-- KEYS  1 meta   2 names        ARGV  what the key of a task's stats begins with
-- Returns { meta, name, stats, name, stats, … }: meta as a flat list of field and value, the stats of a task as one text
-- of field and value by turns, a line each. Neither has a line break: names and ids are printable.
--
-- A text each, as a client takes a microsecond for every item of a reply, however short.
local call, concat = redis.call, table.concat
local found = { call('HGETALL', KEYS[1]) }
for _, name in ipairs(call('SMEMBERS', KEYS[2])) do
  found[#found + 1] = name
  found[#found + 1] = concat(call('HGETALL', ARGV[1] .. name), '\n')
end
return found
