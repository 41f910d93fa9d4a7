#!lua flags=allow-oom
-- Give a job back. KEYS: job. ARGV: …, fence, seconds until it is due again,
-- 1 if its start does not count, why it waits ('' for no reason), and for how long it may wait for
-- that, and 1 if it is not to be taken into a lane again. Returns 0 if it was not this worker's to give back, or has waited for too long.
if ARGV[4] == '0' or not holds(ARGV[4]) then return 0 end
local since = tonumber(redis.call('HGET', job, 'parked_at') or now)
if ARGV[7] ~= '' and now - since > tonumber(ARGV[8]) then return 0 end
local known = redis.call('HMGET', job, 'state', 'queue', 'cancel_requested', 'at_once')
end_lease()
if not known[1] or FINAL[known[1]] then return 0 end
if ARGV[6] == '1' then
  if known[1] == 'running' then redis.call('HINCRBY', job, 'deliveries', -1) end
  if known[3] and known[1] ~= 'running' then
    -- It was about to start when somebody cancelled it, and it never did.
    finish_as('cancelled')
    return 1
  end
elseif known[4] then
  -- Its worker, or its process in the pool, was lost before the start was told.
  note_start(stamp(now), redis.call('HGET', job, 'first_started_at'))
end
redis.call('HDEL', job, 'worker', 'done', 'total')
local delay = tonumber(ARGV[5])
if ARGV[7] ~= '' then
  redis.call('HSETNX', job, 'parked_at', stamp(now))
  redis.call('HSET', job, 'parked', ARGV[7])
end
redis.call('HSET', job, 'state', 'queued')
if ARGV[9] == '1' then redis.call('HSET', job, 'in_pool', '1') end
if delay > 0 then
  redis.call('ZADD', prefix .. 'scheduled', stamp(now + delay), job_id)
else
  line_up(known[2])
end
event('queued')
return 1
