#!lua flags=allow-oom
-- A worker is alive. KEYS: any of the namespace. ARGV: …, lease in seconds, then id, fence, ….
-- Returns the ids whose lease it has lost. A job that is over is not lost.
local lost = {}
for i = 5, #ARGV, 2 do
  job_id, job = ARGV[i], prefix .. 'job:' .. ARGV[i]
  local known = redis.call('HMGET', job, 'fence', 'state')
  if known[1] == ARGV[i + 1] and not FINAL[known[2]] then
    redis.call('ZADD', prefix .. 'leases', 'XX', stamp(now + tonumber(ARGV[4])), job_id)
  elseif not (known[2] and FINAL[known[2]]) then
    lost[#lost + 1] = job_id
  end
end
return lost
