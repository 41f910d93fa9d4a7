"""The lane: jobs go from the line straight to the pool of a worker, many at a time.

The message of kombu, and a round trip for each, do nothing for a plain job but cost time. The lane
fetches jobs in batches, each with a request that Celery's commands, events, logs and signals see as
any other. What is not plain takes Celery's way.

How the jobs are run is the matter of each kind of pool: :mod:`.inprocess`, :mod:`.threads`,
:mod:`.prefork`.

A batch holds no job hostage: what may wait behind others is measured, and what waits too long all
the same is given back.
"""
