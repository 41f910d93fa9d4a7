#!lua flags=allow-oom
-- What became of a message that was taken by due. KEYS: job. ARGV: …, fence, seconds until it is
-- tried again ('' if the broker has it). Returns 0 if somebody else has taken it since.
if redis.call('HGET', job, 'fence') ~= ARGV[4] then return 0 end
if ARGV[5] ~= '' then
  redis.call('ZADD', prefix .. 'scheduled', 'XX', stamp(now + tonumber(ARGV[5])), job_id)
  return 1
end
if redis.call('ZREM', prefix .. 'scheduled', job_id) == 0 then return 0 end
local state = redis.call('HGET', job, 'state')
-- What it needs to be run again is in the payload.
if redis.call('HEXISTS', job, 'payload') == 1 then redis.call('HDEL', job, 'envelope') end
redis.call('HDEL', job, 'due_at')
-- It may be running by now. A parked job was queued all the time.
if state == 'scheduled' or state == 'retrying' then
  redis.call('HSET', job, 'state', 'queued')
  event('queued')
end
return 1
