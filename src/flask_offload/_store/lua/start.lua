#!lua flags=allow-oom
-- A worker is about to run the job. KEYS: job, result.
-- ARGV: …, worker, nesting, retries, delivery limit, fields for a job that has no record.
-- Returns {verdict, …}: run; wait, seconds; dead; or drop, why.
local worker, nesting, retries = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local limit, fields = tonumber(ARGV[7]), ARGV[8]

if redis.call('EXISTS', job) == 0 then
  -- Published by another Celery client, or the server lost the record and not the message.
  set_fields(fields)
  redis.call('HSET', job, 'state', 'queued', 'created_at', stamp(now),
    'nesting', nesting, 'retries', retries)
  add_to_lists(redis.call('HGET', job, 'owners') or '[]')
end

local known = redis.call('HMGET', job, 'state', 'nesting', 'retries', 'unconfirmed_until')
local old_nesting, old_retries = tonumber(known[2] or 0), tonumber(known[3] or 0)
local unconfirmed = tonumber(known[4] or '')
local older = nesting < old_nesting or (nesting == old_nesting and retries < old_retries)
if older and not FINAL[known[1]] then
  -- A message of an attempt that was given up for a newer one. It is a leftover, unless the newer
  -- one never reached the broker: then this one carries on.
  if not unconfirmed then return { 'drop', 'a newer attempt exists' } end
  if now < unconfirmed then return { 'wait', stamp(unconfirmed - now) } end
  redis.call('HDEL', job, 'unconfirmed_until', 'due_at')
  redis.call('ZREM', prefix .. 'unconfirmed', job_id)
  redis.call('HSET', job, 'nesting', nesting, 'retries', retries)
else
  local left = settle()
  if left then return { 'wait', stamp(left) } end
end

local state = redis.call('HGET', job, 'state')
if FINAL[state] then return { 'drop', 'it is ' .. state } end
if redis.call('HEXISTS', job, 'cancel_requested') == 1 then
  finish_as('cancelled')
  return { 'drop', 'it is cancelled' }
end
if tonumber(redis.call('HGET', job, 'deliveries') or 0) >= limit then
  redis.call('HSET', job, 'error_type', 'WorkerLostError', 'error',
    string.format('Started %d times, and no worker lived to finish it.', limit))
  finish_as('dead')
  return { 'dead' }
end
redis.call('HSET', job, 'state', 'running', 'started_at', stamp(now), 'worker', worker)
redis.call('HINCRBY', job, 'deliveries', 1)
redis.call('HINCRBY', job, 'starts', 1)
redis.call('HDEL', job, 'due_at', 'done', 'total', 'message')
-- The result of an attempt that is over must not be read as the state of this one.
redis.call('DEL', KEYS[2])
event('running')
return { 'run' }
