#!lua
-- KEYS: job. ARGV: …, a file as JSON. One of the same name is replaced. Returns 0 without a job.
local files = redis.call('HGET', job, 'files')
if redis.call('EXISTS', job) == 0 then return 0 end
local added = cjson.decode(ARGV[4])
local kept = {}
for _, file in ipairs(cjson.decode(files or '[]')) do
  if file.name ~= added.name then kept[#kept + 1] = file end
end
kept[#kept + 1] = added
redis.call('HSET', job, 'files', cjson.encode(kept))
event('file')
return 1
