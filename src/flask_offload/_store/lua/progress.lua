#!lua flags=allow-oom
-- What a running job has to say. KEYS: job, log.
-- ARGV: …, fields, lines to keep, fence, then lines as "<seconds since the epoch> <text>".
-- Returns -1 if the job is over or somebody else's, 1 if it is to be cancelled, else 0.
local state = redis.call('HGET', job, 'state')
if not state or FINAL[state] or not holds(ARGV[6]) then return -1 end
set_fields(ARGV[4])
if #ARGV > 6 then
  local seq = tonumber(redis.call('HGET', job, 'log_lines') or 0)
  for i = 7, #ARGV do
    seq = seq + 1
    redis.call('RPUSH', KEYS[2], seq .. ' ' .. ARGV[i])
  end
  local over = redis.call('LLEN', KEYS[2]) - tonumber(ARGV[5])
  if over > 0 then
    redis.call('LTRIM', KEYS[2], over, -1)
    redis.call('HINCRBY', job, 'log_dropped', over)
  end
  redis.call('HSET', job, 'log_lines', seq)
end
event('progress')
return redis.call('HEXISTS', job, 'cancel_requested')
