"""The contract: what is done, and what must show."""

from __future__ import annotations

__all__ = ["ROWS"]

ROWS = {
    1: ("10,000 jobs, 50 worker SIGKILLs, 5 server restarts", "lost 0; extra starts ≤ in flight"),
    2: ("SIGSTOP in the fetch window, publish, SIGKILL, x 200", "lost 0"),
    3: ("SIGKILL mid-job", "runs again within lease + 5 s, p99"),
    4: ("pool child SIGKILLed", "runs again within 5 s"),
    5: ("a job of 10 leases; a delay of 10 leases", "exactly 1 start each"),
    6: ("SIGSTOP for 2 leases, then resume", "stale finish refused; effect once with the fence"),
    7: ("`CLIENT KILL` x 50 on running jobs", "extra starts 0"),
    8: ("network cut 60 s, and half-open", "consuming within 10 s of healing; lost 0"),
    9: ("10,000 delayed jobs, all workers SIGKILLed", "lost 0, early 0, late p99 ≤ 2 s"),
    10: ("SIGTERM under load", "extra starts 0; what had not started is back within 1 s"),
    11: ("`maxmemory` reached", "enqueue refused clearly, consumers drain, lost 0"),
    12: ("publish reply cut x 1,000", "duplicates 0"),
    13: ("worker and web clocks an hour apart", "early redelivery 0"),
    14: ("a poison job that kills its worker, for 60 s", "dead at the limit; others keep 90% pace"),
    15: ("1,000 fuzzed queue entries and bodies", "worker deaths 0, all in the dead letters"),
    16: ("unknown task during a rolling deploy", "lost 0"),
    17: ("64 MB arguments", "refused at enqueue"),
    18: ("purge and pause under load with SIGKILLs", "running jobs lost 0"),
    19: ("after a mix of everything, drained and expired", "nothing left, leaked keys 0"),
    20: ("30 minutes at 500 jobs/s with a kill a minute", "lost 0, memory flat"),
}
