"""What does the monitor cost a whole worker? Tasks a second, CPU time and memory: without it, with it, and with OTel.

Workers of all three kinds (prefork, two children) are up at the same time, each with a database of its own on one
redis-server, and take turns: Celery makes the messages once, and for each turn they are copied into the queue of one
worker, while the others have nothing to do. So all run the very same tasks, one right after the other. Of the messages,
90% have arguments of about 100 bytes, 9% of 900, and 1% of 10 KB, whose repr Celery cuts. The tasks do nothing. OTel is
OpenTelemetry's instrumentation of Celery, as its documentation has it, with a batch processor and an exporter that
throws the spans away: sending them would come on top.

- Throughput: of all tasks of a turn but the first quarter, by what the children note in shared memory. A monitor may
  leave work for later; from there on it has as much of that before it as it had at the beginning.
- CPU time: of the main process and its children, from before a round of turns until its figures are in Redis. All that
  is left for later is in it, and so is a little for waiting; the start of the worker is not.
- Memory: after a round, RSS, and USS (what it shares with no other process).

Two workers of the very same kind differ by some percent for as long as they live. So all are started afresh for each
round, with the same hash seed; ratios are those of one round, and their median counts. Main processes and Redis are
kept on one core, and children on the others: where the scheduler moves them about, turns differ by five percent and
more. Linux only.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import closing, suppress
from operator import sub, truediv
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeAlias

import psutil

HERE: Final = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "scripts"))

import redis  # noqa: E402 - from here on, what is ours is found too
import redis_server  # noqa: E402
from arguments import record  # noqa: E402
from celery import Celery  # noqa: E402
from harness import Answer, Chart, Claim, ratio, run, spread  # noqa: E402
from worker_app import NAMES, NOTE  # noqa: E402

from celery_argsize import get_size_summary  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: What the table calls them.
VARIANTS: Final = dict(plain="no monitor", empty="an empty receiver", argsize="celery_argsize", otel="OpenTelemetry")  # noqa: C408 - in one line
CHILDREN: Final = 2
#: Where the messages are kept, in database 0; the workers have the next ones.
STORE: Final = "messages"


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    """For each, workers are started."""
    guests_every: int
    """What has no target takes part in one round of so many."""
    turns: int
    """Turns of each worker in a round."""
    tasks: int
    """Tasks in a turn."""


FULL: Final = Plan(rounds=15, guests_every=3, turns=2, tasks=2000)
SMOKE: Final = Plan(rounds=1, guests_every=1, turns=1, tasks=400)

#: Seconds, at most, for a worker to start, or to run its tasks.
TIMEOUT: Final = 120.0
#: Seconds after the last task until CPU time is read: the flush interval, and time to gather and to write.
SETTLE: Final = 1.3


class Figures(NamedTuple):
    """One round of one worker."""

    rate: float
    """Tasks a second."""
    cpu: float
    """Microseconds a task, of all its processes."""
    cpu_main: float
    cpu_children: float
    rss_main: float
    """MB; of children, the mean."""
    uss_main: float
    rss_child: float
    uss_child: float


class Worker:
    """``celery worker`` with one of the monitors, or none."""

    def __init__(self, variant: str, server: str, folder: Path, seed: int) -> None:
        self.variant = variant
        self._database = [*VARIANTS].index(variant) + 1
        self._url = f"{server.rpartition('/')[0]}/{self._database}"
        with redis.Redis.from_url(self._url) as client:
            client.flushdb()
        self._client = redis.Redis.from_url(server)
        self._notes, self._ready, self._log = (folder / f"{variant}.{what}" for what in ("notes", "ready", "log"))
        self._notes.write_bytes(bytes(NOTE.size * CHILDREN))
        self._ready.unlink(missing_ok=True)
        self._tasks = 0
        self._timed: list[tuple[int, float]] = []
        self._cpu: list[float] = []
        self._tree: list[psutil.Process] = []
        named = {"BROKER": self._url, "MONITOR": variant, "NOTES": self._notes, "READY": self._ready}
        named_env = {f"BENCH_{name}": str(value) for name, value in named.items()}
        options = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-c", str(CHILDREN)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own
                [sys.executable, "-m", "celery", "-A", "worker_app", "worker", "-n", f"{variant}@bench", *options],
                cwd=HERE,
                env={**os.environ, **named_env, "PYTHONHASHSEED": str(seed)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C comes to this program only, which ends the worker
            )

    def wait_ready(self, cores: Sequence[int]) -> None:
        """Return once it consumes, with its main process on the first of *cores*, and its children on the others."""
        self._wait_until(self._ready.exists, "start")
        self._tree = self._processes()
        if len(self._tree) != 1 + CHILDREN:
            self._fail(f"has {len(self._tree) - 1} children")
        for process in self._tree:
            pin(process.pid, cores[:1] if process is self._tree[0] else cores[1:] or cores)
        self._cpu = self._clocks()

    def run(self, tasks: int) -> None:
        """Have it run the *tasks* messages."""
        begin, self._tasks = self._tasks + tasks // 4, self._tasks + tasks
        self._client.copy(STORE, "celery", str(self._database))
        self._wait_until(lambda: self._ran >= begin, "run its tasks")
        ran, began = self._ran, time.monotonic()
        self._wait_until(lambda: self._ran >= self._tasks, "run its tasks")
        self._timed.append((self._tasks - ran, max(at for _, at in self._noted()) - began))

    def figures(self) -> Figures:
        """What came of all its runs."""
        self._settle()
        tasks, seconds = (sum(column) for column in zip(*self._timed, strict=True))
        spent = (now - before for now, before in zip(self._clocks(), self._cpu, strict=True))
        main, *children = (one * 1e6 / self._tasks for one in spent)
        memory = [process.memory_full_info() for process in self._tree]
        rss, uss = ([getattr(info, name) / (1 << 20) for info in memory] for name in ("rss", "uss"))
        return Figures(
            tasks / seconds, main + sum(children), main, sum(children),
            rss[0], uss[0], statistics.mean(rss[1:]), statistics.mean(uss[1:]),
        )  # fmt: skip

    def _clocks(self) -> list[float]:
        """CPU seconds of each process, main first; to the nanosecond, where psutil has hundredths."""
        if self._processes() != self._tree:
            self._fail("has other children than before")
        return [time.clock_gettime((~process.pid << 3) | 2) for process in self._tree]  # see clock_getcpuclockid(3)

    def _settle(self) -> None:
        """Return once the figures are in Redis; every task is to have run once, and to be counted once."""
        self._wait_until(lambda: self._counted >= self._tasks, "count its tasks")
        if not self._tasks == self._ran == self._counted:
            self._fail(f"was given {self._tasks:,} tasks, ran {self._ran:,} and counted {self._counted:,}")

    @property
    def _counted(self) -> int:
        return get_size_summary(redis_url=self._url).total_tasks if self.variant == "argsize" else self._tasks

    def _processes(self) -> list[psutil.Process]:
        main = psutil.Process(self._process.pid)
        return [main, *sorted(main.children(recursive=True), key=lambda child: child.pid)]

    def _noted(self) -> Iterator[tuple[int, float]]:
        return NOTE.iter_unpack(self._notes.read_bytes())

    @property
    def _ran(self) -> int:
        return sum(runs for runs, _ in self._noted())

    def _wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._fail(f"did not {what}")
            time.sleep(0.02)

    def _fail(self, what: str) -> NoReturn:
        log = self._log.read_text(encoding="utf-8", errors="replace")
        message = f"the worker with {VARIANTS[self.variant]} {what}; its log ends in:\n{log[-2000:]}"
        raise RuntimeError(message)

    def kill(self) -> None:
        """End it, children first. Nothing of it is needed any longer, and a warm stop may hang in billiard for 30 s."""
        with suppress(psutil.NoSuchProcess):
            for process in reversed(self._processes()):
                process.kill()
        self._process.wait()
        self._client.close()


# -- all of them --------------------------------------------------------------------------------------------------


def publish(server: str, tasks: int) -> None:
    """Have Celery make the messages."""
    records = [1] * 90 + [8] * 9 + [90]  # of about 110 characters each
    rng = random.Random(1)
    app = Celery("publisher", broker=server, set_as_current=False)
    with closing(app), app.producer_or_acquire() as producer:
        for number in range(tasks):
            args = ([record(number + n) for n in range(records[number % 100])],)
            app.send_task(rng.choice(NAMES), args, producer=producer, queue=STORE, ignore_result=True)


def measure(plan: Plan, server: str, folder: Path) -> list[dict[str, Figures]]:
    """Round by round, by variant."""
    publish(server, plan.tasks)
    with redis.Redis.from_url(server) as client:
        info: Any = client.info("server")
    cores = sorted(os.sched_getaffinity(0))
    pin(info["process_id"], cores[:1])
    return [one_round(plan, number, server, folder, cores) for number in range(plan.rounds)]


def one_round(plan: Plan, number: int, server: str, folder: Path, cores: Sequence[int]) -> dict[str, Figures]:
    """Start workers, and let them take turns."""
    workers: deque[Worker] = deque()
    try:
        for variant in VARIANTS:
            if variant in {"plain", "argsize"} or number % plan.guests_every == 0:
                workers.append(Worker(variant, server, folder, number))
        for worker in workers:
            worker.wait_ready(cores)
        workers.rotate(number)
        for _ in range(plan.turns):
            for worker in workers:
                worker.run(plan.tasks)
            workers.rotate()
        time.sleep(SETTLE)
        return {worker.variant: worker.figures() for worker in workers}
    finally:
        for worker in workers:
            worker.kill()


def pin(process: int, cores: Sequence[int]) -> None:
    """Keep all threads of a process on *cores*."""
    for thread in psutil.Process(process).threads():
        os.sched_setaffinity(thread.id, cores)


# -- what came out ------------------------------------------------------------------------------------------------


Rounds: TypeAlias = list[dict[str, Figures]]


def beside(variant: str, figure: str, rounds: Rounds) -> tuple[list[float], list[float]]:
    """*figure* of *variant*, and the same without a monitor, in those *rounds* in which both took part."""
    these, those = ([getattr(one[name], figure) for one in rounds if variant in one] for name in (variant, "plain"))
    return these, those


def extra(variant: str, figure: str, rounds: Rounds) -> float:
    """What *variant* adds to *figure*."""
    return float(statistics.median(map(sub, *beside(variant, figure, rounds))))


HEAD: Final = [
    "worker", "tasks a second", "ratio", "CPU a task, µs", "ratio", "of it main, µs", "of it children, µs",
    "RSS of main, MB", "USS of main, MB", "RSS of a child, MB", "USS of a child, MB",
]  # fmt: skip


def row(variant: str, rounds: Rounds) -> list[str]:
    """Of the table."""
    cells = [VARIANTS[variant]]
    for figure in Figures._fields:
        these, those = beside(variant, figure, rounds)
        cells.append(spread(these))
        if figure in ("rate", "cpu"):
            cells.append("" if variant == "plain" else spread(map(truediv, these, those)))
    return cells


def claims(rounds: Rounds) -> list[Claim]:
    """The targets."""
    rate, cpu = (ratio(*beside("argsize", figure, rounds)) for figure in ("rate", "cpu"))
    main, child = (extra("argsize", figure, rounds) for figure in ("rss_main", "rss_child"))
    return [
        Claim("throughput, by that without a monitor", rate, 0.99, at_least=True),
        Claim("CPU time of the whole worker, by that without a monitor", cpu, 1.02),
        Claim("RSS of the main process, more than without a monitor", main, 5, "MB"),
        Claim("RSS of a child, more than without a monitor", child, 2, "MB"),
    ]


def added(variant: str, rounds: Rounds) -> str:
    """A note: what a monitor adds."""
    main, children, *rss = (
        extra(variant, figure, rounds) for figure in ("cpu_main", "cpu_children", "rss_main", "rss_child")
    )
    return (
        f"- {VARIANTS[variant]} adds {main:.0f} µs of CPU time a task in the main process and {children:.0f} µs in the "
        f"children, {rss[0]:.1f} MB to the RSS of the main process and {rss[1]:.1f} MB to that of a child."
    )


def chart(rounds: Rounds) -> Chart:
    """CPU time of a task: main process, children."""
    series: dict[str, list[tuple[Any, float]]] = {
        place: [(label, statistics.median(beside(variant, figure, rounds)[0])) for variant, label in VARIANTS.items()]
        for place, figure in (("main process", "cpu_main"), ("children", "cpu_children"))
    }
    return Chart("CPU time of a task, in the whole worker", "µs", "", series, bars=True)


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - as all benchmarks have it
    """Measure, and say what came out."""
    plan = SMOKE if smoke else FULL
    with tempfile.TemporaryDirectory() as name, redis_server.run(Path(name)) as server:
        rounds = measure(plan, server, Path(name))
    all_of_them = sum(len(one) == len(VARIANTS) for one in rounds)
    return Answer(
        title="What does it cost a whole worker?",
        head=HEAD,
        rows=[row(variant, rounds) for variant in VARIANTS],
        claims=claims(rounds),
        chart=chart(rounds),
        notes=[
            f"{plan.rounds} rounds, {all_of_them} with all four; {plan.turns} turns of {plan.tasks:,} tasks in each.",
            *(added(variant, rounds) for variant in VARIANTS if variant != "plain"),
        ],
        versions=["opentelemetry-instrumentation-celery", "opentelemetry-sdk"],
    )


if __name__ == "__main__":
    sys.exit(run(answer))
