#!lua flags=allow-oom
-- A worker is alive. KEYS: any of the namespace. ARGV: …, lease in seconds, then id, fence, ….
-- Returns the ids whose lease it has lost, and those of jobs that are over.
local lost, over = {}, {}
for i = 5, #ARGV, 2 do
  job_id, job = ARGV[i], prefix .. 'job:' .. ARGV[i]
  local known = redis.pcall('HMGET', job, 'fence', 'state')
  if known[1] == ARGV[i + 1] and not FINAL[known[2]] then
    redis.call('ZADD', prefix .. 'leases', 'XX', stamp(now + tonumber(ARGV[4])), job_id)
  elseif known[2] and FINAL[known[2]] then
    over[#over + 1] = job_id
  else
    lost[#lost + 1] = job_id
  end
end
redis.call('SET', prefix .. 'pulse', stamp(now))
return { lost, over }
