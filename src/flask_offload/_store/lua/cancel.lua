#!lua flags=allow-oom
-- KEYS: job, result. ARGV: …, by whom, result of a cancelled job.
-- Returns the state before, and whether the job must be stopped where it runs; or nothing.
local known = redis.call('HMGET', job, 'state', 'at_once')
local state = known[1]
if not state then return {} end
if FINAL[state] then return { state, 0 } end
redis.call('HSET', job, 'cancelled_by', ARGV[4])
if state == 'running' or known[2] then
  -- With at_once it is in the hands of a worker that starts it without asking.
  redis.call('HSET', job, 'cancel_requested', '1')
  event('cancelling')
  return { state, 1 }
end
local keep = cjson.decode(retention).cancelled
redis.call('SET', KEYS[2], ARGV[5], 'PX', math.floor(keep * 1000))
redis.call('PUBLISH', KEYS[2], ARGV[5])
finish_as('cancelled')
return { state, 0 }
