#!lua
-- Accept a job. KEYS: job. ARGV: …, fields, nesting, retries, state, delay,
-- confirm within (seconds; 0: it is confirmed by this), message ('' where another broker has it),
-- valid until (by this server's clock).
-- Returns created, again (a retry or replacement of the same job), exists, or cancelled; or
-- unique, id: the job that exists in its place; or late.
local fields, nesting, retries = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local state, delay, confirm_within = ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local message = ARGV[10]

-- A server that was paused, or a connection that held this back: whoever sent it has given up and
-- told the person that the job was not accepted.
if now > tonumber(ARGV[11]) then return { 'late' } end

local old = redis.call('HMGET', job, 'state', 'cancel_requested')
if old[1] then
  -- An enqueue of an id that exists adds nothing, also when that job has finished.
  if FINAL[old[1]] or compare_attempt(nesting, retries) <= 0 then return { 'exists' } end
  if old[2] then return { 'cancelled' } end
  -- Whoever holds the attempt before has nothing to give back and nothing to finish any more.
  leave_line()
  end_lease()
end

local unique = cjson.decode(fields).unique
if unique and not old[1] then
  local holder = redis.call('GET', prefix .. 'unique:' .. unique)
  local its = holder and redis.call('HGET', prefix .. 'job:' .. holder, 'state')
  -- The lock is as old as its job: one that has finished, or has expired, holds nothing.
  if its and not FINAL[its] then return { 'unique', holder } end
  redis.call('SET', prefix .. 'unique:' .. unique, job_id)
end

set_fields(fields)
redis.call('HSET', job, 'state', state, 'nesting', nesting, 'retries', retries, 'deliveries', 0)
redis.call('HDEL', job, 'due_at', 'place')
if not old[1] then
  redis.call('HSET', job, 'created_at', stamp(now))
  add_to_lists(redis.call('HGET', job, 'owners') or '[]')
end
if confirm_within > 0 then
  redis.call('HSET', job, 'unconfirmed_until', stamp(now + confirm_within))
  redis.call('ZADD', prefix .. 'unconfirmed', stamp(now + confirm_within), job_id)
end
if delay > 0 then redis.call('HSET', job, 'due_at', stamp(now + delay)) end
if message ~= '' then
  redis.call('HSET', job, 'envelope', message)
  if delay > 0 then
    redis.call('ZADD', prefix .. 'scheduled', stamp(now + delay), job_id)
  else
    line_up(redis.call('HGET', job, 'queue'))
  end
end
event(state)
return { old[1] and 'again' or 'created' }
