#!lua
-- Move one message of a queue of stock Celery into the line, or among the dead.
-- KEYS: job, old list or hash, old index of the hash. ARGV: …, fields as JSON, nesting, retries,
-- state, delay, 0, message, 0, field of the hash ('' for the tail of the list), SHA-1 of what is
-- there ('' if it is on another server), and why it cannot be read ('' if it can).
-- Returns what enqueue does for one job; carried, for a record whose message was here; buried; moved, if
-- something else is there by now; or wait, seconds: its enqueue is under way.
local field, digest, unreadable = ARGV[#ARGV - 2], ARGV[#ARGV - 1], ARGV[#ARGV]
local nesting, retries, state = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local delay, confirm_within, message = tonumber(ARGV[8]), 0, ARGV[10]
local queue, priority, owners, unique = '', 0, '', ''
local fields, lines = {}, {}
for name, value in pairs(cjson.decode(ARGV[4])) do
  if name == 'queue' then queue = value
  elseif name == 'priority' then priority = tonumber(value)
  elseif name == 'owners' then owners = value
  elseif name == 'unique' then unique = value
  else
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
end

-- include _accept as accept

-- A record without a message: it was enqueued by way of the stock transport, and this is it.
local function carry(nesting, retries)
  local age = compare_attempt(nesting, retries)
  if age < 0 then
    -- A leftover, unless the newer attempt never reached the broker (as in start).
    local unconfirmed = tonumber(redis.call('HGET', job, 'unconfirmed_until') or '')
    if not unconfirmed then return { 'exists' } end
    if now < unconfirmed then return { 'wait', stamp(unconfirmed - now) } end
    redis.call('HDEL', job, 'unconfirmed_until')
    redis.call('ZREM', prefix .. 'unconfirmed', job_id)
  else
    local left = settle()
    if left then return { 'wait', stamp(left) } end
    -- It was refused: whoever enqueued it was told so.
    if FINAL[redis.call('HGET', job, 'state')] then return { 'exists' } end
  end
  leave_line()
  end_lease()
  local state, delay = ARGV[7], tonumber(ARGV[8])
  if age ~= 0 then redis.call('HSET', job, 'nesting', nesting, 'retries', retries, 'deliveries', 0) end
  redis.call('HSET', job, 'state', state, 'envelope', ARGV[10], 'queue', cjson.decode(ARGV[4]).queue)
  redis.call('HDEL', job, 'worker', 'done', 'total', 'message', 'due_at', 'place')
  if delay > 0 then
    redis.call('HSET', job, 'due_at', stamp(now + delay))
    redis.call('ZADD', prefix .. 'scheduled', stamp(now + delay), job_id)
  else
    line_up(redis.call('HGET', job, 'queue'))
  end
  event(state)
  return { 'carried' }
end

local function bury()
  -- The id is made of the bytes: the same ones are buried once.
  if redis.call('EXISTS', job) == 1 then return { 'exists' } end
  set_fields(ARGV[4])
  redis.call('HSET', job, 'created_at', stamp(now), 'raw', ARGV[10], 'error', unreadable,
    'error_type', 'UnreadableMessage')
  add_to_lists('[]')
  finish_as('dead')
  return { 'buried' }
end

local function transfer()
  if unreadable ~= '' then return bury() end
  local known = redis.call('HMGET', job, 'state', 'envelope')
  if known[1] and not known[2] and not FINAL[known[1]] then
    return carry(tonumber(ARGV[5]), tonumber(ARGV[6]))
  end
  return accept()
end

if digest == '' then return transfer() end
local entry
if field == '' then
  entry = redis.call('LINDEX', KEYS[2], -1)
else
  entry = redis.call('HGET', KEYS[2], field)
end
if not entry or redis.sha1hex(entry) ~= digest then return { 'moved' } end
local answer = transfer()
if answer[1] ~= 'wait' and answer[1] ~= 'late' then
  if field == '' then
    redis.call('RPOP', KEYS[2])
  else
    redis.call('HDEL', KEYS[2], field)
    redis.call('ZREM', KEYS[3], field)
  end
end
return answer
