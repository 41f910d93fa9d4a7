"""``flask offload worker --processes P --threads T``, with processes that are really killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import typing as t
from pathlib import Path

import pytest

import servers
from flask_offload import JobState
from flask_offload._cli.processes import _node_name
from waiting import wait_until

if t.TYPE_CHECKING:
    from conftest import System

HERE = Path(__file__).resolve().parents[1]
#: A checkout that is not the installed one stays first.
MORE_PATH = os.pathsep.join(["", *filter(None, [os.environ.get("PYTHONPATH")])])

#: An app whose code the tests change: the one of ``sample``, with two tasks more.
SHOP = """
import gc, os, random, sys, time, uuid

import sample
from flask_offload._celery.lane.light import LightRequest

app = sample.create_app()
celery = app.extensions["offload"].celery
held = []


@celery.task(name="shop.version")
def version():
    return "{version}"


@celery.task(name="shop.hold")
def hold(megabytes):
    held.append(bytearray(b"x") * (megabytes * 1_000_000))


@celery.task(name="shop.chance")
def chance():
    time.sleep(1)
    return [os.getpid(), random.random(), str(uuid.uuid4())]


@celery.task(name="shop.requests")
def requests(collect):
    found = sum(isinstance(o, LightRequest) for o in gc.get_objects())
    gc.enable() if collect else gc.disable()
    return found


@celery.task(name="shop.loaded")
def loaded(names):
    return [name for name in names if name in sys.modules]
