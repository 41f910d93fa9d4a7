#!lua flags=allow-oom
-- Keep a message that a worker has no use for, until it is due to be published again. KEYS: job.
-- ARGV: …, fence ('0' if it carries none), nesting, retries, fields for a job that has no record,
-- message, seconds until it is due, why it waits, and for how long it may wait for that.
-- Returns parked; drop, if the message is a leftover; or over, if it has waited for too long.
local fence, nesting, retries = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
if redis.call('EXISTS', job) == 0 then
  -- Published by another Celery client.
  set_fields(ARGV[7])
  redis.call('HSET', job, 'state', 'queued', 'created_at', stamp(now),
    'nesting', nesting, 'retries', retries)
  add_to_lists(redis.call('HGET', job, 'owners') or '[]')
end
-- One that is not confirmed yet may be parked: whoever enqueues it settles that on the record.
settle()
if FINAL[redis.call('HGET', job, 'state')] or not holds(fence) then return 'drop' end
-- As in start: of an older attempt it is a leftover, unless the newer one never reached the broker.
if compare_attempt(nesting, retries) < 0 and redis.call('HEXISTS', job, 'unconfirmed_until') == 0 then
  return 'drop'
end
redis.call('HSET', job, 'envelope', ARGV[8])
local since = tonumber(redis.call('HGET', job, 'parked_at') or now)
if now - since > tonumber(ARGV[11]) then
  -- Its publisher may not have noted yet that it is out; what is kept here stays.
  redis.call('ZREM', prefix .. 'scheduled', job_id)
  return 'over'
end
-- The message is in here now. Should its acknowledgement get lost, it must not run beside this.
end_lease()
redis.call('HSETNX', job, 'parked_at', stamp(now))
if redis.call('HGET', job, 'parked') ~= ARGV[10] then
  redis.call('HSET', job, 'parked', ARGV[10])
  event('queued')
end
redis.call('HSET', job, 'state', 'queued')
redis.call('HDEL', job, 'worker', 'done', 'total')
redis.call('ZADD', prefix .. 'scheduled', stamp(now + tonumber(ARGV[9])), job_id)
return 'parked'
