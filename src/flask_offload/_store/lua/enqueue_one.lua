#!lua
-- stands alone: this is what most enqueues pay for, so that it defines no function and no table.
-- Accept a job that is as usual: new, to start at once, with no priority, and in nobody's place. It
-- does what accept does for such a job.
-- KEYS: its hash. ARGV: prefix, valid until (by this server's clock), and its fields: 'queue' and its
-- name; 'owners' and these as JSON, if it has any; more names and values.
-- Returns 1; 0, and nothing is done, if there is a job of this id; or late.
local call, prefix, job = redis.call, ARGV[1], KEYS[1]
local clock = call('TIME')
if clock[1] + clock[2] / 1000000 > tonumber(ARGV[2]) then return 'late' end
if call('HEXISTS', job, 'state') == 1 then return 0 end

local job_id, queue = string.sub(job, #prefix + 5), ARGV[4]
local now = string.format('%d.%06d', clock[1], clock[2])
local place = call('INCRBY', prefix .. 'arrivals', 1)
call('HSET', job, 'state', 'queued', 'created_at', now, 'place', place, unpack(ARGV, 3))
call('ZADD', prefix .. 'jobs', now, job_id)
if ARGV[5] == 'owners' then
  for _, owner in ipairs(cjson.decode(ARGV[6])) do
    call('ZADD', prefix .. 'owner:' .. owner, now, job_id)
  end
end
call('ZADD', prefix .. 'queue:' .. queue, place, job_id)
-- See wake.
if call('LLEN', prefix .. 'wake:' .. queue) == 0 then
  call('SADD', prefix .. 'queues', queue)
  call('LPUSH', prefix .. 'wake:' .. queue, 1)
end
-- See add_event.
if clock[2] % 64 == 0 then
  call('XADD', prefix .. 'events', 'MAXLEN', '~', 10000, '*', 'job', job_id, 'kind', 'queued')
else
  call('XADD', prefix .. 'events', '*', 'job', job_id, 'kind', 'queued')
end
-- See save_counts.
local minute = prefix .. 'minute:' .. math.floor(clock[1] / 60)
call('HINCRBY', prefix .. 'totals', 'enqueued', 1)
if call('HINCRBY', minute, 'enqueued', 1) == 1 then call('EXPIRE', minute, 90000) end
return 1
