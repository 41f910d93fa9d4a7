#!lua flags=allow-oom
-- Keep what came from another broker and cannot be read. KEYS: job, result.
-- ARGV: …, fields for a job that has no record, raw message, error, error type, result.
local state = redis.call('HGET', job, 'state')
if state and FINAL[state] then return 0 end
if not state then
  set_fields(ARGV[4])
  redis.call('HSET', job, 'created_at', stamp(now))
  add_to_lists('[]')
end
redis.call('HSET', job, 'raw', ARGV[5], 'error', ARGV[6], 'error_type', ARGV[7])
local keep = cjson.decode(retention).dead
redis.call('SET', KEYS[2], ARGV[8], 'PX', math.floor(keep * 1000))
redis.call('PUBLISH', KEYS[2], ARGV[8])
finish_as('dead')
return 1
