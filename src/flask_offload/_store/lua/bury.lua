#!lua flags=allow-oom
-- Keep what a worker cannot read. KEYS: job, result. ARGV: …, fence, error, error type, result.
if not holds(ARGV[4]) then return 0 end
local state = redis.call('HGET', job, 'state')
if not state or FINAL[state] then return 0 end
redis.call('HSET', job, 'error', ARGV[5], 'error_type', ARGV[6])
redis.call('ZADD', prefix .. 'jobs', 'NX', stamp(now), job_id)
local keep = cjson.decode(retention).dead
redis.call('SET', KEYS[2], ARGV[7], 'PX', math.floor(keep * 1000))
redis.call('PUBLISH', KEYS[2], ARGV[7])
finish_as('dead')
return 1
