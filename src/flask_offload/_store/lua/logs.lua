#!lua flags=no-writes
-- The lines after one number that are kept. KEYS: job, log. ARGV: …, the number.
-- A script, because lines may be added and trimmed between two commands.
local total = tonumber(redis.call('HGET', job, 'log_lines') or 0)
local trimmed = total - redis.call('LLEN', KEYS[2])
return redis.call('LRANGE', KEYS[2], math.max(0, tonumber(ARGV[4]) - trimmed), -1)
