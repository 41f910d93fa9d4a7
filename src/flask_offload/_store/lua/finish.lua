#!lua flags=allow-oom
-- KEYS: job, result. ARGV: …, state ('' for a state of the user's own), result, fields.
-- Writes the result and the state of the record at once. The first finish wins; returns 0 if the
-- job was over.
local state, result, fields = ARGV[4], ARGV[5], ARGV[6]
local current = redis.call('HGET', job, 'state')
if current and FINAL[current] then return 0 end
-- A retry is made known after its message is out, so the new attempt may be running by now.
if state == 'retrying' and current and current ~= 'retrying' then return 0 end

local keep = cjson.decode(retention)[state] or cjson.decode(retention).failed
redis.call('SET', KEYS[2], result, 'PX', math.floor(keep * 1000))
redis.call('PUBLISH', KEYS[2], result)
if not current then return 1 end
set_fields(fields)
if FINAL[state] then
  finish_as(state)
else
  event(state == '' and 'progress' or state)
end
return 1
