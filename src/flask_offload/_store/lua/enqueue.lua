#!lua
-- Accept jobs. KEYS: their hashes. ARGV: …, valid until (by this server's clock), and for each job:
-- nesting, retries, state, delay, confirm within (seconds; 0: it is confirmed by this), message
-- ('' where another broker has it), queue, priority, owners as JSON ('' for none), unique
-- ('' for none), the number of names and values that follow, and these: more fields.
-- Returns for each created, again (a retry or replacement of the same job), exists, or cancelled;
-- or unique and the id of the job that exists in its place. Or nothing but late.
local nesting, retries, state, delay, confirm_within, message
local queue, priority, owners, unique, fields
local lines = {}

-- include _accept as accept

-- A server that was paused, or a connection that held this back: whoever sent it has given up and
-- told the person that the jobs were not accepted.
if now > tonumber(ARGV[4]) then return 'late' end

local answers, at = {}, 5
for i, key in ipairs(KEYS) do
  job_id, job = string.sub(key, #prefix + 5), key
  nesting, retries, state = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2]
  delay, confirm_within = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  message, queue, priority = ARGV[at + 5], ARGV[at + 6], tonumber(ARGV[at + 7])
  owners, unique = ARGV[at + 8], ARGV[at + 9]
  local last = at + 10 + tonumber(ARGV[at + 10])
  fields = { unpack(ARGV, at + 11, last) }
  at = last + 1
  answers[i] = accept()
end
return answers
