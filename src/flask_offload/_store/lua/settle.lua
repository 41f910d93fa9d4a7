#!lua flags=allow-oom
-- Ends the enqueues that nobody confirmed in time. KEYS: any of the namespace. ARGV: …, most at once.
local late = redis.call('ZRANGEBYSCORE', prefix .. 'unconfirmed', '-inf', stamp(now), 'LIMIT', 0, ARGV[4])
for _, id in ipairs(late) do
  job_id, job = id, prefix .. 'job:' .. id
  redis.call('ZREM', prefix .. 'unconfirmed', id)
  -- Of a retry the mark stays: start needs it to let the older message carry on.
  if tonumber(redis.call('HGET', job, 'starts') or 0) == 0 then settle() end
end
return 1
