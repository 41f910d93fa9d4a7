-- What every script shares. KEYS[1] is the job's hash; ARGV[1..3] are the same in all.
local prefix, job_id, retention = ARGV[1], ARGV[2], ARGV[3]
local job = KEYS[1]

local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000

local FINAL = { succeeded = true, failed = true, cancelled = true, dead = true }

local function stamp(time)
  return string.format('%.6f', time)
end

-- Go on with another job, in a script that is for several.
local function of(id)
  job_id, job = id, prefix .. 'job:' .. id
end

-- What happens is counted once a script, however many jobs it is for: in all, and by the minute.
local counts = {}

local function count(what, by)
  counts[what] = (counts[what] or 0) + (by or 1)
end

local function save_counts()
  if not next(counts) then return end
  local minute = prefix .. 'minute:' .. math.floor(now / 60)
  for what, by in pairs(counts) do
    redis.call('HINCRBY', prefix .. 'totals', what, by)
    -- The first of its kind in a minute may be what made the hash.
    if redis.call('HINCRBY', minute, what, by) == by then redis.call('EXPIRE', minute, 90000) end
  end
end

local function add_event(kind)
  -- It is cut to its length now and then: to look at it each time costs as much as to add to it.
  if clock[2] % 64 == 0 then
    return redis.call('XADD', prefix .. 'events', 'MAXLEN', '~', 10000, '*',
      'job', job_id, 'kind', kind)
  end
  return redis.call('XADD', prefix .. 'events', '*', 'job', job_id, 'kind', kind)
end

-- One for several that have come to the same.
local function add_events(ids, kind)
  if #ids == 1 then
    job_id = ids[1]
    return add_event(kind)
  end
  -- These are long, so that there are fewer of them.
  return redis.call('XADD', prefix .. 'events', 'MAXLEN', '~', 1000, '*',
    'jobs', table.concat(ids, ' '), 'kind', kind)
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
-- there is more. The queue of a marker is known: it is noted together with it.
local function wake(queue)
  local marker = prefix .. 'wake:' .. queue
  if redis.call('LLEN', marker) == 0 then
    redis.call('SADD', prefix .. 'queues', queue)
    redis.call('LPUSH', marker, 1)
  end
end

-- A script that is for many takes the numbers of all at once.
local numbers, arrival, last_arrival = 1, 0, 0

local function next_place(priority)
  -- Priority 0 goes first, as in Celery on Redis; then the order of arrival.
  if arrival == last_arrival then
    last_arrival = redis.call('INCRBY', prefix .. 'arrivals', numbers)
    arrival = last_arrival - numbers
  end
  arrival = arrival + 1
  return string.format('%.0f', priority * 8796093022208 + arrival)
end

local function stand_at(place, queue)
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
  redis.call('HDEL', job, 'at_once')
end

-- Whether the holder of a token may still act. 0 is the token of brokers that have no leases.
local function holds(fence)
  return fence == '0' or redis.call('HGET', job, 'fence') == fence
end

-- One start more on the record. The first one stays known.
local function note_start(at, first)
  redis.call('HSET', job, 'started_at', at)
  if not first then redis.call('HSET', job, 'first_started_at', at) end
  redis.call('HINCRBY', job, 'deliveries', 1)
  redis.call('HINCRBY', job, 'starts', 1)
end

local function leave_line()
  local queue = redis.call('HGET', job, 'queue')
  if queue then redis.call('ZREM', prefix .. 'queue:' .. queue, job_id) end
  redis.call('ZREM', prefix .. 'scheduled', job_id)
end

-- The dead are kept for long, and are bounded by their number too. Who has to go is forgotten by
-- the next prune, with its files.
local function bound_the_dead()
  redis.call('ZADD', prefix .. 'dead', stamp(now), job_id)
  local over = redis.call('ZCARD', prefix .. 'dead') - 10000
  if over <= 0 then return end
  for _, id in ipairs(redis.call('ZRANGE', prefix .. 'dead', 0, over - 1)) do
    local owners = redis.call('HGET', prefix .. 'job:' .. id, 'owners') or '[]'
    redis.call('ZREM', prefix .. 'dead', id)
    redis.call('ZADD', prefix .. 'expiry', 'XX', stamp(now), id .. '\n' .. owners)
    count('dead_dropped')
  end
end

-- The end of a job: from here on nothing changes it, and its keys have a lifetime.
local keep_for, end_times = nil, {}

-- How long it is kept, in milliseconds, its end, and when it is forgotten. Worked out once in a
-- script that is for several.
local function times_of(state)
  local times = end_times[state]
  if not times then
    keep_for = keep_for or cjson.decode(retention)
    local keep = math.floor(keep_for[state] * 1000)
    times = { keep, stamp(now), stamp(now + keep / 1000) }
    end_times[state] = times
  end
  return times
end

-- The lists to leave are kept in what expires, because the hash is gone when prune comes.
local function expiring(owners)
  return job_id .. '\n' .. (owners or '[]')
end

local OF_END = { 'unique', 'owners', 'unconfirmed_until', 'log_lines' }

-- Its record. Known are the values of OF_END; fields are others to set, and their values.
local function close(state, known, fields, event_id)
  local times, size = times_of(state), #fields
  if known[3] then
    redis.call('HDEL', job, 'unconfirmed_until')
    redis.call('ZREM', prefix .. 'unconfirmed', job_id)
  end
  fields[size + 1], fields[size + 2] = 'state', state
  fields[size + 3], fields[size + 4] = 'finished_at', times[2]
  fields[size + 5], fields[size + 6] = 'event_id', event_id
  redis.call('HSET', job, unpack(fields))
  redis.call('PEXPIRE', job, times[1])
  if known[4] then redis.call('PEXPIRE', prefix .. 'log:' .. job_id, times[1]) end
  if known[1] and redis.call('GET', prefix .. 'unique:' .. known[1]) == job_id then
    redis.call('DEL', prefix .. 'unique:' .. known[1])
  end
  if state == 'dead' then bound_the_dead() end
  count(state)
end

local function finish_as(state, fields)
  local known = redis.call('HMGET', job, unpack(OF_END))
  leave_line()
  redis.call('ZREM', prefix .. 'leases', job_id)
  redis.call('ZADD', prefix .. 'expiry', times_of(state)[3], expiring(known[2]))
  close(state, known, fields or {}, add_event(state))
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
