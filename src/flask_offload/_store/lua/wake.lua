#!lua flags=allow-oom
-- Have one worker look at a queue; it wakes the next while there is more.
-- KEYS: any of the namespace. ARGV: …, queue.
wake(ARGV[4])
return 1
