-- Gives all figures of an app, as of one moment.
--
-- KEYS  1 meta   2 names
-- ARGV  1 what the key of a task's figures begins with
-- Returns { meta, name, figures, name, figures, … }. Meta is a list of field and value by turns. The figures of a task are
-- one text, with fields and values by turns, a line each: a client takes about a microsecond for every item of a reply.
-- Neither has a line break, as names and ids are printable.
local call, concat = redis.call, table.concat
local reply = { call('HGETALL', KEYS[1]) }
for _, name in ipairs(call('SMEMBERS', KEYS[2])) do
  reply[#reply + 1] = name
  reply[#reply + 1] = concat(call('HGETALL', ARGV[1] .. name), '\n')
end
return reply
