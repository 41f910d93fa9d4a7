#!lua
-- Accept jobs. KEYS: their hashes. ARGV: …, valid until (by this server's clock), and for each job:
-- what is rare, as JSON ('' if all of it is 0 or empty): nesting, retries, delay, confirm within
-- (seconds; 0: it is confirmed by this), priority, unique ('' for none); and state, message ('' where
-- another broker has it), queue, owners as JSON ('' for none), the number of names and values that
-- follow, and these: more fields.
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
numbers = #KEYS
for i, key in ipairs(KEYS) do
  job_id, job = string.sub(key, #prefix + 5), key
  nesting, retries, delay, confirm_within, priority, unique = 0, 0, 0, 0, 0, ''
  if ARGV[at] ~= '' then
    nesting, retries, delay, confirm_within, priority, unique = unpack(cjson.decode(ARGV[at]))
  end
  state, message, queue, owners = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local last = at + 5 + ARGV[at + 5]
  fields = { unpack(ARGV, at + 6, last) }
  at = last + 1
  answers[i] = accept()
end
return answers
