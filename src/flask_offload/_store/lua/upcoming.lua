#!lua
-- What of some queues is due later, soonest first. KEYS: any of the namespace.
-- ARGV: …, most at once, queues as JSON.
-- Returns a list of when (seconds since the epoch), id, queue, message. It looks at ten times as
-- many jobs of all queues, and no further.
local limit, wanted, found = tonumber(ARGV[4]), {}, {}
for _, queue in ipairs(cjson.decode(ARGV[5])) do wanted[queue] = true end
local all = redis.call('ZRANGE', prefix .. 'scheduled', 0, limit * 10 - 1, 'WITHSCORES')
for i = 1, #all, 2 do
  if #found >= limit then break end
  local known = redis.pcall('HMGET', prefix .. 'job:' .. all[i], 'queue', 'envelope')
  if not known.err and known[1] and wanted[known[1]] and known[2] then
    found[#found + 1] = { all[i + 1], all[i], known[1], known[2] }
  end
end
return found
