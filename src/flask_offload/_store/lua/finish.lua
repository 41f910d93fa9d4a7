#!lua flags=allow-oom
-- What came of jobs. KEYS: any of the namespace. ARGV: …, then of each: id, state ('' for a state
-- of the user's own), result ('' for none), fields ('' for none), nesting, retries, fence, and the
-- seconds that it ran if its start was not told ('' if it was).
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

local function finish(at)
  of(ARGV[at])
  -- Told twice in one call: the first must be on the record.
  if over[job_id] then
    write_ends()
    of(ARGV[at])
  end
  local state, result, fields = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local fence, ran = ARGV[at + 6], ARGV[at + 7]
  local known = redis.call('HMGET', job, 'unique', 'owners', 'unconfirmed_until', 'log_lines',
    'state', 'nesting', 'retries', 'fence', 'first_started_at', 'deliveries', 'starts')
  local current, age = known[5], 0
  if current then
    if FINAL[current] then return 0 end
    age = tonumber(ARGV[at + 4]) - tonumber(known[6] or 0)
    if age == 0 then age = tonumber(ARGV[at + 5]) - tonumber(known[7] or 0) end
    -- That an attempt will be retried is told after the new one is out, which may be running by now.
    local told_late = state == 'retrying' and current == 'retrying'
    if age < 0 and not told_late then return 0 end
    if not told_late and fence ~= '0' and known[8] ~= fence then
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
    if FINAL[state] and not known[11] then
      -- Once started, once over: the numbers of starts are as usual.
      more = { 'started_at', began }
    else
      more = { 'started_at', began, 'first_started_at', known[9] or began,
        'deliveries', tonumber(known[10] or 0) + 1, 'starts', tonumber(known[11] or 0) + 1 }
    end
  end
  if fields ~= '' then
    for field, value in pairs(cjson.decode(fields)) do
      more[#more + 1] = field
      more[#more + 1] = value
    end
  end
  if not FINAL[state] then
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
for at = 4, #ARGV, 8 do
  answers[#answers + 1] = finish(at)
end
write_ends()
return answers
