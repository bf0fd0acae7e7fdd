-- Reads all figures of an app, as of one moment.
--
-- KEYS  1 meta   2 names
-- ARGV  1 prefix of a task's key
-- Returns { meta, name, figures, name, figures, … }. Meta is { field, value, field, … }.
-- The figures of a task are one text, with a field or a value on each line: a client takes
-- about a microsecond for each item of a reply. Names and ids are printable, so they hold
-- no line break.
local call, concat = redis.call, table.concat
local reply = { call('HGETALL', KEYS[1]) }
for _, name in ipairs(call('SMEMBERS', KEYS[2])) do
  reply[#reply + 1] = name
  reply[#reply + 1] = concat(call('HGETALL', ARGV[1] .. name), '\n')
end
return reply
