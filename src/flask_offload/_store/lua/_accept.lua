-- What enqueue and adopt do to accept a job.
-- They set what is read here: nesting, retries, state, delay, confirm_within, message, queue,
-- priority, owners, unique, fields, and lines: those that they have put a job in.
local old = redis.call('HGET', job, 'state')
if FINAL[old] and redis.call('HEXISTS', job, 'reuse') == 1 then
  -- A new job in its place; see reuse. What still comes from the one before is refused.
  local known = redis.call('HMGET', job, 'fence', 'owners')
  redis.call('ZREM', prefix .. 'expiry', job_id .. '\n' .. (known[2] or '[]'))
  redis.call('ZREM', prefix .. 'dead', job_id)
  redis.call('DEL', job, prefix .. 'log:' .. job_id)
  redis.call('HSET', job, 'fence', (known[1] or 0) + 1)
  old = nil
end
if old then
  -- An enqueue of an id that exists adds nothing, also when that job has finished.
  if FINAL[old] or compare_attempt(nesting, retries) <= 0 then return { 'exists' } end
  if redis.call('HEXISTS', job, 'cancel_requested') == 1 then return { 'cancelled' } end
  -- Whoever holds the attempt before has nothing to give back and nothing to finish any more.
  leave_line()
  end_lease()
  -- What is as usual comes without a value.
  redis.call('HDEL', job, 'due_at', 'place', 'deliveries', 'nesting', 'retries', 'max_retries',
    'args', 'kwargs', 'owners', 'priority')
elseif unique ~= '' then
  local holder = redis.call('GET', prefix .. 'unique:' .. unique)
  local its = holder and redis.call('HGET', prefix .. 'job:' .. holder, 'state')
  -- The lock is as old as its job: one that has finished, or has expired, holds nothing.
  if its and not FINAL[its] then return { 'unique', holder } end
  redis.call('SET', prefix .. 'unique:' .. unique, job_id)
end

local at, n = stamp(now), #fields
local function set(field, value)
  fields[n + 1], fields[n + 2] = field, value
  n = n + 2
end

set('state', state)
set('queue', queue)
if nesting > 0 then set('nesting', nesting) end
if retries > 0 then set('retries', retries) end
if priority ~= 0 then set('priority', priority) end
if owners ~= '' then set('owners', owners) end
if unique ~= '' then set('unique', unique) end
if message ~= '' then set('envelope', message) end
if delay > 0 then set('due_at', stamp(now + delay)) end
if not old then
  set('created_at', at)
  if owners == '' then
    redis.call('ZADD', prefix .. 'jobs', at, job_id)
  else
    add_to_lists(owners)
  end
end
if confirm_within > 0 then
  set('unconfirmed_until', stamp(now + confirm_within))
  redis.call('ZADD', prefix .. 'unconfirmed', stamp(now + confirm_within), job_id)
end
if message ~= '' then
  if delay > 0 then
    redis.call('ZADD', prefix .. 'scheduled', stamp(now + delay), job_id)
    -- Nobody knows yet that it is due sooner than all others: whoever looks sets a timer.
    if redis.call('ZRANGE', prefix .. 'scheduled', 0, 0)[1] == job_id then wake(queue) end
  else
    local place = next_place(priority)
    set('place', place)
    if lines[queue] then
      redis.call('ZADD', prefix .. 'queue:' .. queue, place, job_id)
    else
      -- The first of several of a call wakes a worker for all.
      stand_at(place, queue)
      lines[queue] = true
    end
  end
end
count(state == 'retrying' and 'retried' or 'enqueued')
set('event_id', add_event(state))
redis.call('HSET', job, unpack(fields))
return { old and 'again' or 'created' }
