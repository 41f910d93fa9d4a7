#!lua flags=allow-oom
-- A worker says that it is there, or (with a lifetime of 0) that it leaves.
-- KEYS: worker. ARGV: …, name, what it is, lifetime in seconds.
local name, info, lifetime = ARGV[4], ARGV[5], tonumber(ARGV[6])
redis.call('ZREMRANGEBYSCORE', prefix .. 'workers', '-inf', stamp(now))
if lifetime > 0 then
  redis.call('SET', KEYS[1], info, 'PX', math.floor(lifetime * 1000))
  redis.call('ZADD', prefix .. 'workers', stamp(now + lifetime), name)
else
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', prefix .. 'workers', name)
end
return 1
