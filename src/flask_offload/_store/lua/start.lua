#!lua flags=allow-oom
-- A worker is about to run the job. KEYS: job, result.
-- ARGV: …, worker, nesting, retries, delivery limit, fields for a job that has no record, fence,
-- lease in seconds, and for how many seconds it has been running if it did not ask before.
-- Returns {verdict, …}: run, owners, locale, request id, root id; wait, seconds; cancelled; dead;
-- or drop, why.
local worker, nesting, retries = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local limit, fields, fence, lease = tonumber(ARGV[7]), ARGV[8], ARGV[9], tonumber(ARGV[10])

if redis.call('EXISTS', job) == 0 then
  -- Published by another Celery client, or the server lost the record and not the message.
  set_fields(fields)
  redis.call('HSET', job, 'state', 'queued', 'created_at', stamp(now),
    'nesting', nesting, 'retries', retries)
  add_to_lists(redis.call('HGET', job, 'owners') or '[]')
end

local state = redis.call('HGET', job, 'state')
if FINAL[state] then return { 'drop', 'it is ' .. state } end
if not holds(fence) then
  -- Told too late: it did start there.
  if tonumber(ARGV[11]) > 0 then redis.call('HINCRBY', job, 'starts', 1) end
  return { 'drop', 'its lease is lost' }
end
local age = compare_attempt(nesting, retries)
if age < 0 then
  -- A message of an attempt that was given up for a newer one. It is a leftover, unless the newer
  -- one never reached the broker: then this one carries on.
  local unconfirmed = tonumber(redis.call('HGET', job, 'unconfirmed_until') or '')
  if not unconfirmed then return { 'drop', 'a newer attempt exists' } end
  if now < unconfirmed then return { 'wait', stamp(unconfirmed - now) } end
  redis.call('HDEL', job, 'unconfirmed_until', 'due_at')
  redis.call('ZREM', prefix .. 'unconfirmed', job_id)
else
  local left = settle()
  if left then return { 'wait', stamp(left) } end
  state = redis.call('HGET', job, 'state')
  if FINAL[state] then return { 'drop', 'it is ' .. state } end
end
if age ~= 0 then redis.call('HSET', job, 'nesting', nesting, 'retries', retries, 'deliveries', 0) end

if redis.call('HEXISTS', job, 'cancel_requested') == 1 then return { 'cancelled' } end
-- Told again by who missed the answer, or by two threads at once: it is the same start.
if state ~= 'running' or age ~= 0 or fence == '0' then
  if tonumber(redis.call('HGET', job, 'deliveries') or 0) >= limit then return { 'dead' } end

  redis.call('HSET', job, 'state', 'running', 'worker', worker)
  note_start(stamp(now - tonumber(ARGV[11])), redis.call('HGET', job, 'first_started_at'))
  redis.call('HDEL', job, 'due_at', 'done', 'total', 'message', 'parked', 'parked_at', 'at_once')
  if fence ~= '0' and redis.call('HEXISTS', job, 'at_most_once') == 0 then
    redis.call('ZADD', prefix .. 'leases', stamp(now + lease), job_id)
  end
  -- The result of an attempt that is over must not be read as the state of this one.
  redis.call('DEL', KEYS[2])
  event('running')
end
local origin = redis.call('HMGET', job, 'owners', 'locale', 'request_id', 'root_id')
return { 'run', origin[1] or '', origin[2] or '', origin[3] or '', origin[4] or '' }
