#!lua flags=allow-oom
-- What came of jobs. KEYS: any of the namespace. ARGV: …, then of each: id, key of the result,
-- state ('' for a state of the user's own), result ('' for none), fields ('' for none), nesting,
-- retries, fence, and the seconds that it ran if its start was not told ('' if it was).
-- Writes the result and the state of the record at once. The first finish wins; of each returns 1;
-- 0 if the job was over, or has gone on to a newer attempt; -1 if its lease is lost.
keep_for = cjson.decode(retention)

local function finish(at)
  of(ARGV[at])
  local result_key, state, result, fields = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local fence, ran = ARGV[at + 7], ARGV[at + 8]
  local known = redis.call('HMGET', job, 'state', 'nesting', 'retries', 'fence', 'first_started_at')
  local current, age = known[1], 0
  if current then
    if FINAL[current] then return 0 end
    age = tonumber(ARGV[at + 5]) - tonumber(known[2] or 0)
    if age == 0 then age = tonumber(ARGV[at + 6]) - tonumber(known[3] or 0) end
    -- That an attempt will be retried is told after the new one is out, which may be running by now.
    local told_late = state == 'retrying' and current == 'retrying'
    if age < 0 and not told_late then return 0 end
    if not told_late and fence ~= '0' and known[4] ~= fence then
      if ran ~= '' then redis.call('HINCRBY', job, 'starts', 1) end
      return -1
    end
  end

  if result ~= '' then
    local keep = keep_for[state] or keep_for.failed
    redis.call('SET', result_key, result, 'PX', math.floor(keep * 1000))
    redis.call('PUBLISH', result_key, result)
  end
  if not current then return 1 end
  if ran ~= '' and current ~= 'running' and age >= 0 then note_start(stamp(now - tonumber(ran)), known[5]) end
  if fields ~= '' then set_fields(fields) end
  if FINAL[state] then
    finish_as(state, fence ~= '0')
  else
    event(state == '' and 'progress' or state)
  end
  return 1
end

local answers = {}
for at = 4, #ARGV, 9 do
  answers[#answers + 1] = finish(at)
end
return answers
