#!lua flags=allow-oom
-- Hand out jobs, each with a lease and a fence. KEYS: any of the namespace.
-- ARGV: …, worker, how many of those that take their turn in the pool, lease in seconds, queues as
-- JSON, in the order of this turn, how many can start at once, seconds of work that each of these
-- may have waiting behind it, as JSON the seconds that a task takes which may wait so, and whether
-- the worker waits for what is due next (0 or 1).
-- Returns the seconds until the next job is due ('' for none), whether more are waiting (0 or 1),
-- and then id, fence, queue, message, whether it may start without asking (0 or 1), owners,
-- locale, request id and root id of each.
local worker, room, lease = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local slots, share, known_costs = tonumber(ARGV[8]), tonumber(ARGV[9]), cjson.decode(ARGV[10])

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
if now - pulse > 1 or pulse == now then redis.call('SET', prefix .. 'pulse', stamp(now)) end
if now - pulse > 5 then
  local until_then = stamp(now + lease / 3 + 2)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'leases', '-inf', until_then)) do
    redis.call('ZADD', prefix .. 'leases', 'XX', until_then, id)
  end
end

-- What is due lines up; what its worker no longer holds lines up again, in its old place.
local lined_up = {}
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
    lined_up[queue] = true
    event('queued')
  end
end
-- When the last came back of those that were lost more than once; its fetch may have been another.
local apart
for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'leases', '-inf', stamp(now), 'LIMIT', 0, 100)) do
  of(id)
  redis.call('ZREM', prefix .. 'leases', id)
  local known = redis.pcall('HMGET', job, 'state', 'queue', 'leases_lost')
  if known.err or not known[1] or not known[2] then
    bury('It was handed out without a message.')
  elseif not FINAL[known[1]] then
    end_lease()
    redis.call('HSET', job, 'state', 'queued')
    redis.call('HDEL', job, 'worker', 'done', 'total')
    redis.call('HINCRBY', job, 'leases_lost', 1)
    count('leases_lost')
    -- One of those that were lost together before may be what ends their workers. A second apart
    -- from each other, the others live to see their end.
    if known[3] then
      apart = math.max(now, (apart or tonumber(redis.call('GET', prefix .. 'apart') or 0)) + 1)
      if apart > now + 100 then apart = now end
      redis.call('SET', prefix .. 'apart', stamp(apart), 'PX', math.ceil((apart - now + 1) * 1000))
    end
    if known[3] and apart > now then
      redis.call('ZADD', prefix .. 'scheduled', stamp(apart), id)
    else
      line_up(known[2])
    end
    event('queued')
  end
end

-- Most jobs of one answer: it is in the memory of the worker all at once.
local MOST = 100
local out, waiting, handed, until_when = { '', 0 }, 0, 0, stamp(now + lease)

-- Whether there is a place for a job of this task. What is known to be quick may wait behind
-- others that are; what is slow, or not known yet, starts at once or stays here.
local function fits(task)
  local cost = known_costs[task]
  if not cost and room <= 0 then return false end
  if not cost or cost > share then
    if slots <= 0 or (waiting > share * (slots - 1)) then return false end
    slots = slots - 1
    if not cost then room = room - 1 end
    return true
  end
  if slots <= 0 or waiting + cost > share * slots then return false end
  waiting = waiting + cost
  return true
end

local OF_JOB = { 'state', 'envelope', 'task', 'fence', 'owners', 'locale', 'request_id', 'root_id' }
-- What only one can have that somebody has had in hand.
local OF_BEFORE = { 'leases_lost', 'starts', 'deliveries', 'cancel_requested', 'at_most_once', 'in_pool' }
local leases = {}

-- Hand out the first of a queue; false if there is no place for it.
local function hand_out(queue)
  local known = redis.pcall('HMGET', job, unpack(OF_JOB))
  if known.err or not known[2] then
    bury('The queue held an entry without a message.')
    return true
  end
  if FINAL[known[1]] then return true end
  local task, at_once = known[3], true
  if known[4] then
    local before = redis.call('HMGET', job, unpack(OF_BEFORE))
    if tonumber(before[1] or 0) > 20 and not before[2] then
      bury('Twenty workers were lost before they could start it.')
      return true
    end
    if before[6] then task = '' end
    -- One that was never started, and that nobody wants stopped, starts without asking: its start
    -- is told later, or together with its end.
    at_once = not before[1] and not before[4] and not before[5] and (before[3] or '0') == '0'
  end
  if not fits(task or '') then return false end
  local fence = tonumber(known[4] or 0) + 1
  leases[#leases + 1], leases[#leases + 2] = until_when, job_id
  if at_once then
    -- 2: no other has had it in hand before, so that there is less for finish to ask for.
    redis.call('HSET', job, 'fence', fence, 'worker', worker, 'at_once', known[4] and 1 or 2)
  else
    redis.call('HSET', job, 'fence', fence, 'worker', worker)
  end
  handed = handed + 1
  local size = #out
  out[size + 1], out[size + 2], out[size + 3] = job_id, tostring(fence), queue
  out[size + 4], out[size + 5] = known[2], at_once and 1 or 0
  for i = 5, 8 do
    out[size + i + 1] = known[i] or ''
  end
  return true
end

for _, queue in ipairs(cjson.decode(ARGV[7])) do
  local line = prefix .. 'queue:' .. queue
  if redis.call('SISMEMBER', prefix .. 'paused', queue) == 0 then
    local going = true
    while going and handed < MOST do
      -- Several at once, where several may fit; those that do not go back to where they were.
      local popped = redis.call('ZPOPMIN', line, share > 0 and 20 or 1)
      if #popped == 0 then break end
      local back = {}
      for i = 1, #popped, 2 do
        of(popped[i])
        going = going and hand_out(queue)
        if not going then
          back[#back + 1] = popped[i + 1]
          back[#back + 1] = popped[i]
        end
      end
      if #back > 0 then redis.call('ZADD', line, unpack(back)) end
    end
    if redis.call('ZCARD', line) > 0 then
      out[2] = 1
      wake(queue)
    elseif lined_up[queue] then
      -- What lined up has been handed out: nobody needs to look.
      redis.call('DEL', prefix .. 'wake:' .. queue)
    end
  end
end
if #leases > 0 then redis.call('ZADD', prefix .. 'leases', unpack(leases)) end

local due = redis.call('ZRANGE', prefix .. 'scheduled', 0, 0, 'WITHSCORES')
if due[2] then
  local left = math.max(0, tonumber(due[2]) - now)
  if ARGV[11] == '1' and left < 1.5 then
    -- All who wait would come at once. One is told the time, and comes early to be there in time;
    -- the others a little more, should that one have something else to do by then.
    local known, me = redis.call('GET', prefix .. 'next'), due[1] .. ' ' .. worker
    if not known or string.sub(known, 1, #due[1] + 1) ~= due[1] .. ' ' then
      redis.call('SET', prefix .. 'next', me, 'PX', 2000)
    elseif known ~= me then
      left = left + 0.003
    end
  end
  out[1] = stamp(left)
end
return out
