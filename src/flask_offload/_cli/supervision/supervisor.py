"""Keeps a number of worker processes running. It knows nothing of what they do.

The processes are forks of this one, which has loaded all that they share and then does nothing
but wait: no connection, no thread, no lock is open when it forks.

A process is replaced by starting its successor, and ending it once that one is ready; so a
replacement never leaves fewer at work. For new code the program replaces itself (``exec``, in
the same process, whose children the old workers stay) and then replaces them one after the other.

Once all are at work, only the start of another needs what it has loaded. It becomes a program then
that has loaded nothing (see :mod:`.asleep`); what that starts loads the app by itself.
"""

from __future__ import annotations

import os
import time

from .arrivals import SIGNALS, Arrivals
from .bare import signal
from .process import FULL, READY, Process, said
from .reload import Trial, exec_asleep, exec_awake, handed_down, spawn
from .slots import Slot

TYPE_CHECKING = False  # typing is large, beside a program that sleeps
if TYPE_CHECKING:
    import typing as t

    from .fork import Child

    Main = t.Callable[[int, t.Callable[[bytes], None]], int]
    Say = t.Callable[[str], None]

__all__ = ["Supervisor"]

#: Starts that fail, one after the other and with nobody at work, until the supervisor gives up.
MAX_FAILED_STARTS = 3
#: Seconds beyond the grace after which a process that was told to end is killed.
MARGIN = 10.0


