#!lua flags=allow-oom
-- KEYS: job, result. ARGV: …, state ('' for a state of the user's own), result ('' for none),
-- fields, nesting, retries, fence.
-- Writes the result and the state of the record at once. The first finish wins; returns 0 if the
-- job was over, or has gone on to a newer attempt; -1 if its lease is lost.
local state, result, fields, fence = ARGV[4], ARGV[5], ARGV[6], ARGV[9]
local current = redis.call('HGET', job, 'state')
if current then
  if FINAL[current] then return 0 end
  local age = compare_attempt(tonumber(ARGV[7]), tonumber(ARGV[8]))
  -- That an attempt will be retried is told after the new one is out, which may be running by now.
  local told_late = state == 'retrying' and current == 'retrying'
  if age < 0 and not told_late then return 0 end
  if not told_late and not holds(fence) then return -1 end
end

if result ~= '' then
  local keep = cjson.decode(retention)[state] or cjson.decode(retention).failed
  redis.call('SET', KEYS[2], result, 'PX', math.floor(keep * 1000))
  redis.call('PUBLISH', KEYS[2], result)
end
if not current then return 1 end
set_fields(fields)
if FINAL[state] then
  finish_as(state)
else
  event(state == '' and 'progress' or state)
end
return 1
