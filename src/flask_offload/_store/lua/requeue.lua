#!lua flags=allow-oom
-- The message of a running job went back to the broker. KEYS: job. ARGV: …, nesting, retries,
-- 1 if the start is not to count against the delivery limit.
if redis.call('HGET', job, 'state') ~= 'running' then return 0 end
if compare_attempt(tonumber(ARGV[4]), tonumber(ARGV[5])) ~= 0 then return 0 end
redis.call('HSET', job, 'state', 'queued')
redis.call('HDEL', job, 'worker', 'done', 'total', 'message')
if ARGV[6] == '1' then redis.call('HINCRBY', job, 'deliveries', -1) end
event('queued')
return 1
