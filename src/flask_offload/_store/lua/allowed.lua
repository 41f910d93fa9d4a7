#!lua flags=no-writes
-- Which commands the user may not run. KEYS: any of the namespace. ARGV: …, commands as JSON.
local refused = {}
for i = 4, #ARGV do
  local known, allowed = pcall(redis.acl_check_cmd, unpack(cjson.decode(ARGV[i])))
  -- A command that this server does not know is none that it refuses.
  if known and not allowed then refused[#refused + 1] = ARGV[i] end
end
return refused
