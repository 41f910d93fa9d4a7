"""The names of all keys. One hash tag for the whole namespace, so that a script may compute
them and a cluster keeps them in one slot."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Keys"]


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one namespace, and who removes each.

    =================== ======= ==========================================================
    key                 type    removed by
    =================== ======= ==========================================================
    ``job:<id>``        hash    its expiry, once finished
    ``log:<id>``        list    its expiry, once finished
    ``result:<id>``     string  its expiry
    ``events``          stream  trimmed now and then
    ``jobs``            zset    prune, when the job is gone
    ``owner:<owner>``   zset    prune, when the job is gone
    ``expiry``          zset    prune
    ``unconfirmed``     zset    confirm, start, prune
    ``queue:<name>``    zset    fetch, finish
    ``scheduled``       zset    fetch, due, published, finish
    ``leases``          zset    ack, finish, fetch
    ``queues``          set     nobody: one entry a queue
    ``paused``          set     resume
    ``wake:<queue>``    list    the worker that it wakes; never more than one entry
    ``unique:<text>``   string  finish
    ``arrivals``        string  nobody: a counter
    ``next``            string  its expiry: who comes when the next delayed job is due
    ``apart``           string  its expiry: when the last came back of those lost more than once
    ``pulse``           string  nobody: the time of the last sign of life of a worker
    ``totals``          hash    nobody: one field a kind of event
    ``minute:<n>``      hash    its expiry, after a day
    ``dead``            zset    prune; bounded
    ``workers``         zset    prune
    ``worker:<name>``   string  its expiry
    =================== ======= ==========================================================
    """

    namespace: str
    #: What every key starts with.
    prefix: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefix", f"{{{self.namespace}}}:")

    def job(self, job_id: str) -> str:
        return f"{self.prefix}job:{job_id}"

    def log(self, job_id: str) -> str:
        return f"{self.prefix}log:{job_id}"

    def result(self, job_id: str) -> str:
        return f"{self.prefix}result:{job_id}"

    def owner(self, owner: str) -> str:
        return f"{self.prefix}owner:{owner}"

    def worker(self, name: str) -> str:
        return f"{self.prefix}worker:{name}"

    def queue(self, name: str) -> str:
        return f"{self.prefix}queue:{name}"

    def wake(self, queue: str) -> str:
        return f"{self.prefix}wake:{queue}"

    @property
    def paused(self) -> str:
        return f"{self.prefix}paused"

    @property
    def events(self) -> str:
        return f"{self.prefix}events"

    @property
    def jobs(self) -> str:
        return f"{self.prefix}jobs"

    @property
    def workers(self) -> str:
        return f"{self.prefix}workers"
