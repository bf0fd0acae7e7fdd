-- Forgets the stats of one task, or of all. Writers stay known, so that a batch from before is not added after.
--
-- KEYS  1 meta   2 names        ARGV  what the key of a task's stats begins with, now, a task or nothing for all
-- Returns how many tasks were forgotten.
local names = #ARGV == 3 and { ARGV[3] } or redis.call('SMEMBERS', KEYS[2])
local forgotten = 0
for _, name in ipairs(names) do
  forgotten = forgotten + redis.call('DEL', ARGV[1] .. name)
  redis.call('SREM', KEYS[2], name)
end
if #ARGV == 2 and redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HSET', KEYS[1], 'since', ARGV[2])
end
return forgotten
