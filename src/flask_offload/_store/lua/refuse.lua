#!lua flags=allow-oom
-- The publish failed: the enqueue raises, and the job must not run even if the message did reach
-- the broker. KEYS: job. ARGV: …, reason. Of a retry, only the new attempt is taken back.
if redis.call('HEXISTS', job, 'unconfirmed_until') == 0 then return 0 end
if tonumber(redis.call('HGET', job, 'starts') or 0) > 0 then
  -- The old message is still there and will be delivered again; start takes it back (see there).
  redis.call('HSET', job, 'unconfirmed_until', stamp(now))
  return 1
end
redis.call('HSET', job, 'error', ARGV[4], 'error_type', 'EnqueueError')
finish_as('failed')
return 1
