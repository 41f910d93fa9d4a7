#!lua flags=allow-oom
-- The broker has the message. KEYS: job. Returns 0 if it came too late and the job was refused.
settle()
local fields = redis.call('HMGET', job, 'state', 'error_type')
if not fields[1] or (fields[1] == 'failed' and fields[2] == 'EnqueueError') then return 0 end
redis.call('HDEL', job, 'unconfirmed_until')
redis.call('ZREM', prefix .. 'unconfirmed', job_id)
return 1
