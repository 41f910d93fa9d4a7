#!lua flags=allow-oom
-- KEYS: job, result. ARGV: …, by whom, result of a cancelled job.
-- Returns the state before, and whether the job must be stopped where it runs; or nothing.
local state = redis.call('HGET', job, 'state')
if not state then return {} end
if FINAL[state] then return { state, 0 } end
redis.call('HSET', job, 'cancelled_by', ARGV[4])
if state == 'running' then
  redis.call('HSET', job, 'cancel_requested', '1')
  event('cancelling')
  return { state, 1 }
end
local keep = cjson.decode(retention).cancelled
redis.call('SET', KEYS[2], ARGV[5], 'PX', math.floor(keep * 1000))
redis.call('PUBLISH', KEYS[2], ARGV[5])
finish_as('cancelled')
return { state, 0 }
