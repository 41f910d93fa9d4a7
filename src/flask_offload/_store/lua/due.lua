#!lua flags=allow-oom
-- Take what is due, to publish it to another broker. KEYS: any of the namespace.
-- ARGV: …, how many, seconds until somebody else may take it.
-- Returns the seconds until there is more ('' if nothing waits), and a list of id, fence, queue,
-- message. Each carries a fence of its own: of two messages of one job, only the last may start it.
local count, claim = tonumber(ARGV[4]), tonumber(ARGV[5])
local scheduled = prefix .. 'scheduled'
local WAITS = { scheduled = true, retrying = true, queued = true }

local out = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', scheduled, '-inf', stamp(now), 'LIMIT', 0, count)) do
  job_id, job = id, prefix .. 'job:' .. id
  local known = redis.call('HMGET', job, 'state', 'envelope', 'queue')
  if known[2] and WAITS[known[1]] then
    redis.call('ZADD', scheduled, 'XX', stamp(now + claim), id)
    out[#out + 1] = { id, redis.call('HINCRBY', job, 'fence', 1), known[3] or '', known[2] }
  else
    -- Its message has started already: who published it died before that was noted.
    redis.call('ZREM', scheduled, id)
    if known[2] then redis.call('HDEL', job, 'envelope') end
  end
end
local coming = redis.call('ZRANGE', scheduled, 0, 0, 'WITHSCORES')
return { coming[2] and stamp(math.max(0, tonumber(coming[2]) - now)) or '', out }
