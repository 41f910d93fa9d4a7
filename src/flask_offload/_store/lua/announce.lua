#!lua
-- Files are about to be kept for a job that is not there yet. KEYS: job. ARGV: …, the seconds after
-- which prune has them removed, unless there is such a job.
redis.call('ZADD', prefix .. 'expiry', stamp(now + tonumber(ARGV[4])), job_id .. '\nfiles')