"""


class Workers:
    """The command, and what it started."""

    def __init__(self, system: System, *options: str) -> None:
        self.shop = system.folder / "shop.py"
        self.write("old")
        self.state = system.app().extensions["offload"]
        self.tasks = self.state.celery.tasks
        self.process = servers.Process(
            sys.executable, "-m", "flask", "--app", "shop", "offload", "worker", *options,
            log=system.folder / "supervisor.log", cwd=HERE,
            env={"PYTHONPATH": f"{system.folder}{MORE_PATH}", **system.env},
        )  # fmt: skip
        system.workers.append(self.process)

    def write(self, version: str) -> None:
        self.shop.write_text(SHOP.format(version=version))

    @property
    def text(self) -> str:
        return self.process.text

    def pids(self) -> set[int]:
        """Of those who say that they are at work."""
        return {worker.pid for worker in self.state.control.workers()}

    def ready(self, count: int, without: t.Collection[int] = ()) -> set[int]:
        """Wait for as many, none of whom is one of those."""

        def others() -> set[int]:
            pids = self.pids()
            return pids if len(pids) == count and pids.isdisjoint(without) else set()

        # Each of them has said so itself, and so has its presence on the server.
        return wait_until(others, 40, message=lambda: self.text)

    def sleep(self) -> None:
        """Wait until the supervisor is the program that has loaded neither Flask nor Celery."""
        proc = Path(f"/proc/{self.process.pid}")
        words = wait_until(
            lambda: " ".join((proc / "cmdline").read_text().split("\0")).partition("asleep.py")[2],
            20,
            message=lambda: self.text,
        )
        assert "offload worker --processes 2" in words  # so that it is found by its name
        assert int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") < 16e6

    def run(self, task: str, *arguments: t.Any) -> t.Any:
        return self.state.celery.send_task(task, arguments)

    def end(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        self.process.signal(number)
        return self.process.popen.wait(timeout)


@pytest.fixture
def start(system: System) -> t.Iterator[t.Callable[..., Workers]]:
    system.env["OFFLOAD_GRACE"] = "8"
    system.env["OFFLOAD_LEASE"] = "3"
    started: list[Workers] = []

    def run(*options: str, ready: int = 0) -> Workers:
        started.append(Workers(system, *options))
        if ready:
            started[-1].ready(ready)
        return started[-1]

    yield run
    for workers in started:
        workers.process.kill()
        # They notice by themselves that the supervisor has gone.
        wait_until(lambda pids=workers.pids: not pids(), 20)


def alive(pid: int) -> bool:
    try:
        # Nobody may be there to reap an orphan.
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def words(ledger: Path) -> list[str]:
    return ledger.read_text().split() if ledger.exists() else []


def test_all_processes_and_threads_take_jobs(start: t.Callable[..., Workers]) -> None:
    options = ("--processes", "2", "--threads", "2", "-Q", "celery,slow", "-n", "shop@%h")
    workers = start(*options, ready=2)
    infos = workers.state.control.workers()
    host = socket.gethostname()
    names = [info.name.partition("/")[0] for info in infos]
    assert sorted(names) == [f"shop-1@{host}", f"shop-2@{host}"]
    assert {(info.pool, info.concurrency, info.queues) for info in infos} == {
        ("thread", 2, ("celery", "slow"))
    }
    # As many as there are threads: they run at the same time, so both processes must take some.
    sleep = workers.tasks["sample.sleep"].options(queue="slow")
    jobs = [sleep.delay(2) for _ in range(4)]
    wait_until(lambda: all(job.record.state is JobState.RUNNING for job in jobs))
    assert len({job.record.worker for job in jobs}) == 2
    assert [job.get(timeout=20) for job in jobs] == ["slept"] * 4
    assert workers.end() == 0
    assert workers.pids() == set()


def test_killed_process_is_replaced_and_its_job_runs_again(
    start: t.Callable[..., Workers], tmp_path: Path
) -> None:
    workers = start("--processes", "2", ready=2)
    ledger = tmp_path / "ledger"
    job = workers.tasks["sample.sleep"].delay(2, str(ledger))
    wait_until(lambda: words(ledger) == ["start"])
    before = workers.pids()
    killed = int(wait_until(lambda: job.record.worker).rpartition("/")[2])
    servers.kill(killed)
    wait_until(lambda: f"(pid {killed}) was killed by SIGKILL; starting another in" in workers.text)
    assert job.get(timeout=40) == "slept"
    assert words(ledger) == ["start", "start", "end"]
    # The other one has not noticed.
    after = workers.ready(2, without=[killed])
    assert len(after & before) == 1


def test_reload_brings_new_code_and_neither_loses_nor_repeats_a_job(
    start: t.Callable[..., Workers], tmp_path: Path
) -> None:
    workers = start("--processes", "2", "--threads", "2", ready=2)
    before, fewest = workers.pids(), [2]
    assert workers.run("shop.version").get(timeout=20) == "old"
    ledger, stop = tmp_path / "ledger", threading.Event()
    jobs: list[t.Any] = []

    def go_on() -> None:
        while not stop.wait(0.1):
            jobs.append(workers.tasks["sample.sleep"].delay(0.3, str(ledger)))
            fewest[0] = min(fewest[0], len(workers.pids()))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        workers.write("newer")
        workers.process.signal(signal.SIGHUP)
        wait_until(lambda: workers.text.count("takes over from") == 2, 60)
        after = workers.ready(2, without=before)
        wait_until(lambda: not any(map(alive, before)), 20)
    finally:
        stop.set()
        thread.join()
    assert [job.get(timeout=30) for job in jobs] == ["slept"] * len(jobs)
    assert len(jobs) > 10
    assert sorted(words(ledger)) == ["end"] * len(jobs) + ["start"] * len(jobs)
    assert {job.record.starts for job in jobs} == {1}
    assert fewest == [2]
    assert workers.run("shop.version").get(timeout=20) == "newer"
    # And once more, now by the program that took over.
    workers.write("the newest")
    workers.process.signal(signal.SIGHUP)
    workers.ready(2, without=after | before)
    assert workers.run("shop.version").get(timeout=20) == "the newest"
    assert workers.end() == 0


def test_reload_of_code_that_does_not_load_changes_nothing(
    start: t.Callable[..., Workers],
) -> None:
    workers = start("--processes", "2", ready=2)
    before = workers.pids()
    workers.shop.write_text("def broken(:\n")
    workers.process.signal(signal.SIGHUP)
    wait_until(lambda: "The app does not load" in workers.text, 30, message=lambda: workers.text)
    assert "SyntaxError" in workers.text
    assert workers.run("shop.version").get(timeout=20) == "old"
    assert workers.pids() == before
    assert workers.end() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to tell what a process uses")
def test_supervisor_sleeps_while_all_are_at_work(start: t.Callable[..., Workers]) -> None:
    workers = start("--processes", "2")
    before = workers.ready(2)
    workers.sleep()
    # It wakes for new code, and sleeps again after that.
    workers.process.signal(signal.SIGHUP)
    workers.ready(2, without=before)
    workers.sleep()
    assert workers.end() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to tell what a process uses")
def test_process_that_ends_is_replaced_once_the_app_loads(
    start: t.Callable[..., Workers],
) -> None:
    workers = start("--processes", "2")
    killed, other = workers.ready(2)
    workers.sleep()
    workers.shop.write_text("def broken(:\n")
    servers.kill(killed)
    # Its first successor does not get far.
    wait_until(lambda: "before it was ready; trying again in" in workers.text, 30)
    assert workers.run("shop.version").get(timeout=20) == "old"
    assert workers.process.popen.poll() is None
    workers.write("newer")
    assert other in workers.ready(2, without=[killed])
    assert workers.end() == 0


def test_stop_lets_jobs_finish_within_the_grace_and_leaves_nothing(
    start: t.Callable[..., Workers], tmp_path: Path, system: System
) -> None:
    system.env["OFFLOAD_GRACE"] = "4"
    workers = start("--processes", "2", ready=2)
    pids, ledger = workers.pids(), tmp_path / "ledger"
    short = workers.tasks["sample.sleep"].delay(2, str(ledger))
    long = workers.tasks["sample.sleep"].delay(60, str(ledger))
    wait_until(lambda: words(ledger) == ["start"] * 2)
    began = time.monotonic()
    assert workers.end() == 0
    assert time.monotonic() - began < 4 + 5
    assert (short.record.state, long.record.state) == (JobState.SUCCEEDED, JobState.QUEUED)
    assert words(ledger) == ["start", "start", "end"]
    assert not any(map(alive, pids))
    assert workers.pids() == set()
    long.cancel()


def test_second_ctrl_c_ends_at_once(start: t.Callable[..., Workers], tmp_path: Path) -> None:
    workers = start("--processes", "2", ready=2)
    pids, ledger = workers.pids(), tmp_path / "ledger"
    job = workers.tasks["sample.sleep"].delay(30, str(ledger))
    wait_until(lambda: words(ledger) == ["start"])
    workers.process.signal(signal.SIGINT)
    wait_until(lambda: "Warm shutdown" in workers.text)
    assert workers.process.popen.poll() is None
    assert workers.end(signal.SIGINT, timeout=5) == 130
    assert not any(map(alive, pids))
    job.cancel()


def test_children_end_when_the_supervisor_is_killed(start: t.Callable[..., Workers]) -> None:
    workers = start("--processes", "2", ready=2)
    pids = workers.pids()
    servers.kill(workers.process.pid)
    wait_until(lambda: not any(map(alive, pids)), 15)
    assert workers.pids() == set()


def test_max_jobs_replaces_a_process_and_loses_none(
    start: t.Callable[..., Workers], tmp_path: Path
) -> None:
    workers = start("--processes", "1", "--threads", "2", "--max-jobs", "5", ready=1)
    before, ledger = workers.pids(), tmp_path / "ledger"
    jobs = [workers.tasks["sample.sleep"].delay(0.2, str(ledger)) for _ in range(30)]
    assert [job.get(timeout=60) for job in jobs] == ["slept"] * 30
    assert sorted(words(ledger)) == ["end"] * 30 + ["start"] * 30
    workers.ready(1, without=before)
    assert "which has run as many jobs as --max-jobs allows." in workers.text


def test_max_memory_replaces_a_process(start: t.Callable[..., Workers]) -> None:
    workers = start("--processes", "1", "--max-memory", "200", ready=1)
    before = workers.pids()
    workers.run("shop.hold", 200).get(timeout=20)
    workers.ready(1, without=before)
    assert re.search(r"takes over from \d+, which uses \d+ MB \(--max-memory 200\)\.", workers.text)


def test_what_no_process_needs_is_not_in_memory(start: t.Callable[..., Workers]) -> None:
    workers = start("--processes", "1", ready=1)
    own = "flask_offload._celery.lane."
    here, elsewhere = f"{own}threads", [
        f"{own}prefork", "celery.concurrency.prefork", "flask_offload._cli.dev", "pygments",
        "redis.asyncio.client",
    ]  # fmt: skip
    assert workers.run("shop.loaded", [here, *elsewhere]).get(timeout=20) == [here]


def test_start_that_fails_again_and_again_ends_it(
    start: t.Callable[..., Workers], tmp_path: Path
) -> None:
    workers = start("--processes", "2", "--logfile", str(tmp_path / "missing" / "log"))
    assert workers.process.popen.wait(30) == 1
    assert "ended with exit code 1 before it was ready, as those before it." in workers.text


def test_wrong_options_of_celery_are_told_once(start: t.Callable[..., Workers]) -> None:
    workers = start("--processes", "2", "--heartbeat-interval", "often")
    assert workers.process.popen.wait(30) == 2
    assert workers.text.count("Invalid value for '--heartbeat-interval'") == 1
    assert "ended with exit code" not in workers.text


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to tell who has a socket")
def test_processes_share_neither_connections_nor_chance(start: t.Callable[..., Workers]) -> None:
    workers = start("--processes", "2", ready=2)

    def sockets(pid: int) -> set[str]:
        links = (os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir())
        return {link for link in links if link.startswith("socket:")}

    one, two = map(sockets, workers.pids())
    assert one
    assert two
    assert one.isdisjoint(two)
    assert not sockets(workers.process.pid)
    # Each runs one at a time, so that both take some.
    told = [job.get(timeout=20) for job in [workers.run("shop.chance") for _ in range(4)]]
    pids, numbers, ids = map(set, zip(*told, strict=True))
    assert len(pids) == 2
    assert len(numbers) == len(ids) == 4


def test_a_job_that_is_over_leaves_no_garbage(start: t.Callable[..., Workers]) -> None:
    workers = start("--processes", "1", ready=1)
    workers.run("shop.requests", False).get(timeout=20)
    for job in [workers.run("sample.add", n) for n in range(50)]:
        job.get(timeout=20)
    # Itself, and the one before it, which may be on its way to the server.
    assert workers.run("shop.requests", True).get(timeout=20) <= 2


def test_server_that_no_worker_may_use_is_told_once(
    start: t.Callable[..., Workers], system: System
) -> None:
    system.env["OFFLOAD_URL"] = system.env["OFFLOAD_URL"].replace("/0", "/99")
    workers = start("--processes", "2")
    try:
        assert workers.process.popen.wait(30) == 1
        assert workers.text.count("Error:") == 1
    finally:
        workers.pids = set  # type: ignore[method-assign]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to tell who holds a lock")
def test_each_process_holds_the_embedded_server(tmp_path: Path) -> None:
    """A fork shares the lock of its parent, and an exec drops it: each must have its own."""
    (tmp_path / "embedded_shop.py").write_text(
        "from flask import Flask\n"
        "from flask_offload import Offload\n"
        f"app = Flask(__name__, instance_path={str(tmp_path / 'instance')!r})\n"
        "offload = Offload(app)\n"
    )
    process = servers.Process(
        sys.executable, "-m", "flask", "--app", "embedded_shop", "offload", "worker",
        "--processes", "2", log=tmp_path / "log", cwd=tmp_path, env={"FLASK_OFFLOAD_LINGER": "1"},
    )  # fmt: skip
    lock = tmp_path / "instance" / "offload" / "users.lock"

    def holders() -> set[int]:
        inode = f":{lock.stat().st_ino}"
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        return {int(f[4]) for f in locks if f[1] == "FLOCK" and f[5].endswith(inode)}

    def children() -> set[int]:
        path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        return set(map(int, path.read_text().split()))

    try:
        wait_until(lambda: process.text.count("ready.") == 2, 30, message=lambda: process.text)
        first = children()
        assert len(first) == 2
        wait_until(lambda: holders() == first)
        process.signal(signal.SIGHUP)
        wait_until(lambda: process.text.count("takes over from") == 2, 60)
        wait_until(lambda: children().isdisjoint(first))
        wait_until(lambda: holders() == children())
        assert process.stop() == 0
        # The keeper has it now, or is gone.
        wait_until(lambda: not holders() & {process.pid, *first})
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("--processes 0", "--processes must be at least 1 (or auto), not '0'."),
        ("--threads x", "--threads must be at least 1, not 'x'."),
        ("--max-jobs 5", "--max-jobs goes with --processes or --threads; add one of them."),
        ("--threads 2 --max-jobs 0", "--max-jobs must be at least 1, not '0'."),
        ("--threads 2 --max-memory 20", "--max-memory must be more than the app itself takes"),
        ("--threads 2 -P prefork", "-P/--pool does not go with --processes or --threads"),
        ("--threads 2 --concurrency=4", "use --threads, or --processes auto."),
        ("--processes 2 -B", "run celery beat beside it."),
        ("--processes 2 --purge", "run celery purge before."),
    ],
)
def test_errors_name_the_option(system: System, options: str, error: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "sample", "offload", "worker", *options.split()],
        cwd=HERE, env=servers.environment(system.env), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert error in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("given", "name", "rest"),
    [
        ("-E", "celery-{}@%h", "-E"),
        ("-n mail@%h -E", "mail-{}@%h", "-E"),
        ("-nmail@%h", "mail-{}@%h", ""),
        ("-E --hostname=mail@%d", "mail-{}@%d", "-E"),
        ("--hostname example.org", "celery-{}@example.org", ""),
    ],
)
def test_each_node_has_a_name(given: str, name: str, rest: str) -> None:
    assert _node_name(given.split()) == (name, rest.split())
