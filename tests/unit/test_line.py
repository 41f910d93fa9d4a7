"""When a job in line will start."""

from __future__ import annotations

import pytest

from flask_offload._store.line import FRONT, Queue, start_in


def queue(running: list[tuple[str, float]], front: list[str], slots: int = 1) -> Queue:
    return Queue(slots=slots, running=tuple(running), front=tuple(front))


COSTS = {"slow": 10.0, "quick": 1.0, "wild": None}


@pytest.mark.parametrize(
    ("line", "place", "seconds"),
    [
        (queue([], ["slow"]), 1, 0),
        (queue([("slow", 0)], ["slow"]), 1, 10),
        (queue([("slow", 4)], ["slow"]), 1, 6),
        # It takes longer than usual; it is not over for that.
        (queue([("slow", 60)], ["slow"]), 1, 1),
        (queue([("slow", 4)], ["slow", "quick", "slow"]), 3, 6 + 10 + 1),
        # Two at a time: the quick one is over first, and the next in line takes its slot.
        (queue([("slow", 0), ("quick", 0)], ["quick", "slow"], slots=2), 1, 1),
        (queue([("slow", 0), ("quick", 0)], ["quick", "slow"], slots=2), 2, 2),
        (queue([("slow", 0)], ["slow", "slow"], slots=2), 1, 0),
        # What a worker holds beyond its slots is ahead, too.
        (queue([("slow", 0), ("slow", 0)], ["slow"]), 1, 20),
        # Behind the first, all are like these.
        (queue([("quick", 0)], ["quick"] * FRONT), 2 * FRONT + 1, 2 * FRONT + 1),
    ],
)
def test_when_it_starts(line: Queue, place: int, seconds: float) -> None:
    assert start_in(line, place, COSTS) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "line",
    [
        queue([("slow", 0)], ["slow"], slots=0),
        queue([("never seen", 0)], ["slow", "slow"]),
        queue([("slow", 0)], ["never seen", "slow"]),
        queue([("wild", 0)], ["slow", "slow"]),
        Queue(paused=True, slots=1, running=(("slow", 0),), front=("slow", "slow")),
    ],
)
def test_nobody_can_tell(line: Queue) -> None:
    assert start_in(line, 2, COSTS) is None
