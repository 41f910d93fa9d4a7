"""What a supervisor is while all of its processes are at work: a program that has loaded nothing.

It runs by its path, outside of its package, as importing that would load Flask and Celery. For new
code it becomes again the program that it was. The arguments are the number of processes, the grace,
and the command line of that program.
"""

from __future__ import annotations

import os
import sys


def main(count: str, grace: str, *command: str) -> int:
    """Until a signal ends it; the exit code."""
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    module = __import__("supervision.supervisor", fromlist=["Supervisor"])
    supervisor = module.Supervisor(
        int(count),
        None,
        command=list(command),
        grace=float(grace),
        say=lambda line: print(f" * {line}", file=sys.stderr, flush=True),
    )
    return int(supervisor.run())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
