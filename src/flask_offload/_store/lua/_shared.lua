-- What every script shares. KEYS[1] is the job's hash; ARGV[1..3] are the same in all.
local prefix, job_id, retention = ARGV[1], ARGV[2], ARGV[3]
local job = KEYS[1]

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

local FINAL = { succeeded = true, failed = true, cancelled = true, dead = true }

local function stamp(time)
  return string.format('%.6f', time)
end

local function add_event(kind)
  return redis.call('XADD', prefix .. 'events', 'MAXLEN', '~', 10000, '*',
    'job', job_id, 'kind', kind)
end

local function event(kind)
  redis.call('HSET', job, 'event_id', add_event(kind))
end

local function set_fields(json)
  for field, value in pairs(cjson.decode(json)) do
    redis.call('HSET', job, field, value)
  end
end

-- How an attempt compares with the one on record: above 0 it is newer, below 0 older.
local function compare_attempt(nesting, retries)
  local known = redis.call('HMGET', job, 'nesting', 'retries')
  local by_nesting = nesting - tonumber(known[1] or 0)
  if by_nesting ~= 0 then return by_nesting end
  return retries - tonumber(known[2] or 0)
end

local function add_to_lists(owners)
  redis.call('ZADD', prefix .. 'jobs', stamp(now), job_id)
  for _, owner in ipairs(cjson.decode(owners)) do
    redis.call('ZADD', prefix .. 'owner:' .. owner, stamp(now), job_id)
  end
end

-- Line up. A job keeps its place for as long as it lives, so one that comes back from a dead
-- worker is not at the end of the line. One marker wakes one worker, which sets it again while
-- there is more.
local function wake(queue)
  local marker = prefix .. 'wake:' .. queue
  if redis.call('LLEN', marker) == 0 then redis.call('LPUSH', marker, 1) end
end

local function next_place(priority)
  -- Priority 0 goes first, as in Celery on Redis; then the order of arrival.
  local arrival = redis.call('INCR', prefix .. 'arrivals')
  return string.format('%.0f', priority * 8796093022208 + arrival)
end

local function stand_at(place, queue)
  redis.call('SADD', prefix .. 'queues', queue)
  redis.call('ZADD', prefix .. 'queue:' .. queue, place, job_id)
  wake(queue)
end

local function line_up(queue)
  local place = redis.call('HGET', job, 'place')
  if not place then
    place = next_place(tonumber(redis.call('HGET', job, 'priority') or 0))
    redis.call('HSET', job, 'place', place)
  end
  stand_at(place, queue)
end

-- Nobody holds the job any more, and what comes from who held it is refused.
local function end_lease()
  redis.call('ZREM', prefix .. 'leases', job_id)
  redis.call('HINCRBY', job, 'fence', 1)
end

-- Whether the holder of a token may still act. 0 is the token of brokers that have no leases.
local function holds(fence)
  return fence == '0' or redis.call('HGET', job, 'fence') == fence
end

local function leave_line()
  local queue = redis.call('HGET', job, 'queue')
  if queue then redis.call('ZREM', prefix .. 'queue:' .. queue, job_id) end
  redis.call('ZREM', prefix .. 'scheduled', job_id)
end

-- The end of a job: from here on nothing changes it, and its keys have a lifetime.
local function finish_as(state)
  local keep = cjson.decode(retention)[state]
  leave_line()
  redis.call('ZREM', prefix .. 'leases', job_id)
  redis.call('HSET', job, 'state', state, 'finished_at', stamp(now))
  redis.call('HDEL', job, 'unconfirmed_until')
  redis.call('ZREM', prefix .. 'unconfirmed', job_id)
  redis.call('PEXPIRE', job, math.floor(keep * 1000))
  redis.call('PEXPIRE', prefix .. 'log:' .. job_id, math.floor(keep * 1000))
  local unique = redis.call('HGET', job, 'unique')
  if unique and redis.call('GET', prefix .. 'unique:' .. unique) == job_id then
    redis.call('DEL', prefix .. 'unique:' .. unique)
  end
  -- The lists to leave are kept here, because the hash is gone when prune comes.
  local owners = redis.call('HGET', job, 'owners') or '[]'
  redis.call('ZADD', prefix .. 'expiry', stamp(now + keep), job_id .. '\n' .. owners)
  event(state)
end

-- A record is written before its message is published, and confirmed after. One that nobody
-- confirmed in time belongs to an enqueue that raised, or to a process that died in between: it
-- must neither run nor stay "queued". Returns the seconds left, if it may still be confirmed.
local function settle()
  local limit = tonumber(redis.call('HGET', job, 'unconfirmed_until') or '')
  if not limit then return nil end
  if now < limit then return limit - now end
  if tonumber(redis.call('HGET', job, 'starts') or 0) > 0 then
    -- A retry, published by a worker that still holds the message before it: nothing is lost.
    redis.call('HDEL', job, 'unconfirmed_until')
    return nil
  end
  redis.call('HSET', job, 'error_type', 'EnqueueError',
    'error', 'The enqueue was interrupted before the broker had the message.')
  finish_as('failed')
  return nil
end
