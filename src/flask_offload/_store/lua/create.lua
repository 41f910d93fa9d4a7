#!lua
-- KEYS: job. ARGV: …, fields, nesting, retries, state, delay, confirm within (seconds; 0: never).
-- Returns created, again (a retry or replacement of the same job), exists, or cancelled.
local fields, nesting, retries = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local state, delay, confirm_within = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])

local old = redis.call('HMGET', job, 'state', 'cancel_requested')
if old[1] then
  -- An enqueue of an id that exists adds nothing, also when that job has finished.
  if FINAL[old[1]] or compare_attempt(nesting, retries) <= 0 then return 'exists' end
  if old[2] then return 'cancelled' end
end

set_fields(fields)
redis.call('HSET', job, 'state', state, 'nesting', nesting, 'retries', retries, 'deliveries', 0)
if delay > 0 then
  redis.call('HSET', job, 'due_at', stamp(now + delay))
else
  redis.call('HDEL', job, 'due_at')
end
if not old[1] then
  redis.call('HSET', job, 'created_at', stamp(now))
  add_to_lists(redis.call('HGET', job, 'owners') or '[]')
end
if confirm_within > 0 then
  redis.call('HSET', job, 'unconfirmed_until', stamp(now + confirm_within))
  redis.call('ZADD', prefix .. 'unconfirmed', stamp(now + confirm_within), job_id)
end
event(state)
return old[1] and 'again' or 'created'
