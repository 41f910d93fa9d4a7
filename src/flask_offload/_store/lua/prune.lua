#!lua flags=allow-oom
-- Takes jobs whose time is over off all lists. KEYS: any of the namespace. ARGV: …, most at once.
-- Returns the ids of the expired, whose files are to be removed.
local gone = {}
local due = redis.call('ZRANGEBYSCORE', prefix .. 'expiry', '-inf', stamp(now), 'LIMIT', 0, ARGV[4])
for _, member in ipairs(due) do
  local id, owners = string.match(member, '^(.*)\n(.*)$')
  redis.call('ZREM', prefix .. 'expiry', member)
  if owners == 'files' then
    -- Of files that came before their job; see announce. It is there by now, or never will be.
    if redis.call('EXISTS', prefix .. 'job:' .. id) == 0 then gone[#gone + 1] = id end
  else
    redis.call('ZREM', prefix .. 'jobs', id)
    redis.call('ZREM', prefix .. 'dead', id)
    for _, owner in ipairs(cjson.decode(owners)) do
      redis.call('ZREM', prefix .. 'owner:' .. owner, id)
    end
    redis.call('DEL', prefix .. 'job:' .. id, prefix .. 'log:' .. id, prefix .. 'result:' .. id)
    gone[#gone + 1] = id
  end
end
return gone
