#!lua flags=allow-oom
-- The message is dealt with. KEYS: job. ARGV: …, fence. A job that is not over by then was
-- acknowledged early: it runs at most once, and nobody starts it again.
if not holds(ARGV[4]) then return 0 end
redis.call('ZREM', prefix .. 'leases', job_id)
local state = redis.call('HGET', job, 'state')
if state and not FINAL[state] then redis.call('HSET', job, 'at_most_once', '1') end
return 1
