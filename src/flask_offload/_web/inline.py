"""What a job that waits says: its place in line, or what keeps it. Pure."""

from __future__ import annotations

from .._jobs import JobRecord, Waiting
from .reading import about, place
from .sentences import Code, Part, around
from .texts import gettext as _
from .texts import mark

__all__ = ["FARTHEST", "in_line"]

#: An estimate beyond this many seconds says more about the method than about the job.
FARTHEST = 3 * 86_400
_RATES = {
    "s": mark("Waiting: no more than %(count)s of these may start in a second"),
    "m": mark("Waiting: no more than %(count)s of these may start in a minute"),
    "h": mark("Waiting: no more than %(count)s of these may start in an hour"),
}


def in_line(record: JobRecord, waiting: Waiting, debug: bool) -> tuple[Part, ...]:
    """What is said of a job that could start now."""
    worker = "flask offload worker"
    match waiting.reason:
        case "none":
            if debug:
                text = _("Waiting. No worker is running; start one with %(command)s")
                return around(text, "command", Code(worker))
            return (_("Waiting. No worker is running"),)
        case "queue":
            if debug:
                text = _(
                    "Waiting. No worker is running for this kind of job; start one with %(command)s"
                )
                return around(text, "command", Code(f"{worker} -Q {record.queue}"))
            return (_("Waiting. No worker is running for this kind of job"),)
        case "paused":
            text = _("Waiting. Jobs of this kind are paused for now")
            if waiting.place:
                text += f" · {place(waiting.place)}"
            return (text,)
        case "unknown":
            if debug:
                text = _("Waiting. No running worker knows the task %(task)s; restart the worker")
                return around(text, "task", Code(record.task))
            return (_("Waiting. This kind of job is new; it starts once a worker knows it"),)
        case "rate":
            count, _slash, unit = waiting.limit.partition("/")
            return (_(_RATES.get(unit[:1] or "s", _RATES["s"]), count=count),)
        case "lost":
            return (_("Waiting. The worker that was to start it stopped answering"),)
    if waiting.place is None:
        return (_("Waiting in line"),)
    text = _("Next in line") if waiting.place == 1 else place(waiting.place)
    if waiting.seconds is not None and 1 <= waiting.seconds < FARTHEST:
        text += ", " + _("about %(time)s", time=about(waiting.seconds))
    return (text,)
