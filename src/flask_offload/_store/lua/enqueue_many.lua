#!lua
-- stands alone: see enqueue_one, which does the same for one job.
-- KEYS: the hashes of the jobs. ARGV: prefix, valid until (by this server's clock), and for each job
-- the number of the names and values that follow, and these: its fields.
-- Returns for each 1; or 0, and nothing is done for it, if there is a job of this id. Or nothing but
-- late.
local call, prefix, answers, at = redis.call, ARGV[1], {}, 3
local clock = call('TIME')
if clock[1] + clock[2] / 1000000 > tonumber(ARGV[2]) then return 'late' end

local now = string.format('%d.%06d', clock[1], clock[2])
local place = call('INCRBY', prefix .. 'arrivals', #KEYS) - #KEYS
local ids, all, lines, owned = {}, {}, {}, {}

local function add(lists, name, score, job_id)
  local list = lists[name]
  if not list then
    list = {}
    lists[name] = list
  end
  list[#list + 1], list[#list + 2] = score, job_id
end

for i, job in ipairs(KEYS) do
  local last = at + ARGV[at]
  answers[i] = 1 - call('HEXISTS', job, 'state')
  if answers[i] == 1 then
    local job_id = string.sub(job, #prefix + 5)
    place = place + 1
    call('HSET', job, 'state', 'queued', 'created_at', now, 'place', place, unpack(ARGV, at + 1, last))
    ids[#ids + 1] = job_id
    all[#all + 1], all[#all + 2] = now, job_id
    add(lines, ARGV[at + 2], place, job_id)
    if ARGV[at + 3] == 'owners' then
      for _, owner in ipairs(cjson.decode(ARGV[at + 4])) do add(owned, owner, now, job_id) end
    end
  end
  at = last + 1
end
if #ids == 0 then return answers end

call('ZADD', prefix .. 'jobs', unpack(all))
for owner, list in pairs(owned) do call('ZADD', prefix .. 'owner:' .. owner, unpack(list)) end
for queue, list in pairs(lines) do
  call('ZADD', prefix .. 'queue:' .. queue, unpack(list))
  if call('LLEN', prefix .. 'wake:' .. queue) == 0 then
    call('SADD', prefix .. 'queues', queue)
    call('LPUSH', prefix .. 'wake:' .. queue, 1)
  end
end
call('XADD', prefix .. 'events', 'MAXLEN', '~', 1000, '*', 'jobs', table.concat(ids, ' '), 'kind', 'queued')
local minute = prefix .. 'minute:' .. math.floor(clock[1] / 60)
call('HINCRBY', prefix .. 'totals', 'enqueued', #ids)
if call('HINCRBY', minute, 'enqueued', #ids) == #ids then call('EXPIRE', minute, 90000) end
return answers
