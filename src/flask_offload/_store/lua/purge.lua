#!lua flags=allow-oom
-- Take jobs off a queue. KEYS: any of the namespace. ARGV: …, queue, most at once.
-- Returns how many were taken.
local taken = redis.call('ZPOPMIN', prefix .. 'queue:' .. ARGV[4], ARGV[5])
for i = 1, #taken, 2 do
  job_id, job = taken[i], prefix .. 'job:' .. taken[i]
  if redis.call('EXISTS', job) == 1 then
    redis.call('HSET', job, 'cancelled_by', 'purge')
    finish_as('cancelled')
  end
end
return #taken / 2
