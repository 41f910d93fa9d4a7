#!lua flags=allow-oom
-- Hand out jobs, each with a lease and a fence. KEYS: any of the namespace.
-- ARGV: …, worker, how many, lease in seconds, queues as JSON, in the order of this turn.
-- Returns a list of id, fence, queue, message.
local worker, count, lease = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])

local function of(id)
  job_id, job = id, prefix .. 'job:' .. id
end

-- Bury what nobody can run, with what there is of it: it must neither be lost nor come again.
local function bury(why)
  local kind = redis.call('TYPE', job).ok
  if kind ~= 'hash' and kind ~= 'none' then
    -- The raw bytes stay beside the record, and go with it.
    redis.call('RENAME', job, job .. ':raw')
    redis.call('PEXPIRE', job .. ':raw', math.floor(cjson.decode(retention).dead * 1000))
  end
  redis.call('HSETNX', job, 'created_at', stamp(now))
  redis.call('HSET', job, 'error', why, 'error_type', 'UnreadableMessage')
  add_to_lists('[]')
  finish_as('dead')
end

-- Nobody asked for a while: this server was away, or all workers were. Those that are alive could
-- not say so; they get the time to.
local pulse = tonumber(redis.call('GET', prefix .. 'pulse') or now)
redis.call('SET', prefix .. 'pulse', stamp(now))
if now - pulse > 5 then
  local until_then = stamp(now + lease / 3 + 2)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'leases', '-inf', until_then)) do
    redis.call('ZADD', prefix .. 'leases', 'XX', until_then, id)
  end
end

-- What is due lines up; what its worker no longer holds lines up again, in its old place.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'scheduled', '-inf', stamp(now), 'LIMIT', 0, 100)) do
  of(id)
  redis.call('ZREM', prefix .. 'scheduled', id)
  local queue = redis.pcall('HGET', job, 'queue')
  if type(queue) ~= 'string' then
    bury('It was scheduled without a message.')
  else
    redis.call('HSET', job, 'state', 'queued')
    redis.call('HDEL', job, 'due_at')
    line_up(queue)
    event('queued')
  end
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'leases', '-inf', stamp(now), 'LIMIT', 0, 100)) do
  of(id)
  redis.call('ZREM', prefix .. 'leases', id)
  local known = redis.pcall('HMGET', job, 'state', 'queue')
  if known.err or not known[1] or not known[2] then
    bury('It was handed out without a message.')
  elseif not FINAL[known[1]] then
    end_lease()
    redis.call('HSET', job, 'state', 'queued')
    redis.call('HDEL', job, 'worker', 'done', 'total')
    redis.call('HINCRBY', job, 'leases_lost', 1)
    line_up(known[2])
    event('queued')
  end
end

local out = {}
for _, queue in ipairs(cjson.decode(ARGV[7])) do
  local line = prefix .. 'queue:' .. queue
  if redis.call('SISMEMBER', prefix .. 'paused', queue) == 0 then
    while #out < count do
      local popped = redis.call('ZPOPMIN', line)
      if #popped == 0 then break end
      of(popped[1])
      local known = redis.pcall('HMGET', job, 'state', 'envelope', 'leases_lost', 'starts')
      if known.err or not known[2] then
        bury('The queue held an entry without a message.')
      elseif not FINAL[known[1]] then
        if tonumber(known[3] or 0) > 20 and not known[4] then
          bury('Twenty workers were lost before they could start it.')
        else
          local fence = redis.call('HINCRBY', job, 'fence', 1)
          redis.call('ZADD', prefix .. 'leases', stamp(now + lease), job_id)
          redis.call('HSET', job, 'worker', worker)
          out[#out + 1] = { job_id, tostring(fence), queue, known[2] }
        end
      end
    end
    if redis.call('ZCARD', line) > 0 then wake(queue) end
  end
end
return out
