#!lua flags=allow-oom
-- What a background view answered. KEYS: job. ARGV: …, what is shown of it, all of it (both JSON),
-- fence. Returns 0 if the job is over, or somebody else's by now.
local state = redis.call('HGET', job, 'state')
if not state or FINAL[state] or not holds(ARGV[6]) then return 0 end
redis.call('HSET', job, 'response', ARGV[4], 'response_kept', ARGV[5])
return 1
