-- What every script shares. KEYS[1] is the job's hash; ARGV[1..3] are the same in all.
local prefix, job_id, retention = ARGV[1], ARGV[2], ARGV[3]
local job = KEYS[1]

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

local FINAL = { succeeded = true, failed = true, cancelled = true, dead = true }

local function stamp(time)
  return string.format('%.6f', time)
end

local function event(kind)
  local id = redis.call('XADD', prefix .. 'events', 'MAXLEN', '~', 10000, '*',
    'job', job_id, 'kind', kind)
  redis.call('HSET', job, 'event_id', id)
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

-- The end of a job: from here on nothing changes it, and its keys have a lifetime.
local function finish_as(state)
  local keep = cjson.decode(retention)[state]
  redis.call('HSET', job, 'state', state, 'finished_at', stamp(now))
  redis.call('HDEL', job, 'unconfirmed_until')
  redis.call('ZREM', prefix .. 'unconfirmed', job_id)
  redis.call('PEXPIRE', job, math.floor(keep * 1000))
  redis.call('PEXPIRE', prefix .. 'log:' .. job_id, math.floor(keep * 1000))
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
