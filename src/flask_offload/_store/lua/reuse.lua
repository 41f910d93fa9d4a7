#!lua
-- Let the id of a job that is over be used again, by another message than the one that it has.
-- KEYS: job. ARGV: …, what is in that message and no other, and the job that sends it ('' if none).
local known = redis.call('HMGET', job, 'state', 'envelope')
if not known[1] then return 1 end
-- The same message again, by somebody who missed the answer.
if not FINAL[known[1]] or string.find(known[2] or '', ARGV[4], 1, true) then return 0 end
-- A job that is run again after its worker died sends again what it may have sent before.
if ARGV[5] ~= '' and redis.call('HEXISTS', prefix .. 'job:' .. ARGV[5], 'leases_lost') == 1 then return 0 end
redis.call('HSET', job, 'reuse', '1')
return 1