class Supervisor:
    """Keeps ``count`` processes running.

    :param main: What each does, with its number and a function that tells the supervisor
        :data:`~.process.READY` or :data:`~.process.FULL`; returns its exit code. ``None`` in the
        program that has loaded nothing: it starts ``command`` instead of a fork.
    :param command: The command line of the program that has loaded the app.
    :param sleeps: Whether it may become the program that has loaded nothing.
    :param grace: Seconds that a process takes at most to end on SIGTERM.
    :param max_memory: MB of resident memory beyond which a process is replaced; 0 for no limit.
    :param say: Takes one line for the operator.
    """

    def __init__(
        self,
        count: int,
        main: Main | None,
        *,
        command: list[str],
        sleeps: bool = False,
        grace: float,
        max_memory: float = 0,
        say: Say,
    ) -> None:
        self._main, self._command, self._say = main, command, say
        self._sleeps = sleeps
        self._grace, self._max_memory = grace, max_memory
        self._slots = [Slot(number + 1) for number in range(count)]
        #: Told to end, with the time by which they must have.
        self._leaving: dict[Process, float] = {}
        self._failed_starts = 0
        self._trial: Trial | None = None
        self._look_at = 0.0
        self._code: int | None = None  # the exit code, once it is ending

    def run(self) -> int:
        """Until a signal ends it, or nothing starts; the exit code. In a child: its own."""
        self._take_over()
        arrivals = Arrivals()
        while self._code is None or self._leaving:
            for number in arrivals:
                self._act_on(number)
            self._look()
            self._look_at_trial(arrivals)
            if self._code is None and (born := self._start_due()) is not None:
                number, child, main = born
                child.begin([*arrivals.pipes, *self._pipes()])
                return main(number, child.tell)
            if self._sleeps and self._is_settled():
                self._sleep(arrivals)
            arrivals.wait(self._pipes(), self._time_left())
        return self._code

    # -- one turn of the loop

    def _look(self) -> None:
        self._hear()  # what a process said comes before how it ended
        self._reap()
        self._look_at_memory()
        for process, deadline in self._leaving.items():
            if time.monotonic() > deadline:
                process.send(signal.SIGKILL)

    def _start_due(self) -> tuple[int, Child, Main] | None:
        """Start what is due; in a child: its number, itself, and what it does."""
        for slot in filter(Slot.is_due, self._slots):
            if slot.working is not None and any(other.coming for other in self._slots):
                continue  # one after the other: a machine has no room for all of them twice
            if self._main is None:
                slot.coming = spawn(self._command, slot.number)
                if slot.coming is None:
                    self._failed_to_start(slot, f"Worker {slot.number} ended", 1)
                continue
            from .fork import Child, fork  # not where it sleeps

            born = fork(SIGNALS)
            if isinstance(born, Child):
                return slot.number, born, self._main
            slot.coming = born
        return None

    def _time_left(self) -> float:
        now = time.monotonic()
        return min([1.0, *(slot.start_at - now for slot in self._slots if slot.start_at > now)])

    def _pipes(self) -> list[int]:
        return [p.pipe for slot in self._slots for p in slot.processes if p.pipe >= 0]

    # -- beginning and end of a process

    def _end(self, process: Process) -> None:
        process.close()
        process.send(signal.SIGTERM)
        self._leaving.setdefault(process, time.monotonic() + self._grace + MARGIN)

    def _reap(self) -> None:
        for process in list(self._leaving):
            if process.reap() is not None:
                del self._leaving[process]
        for slot in self._slots:
            for process in slot.processes:
                if (code := process.reap()) is None:
                    continue
                what = f"Worker {slot.number} (pid {process.pid}) {said(code)}"
                if process is slot.working:
                    self._died(slot, what)
                else:
                    self._failed_to_start(slot, what, code)

    def _died(self, slot: Slot, what: str) -> None:
        slot.working, slot.renew = None, ""
        if slot.coming is not None:
            self._say(f"{what}; its successor is starting.")
        else:
            self._say(f"{what}; starting another in {slot.fail():g} s.")

    def _failed_to_start(self, slot: Slot, what: str, code: int) -> None:
        slot.coming = None
        self._failed_starts += 1
        pause = slot.fail()
        alone = all(slot.working is None for slot in self._slots)
        if not alone or self._failed_starts < MAX_FAILED_STARTS:
            self._say(f"{what} before it was ready; trying again in {pause:g} s.")
            return
        self._say(f"{what} before it was ready, as those before it. See above for what to mend.")
        self._stop(128 - code if code < 0 else code or 1)

    def _stop(self, code: int) -> None:
        if self._code is not None:
            return
        self._code = code
        for process in [*self._leaving, *(p for slot in self._slots for p in slot.processes)]:
            self._end(process)
        for slot in self._slots:
            slot.clear()
        if self._trial is not None:
            self._trial.end()
            self._trial = None

    # -- what they tell, and what is seen of them

    def _hear(self) -> None:
        for slot in self._slots:
            for process in slot.processes:
                words = process.hear()
                if READY in words and process is slot.coming:
                    self._is_ready(slot)
                if FULL in words and process is slot.working and not slot.renew:
                    slot.renew = "which has run as many jobs as --max-jobs allows"

    def _is_ready(self, slot: Slot) -> None:
        why, old = slot.renew, slot.take_over()
        self._failed_starts = 0
        if old is not None and slot.working is not None:
            self._say(
                f"Worker {slot.number}: pid {slot.working.pid} takes over from {old.pid}, {why}."
            )
            self._end(old)

    def _look_at_memory(self) -> None:
        if not self._max_memory or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + 1.0
        for slot in self._slots:
            slot.look_at_memory(self._max_memory)

    # -- signals

    def _act_on(self, number: int) -> None:
        again = self._code is not None and number == signal.SIGINT
        if number == signal.SIGQUIT or again:
            self._stop(0)
            self._code = 130
            for process in self._leaving:
                process.send(signal.SIGKILL)
        elif number in (signal.SIGTERM, signal.SIGINT):
            self._stop(0)
        elif number == signal.SIGHUP:
            # From a terminal it says that the terminal is gone.
            self._stop(0) if os.isatty(0) else self._load_anew()

    # -- other programs in its place

    def _load_anew(self) -> None:
        if self._code is not None:
            return
        self._say("Loading the app anew.")
        if self._trial is not None:
            self._trial.end()  # what it has loaded may be the code of before
        self._trial = Trial(self._command)

    def _look_at_trial(self, arrivals: Arrivals) -> None:
        if self._trial is None or (passed := self._trial.passed()) is None:
            return
        with arrivals as may:
            if not may:
                return
            self._trial = None
            if passed:
                exec_awake(self._command, self._places())
            self._say("The app does not load, see above. The workers keep the code they have.")

    def _is_settled(self) -> bool:
        """Whether there is nothing to do but to wait."""
        busy = self._leaving or self._trial or self._code is not None
        return not busy and all(s.working and not s.coming and not s.renew for s in self._slots)

    def _sleep(self, arrivals: Arrivals) -> None:
        with arrivals as may:
            if may:
                exec_asleep(self._command, self._places(), self._grace)
                self._sleeps = False  # it cannot

    def _places(self) -> list[tuple[int, int]]:
        working = [(s.number, s.working.pid) for s in self._slots if s.working is not None]
        others = [s.coming for s in self._slots if s.coming is not None] + [*self._leaving]
        return [*working, *((0, process.pid) for process in others)]

    def _take_over(self) -> None:
        """Go on with the processes of the program before."""
        for number, pid in handed_down():
            process = Process(pid)
            if 0 < number <= len(self._slots):
                slot = self._slots[number - 1]
                slot.working, slot.ready_at = process, time.monotonic()
                # Only new code wakes a program that sleeps.
                slot.renew = "with the code of now" if self._main is not None else ""
            else:
                self._end(process)
