#!lua flags=allow-oom
-- What came of jobs. KEYS: any of the namespace. ARGV: …, then of each: id, result ('' for none),
-- fence, the seconds that it ran if its start was not told ('' if it was), and, as JSON, state ('' for
-- a state of the user's own), fields, nesting and retries; or '' if the first attempt succeeded.
-- Writes the result and the state of the record at once. The first finish wins; of each returns 1;
-- 0 if the job was over, or has gone on to a newer attempt; -1 if its lease is lost.
keep_for = cjson.decode(retention)

-- Those that are over, by their state: they leave their lists, and are told, together.
local ended, order, over = {}, {}, {}

local function note_end(state, known, fields)
  local those = ended[state]
  if not those then
    those = { ids = {}, known = {}, fields = {}, expiring = {} }
    ended[state], order[#order + 1] = those, state
  end
  local n = #those.ids + 1
  those.ids[n], those.known[n], those.fields[n] = job_id, known, fields
  those.expiring[2 * n - 1], those.expiring[2 * n] = times_of(state)[3], expiring(known[2])
  over[job_id] = true
end

local function write_ends()
  for _, state in ipairs(order) do
    local those = ended[state]
    redis.call('ZREM', prefix .. 'leases', unpack(those.ids))
    redis.call('ZADD', prefix .. 'expiry', unpack(those.expiring))
    local event_id = add_events(those.ids, state)
    for n, id in ipairs(those.ids) do
      of(id)
      close(state, those.known[n], those.fields[n], event_id)
    end
  end
  ended, order, over = {}, {}, {}
end

-- The first are those of OF_END.
local OF_JOB = { 'unique', 'owners', 'unconfirmed_until', 'log_lines', 'state', 'fence', 'at_once' }
-- What one has none of that a worker has in hand as the first of all, and has not told the start of.
local OF_BEFORE = { 'nesting', 'retries', 'first_started_at', 'deliveries', 'starts' }
local NONE = {}

local function finish(at)
  of(ARGV[at])
  -- Told twice in one call: the first must be on the record.
  if over[job_id] then
    write_ends()
    of(ARGV[at])
  end
  local result, fence, ran = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local state, fields, nesting, retries = 'succeeded', NONE, 0, 0
  if ARGV[at + 4] ~= '' then state, fields, nesting, retries = unpack(cjson.decode(ARGV[at + 4])) end
  local known = redis.call('HMGET', job, unpack(OF_JOB))
  local current, age, before = known[5], 0, NONE
  if current then
    if FINAL[current] then return 0 end
    if known[7] ~= '2' then before = redis.call('HMGET', job, unpack(OF_BEFORE)) end
    age = nesting - tonumber(before[1] or 0)
    if age == 0 then age = retries - tonumber(before[2] or 0) end
    -- That an attempt will be retried is told after the new one is out, which may be running by now.
    local told_late = state == 'retrying' and current == 'retrying'
    if age < 0 and not told_late then return 0 end
    if not told_late and fence ~= '0' and known[6] ~= fence then
      if ran ~= '' then redis.call('HINCRBY', job, 'starts', 1) end
      return -1
    end
  end

  if result ~= '' then
    local keep = keep_for[state] or keep_for.failed
    local result_key = prefix .. 'result:' .. job_id
    redis.call('SET', result_key, result, 'PX', math.floor(keep * 1000))
    redis.call('PUBLISH', result_key, result)
  end
  if not current then return 1 end
  local more = {}
  if ran ~= '' and current ~= 'running' and age >= 0 then
    local began = stamp(now - tonumber(ran))
    if FINAL[state] and not before[5] then
      -- Once started, once over: the numbers of starts are as usual.
      more = { 'started_at', began }
    else
      more = { 'started_at', began, 'first_started_at', before[3] or began,
        'deliveries', tonumber(before[4] or 0) + 1, 'starts', tonumber(before[5] or 0) + 1 }
    end
  end
  for field, value in pairs(fields) do
    more[#more + 1] = field
    more[#more + 1] = value
  end
  if not FINAL[state] then
    -- It has a history now.
    if known[7] == '2' then redis.call('HSET', job, 'at_once', 1) end
    if #more > 0 then redis.call('HSET', job, unpack(more)) end
    event(state == '' and 'progress' or state)
  elseif fence == '0' then
    finish_as(state, more)
  else
    note_end(state, known, more)
  end
  return 1
end

local answers = {}
for at = 4, #ARGV, 5 do
  answers[#answers + 1] = finish(at)
end
write_ends()
return answers
