"""What does the monitor cost a whole worker? Throughput, CPU time and memory of four kinds of workers.

The workers have no monitor, an empty receiver, celery_argsize, or OpenTelemetry. All are prefork workers with two
children, and run at the same time on one redis-server, each with a database of its own. They take turns: Celery makes
the messages once, and for each turn they are copied into the queue of one worker while the others have no tasks. So all
workers run the same tasks. 90% of the messages have arguments of about 100 bytes, 9% of 900 bytes, and 1% of 10 KB,
whose repr Celery cuts. The tasks do nothing. OpenTelemetry is set up as its documentation says, with a batch processor
and an exporter that drops the spans; sending them would cost more.

- Throughput: over all tasks of a turn but the first quarter, from notes that the children write to shared memory. A
  monitor may put off work. After the first quarter, what it still has to do stays about the same.
- CPU time: of the main process and its children, from the start of a round until its figures are in Redis. This
  includes all work that was put off, and a little for waiting, but not the start of the worker.
- Memory: RSS and USS after a round. USS is memory that no other process shares.

Two workers of the same kind differ by a few percent for as long as they live. So all workers are started anew for each
round, with the same hash seed. Ratios compare workers of one round, and the median of all rounds counts. Main processes
and Redis are pinned to one core, and children to the others: when the scheduler moves them, turns differ by five
percent or more. Linux only.
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

import redis  # noqa: E402 - the folders of our own modules are on sys.path only from here on
import redis_server  # noqa: E402
from arguments import record  # noqa: E402
from celery import Celery  # noqa: E402
from harness import Answer, Chart, Claim, ratio, run, spread  # noqa: E402
from worker_app import NAMES, NOTE  # noqa: E402

from celery_argsize import get_size_summary  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Kind of worker → its name in the table.
VARIANTS: Final = dict(plain="no monitor", empty="an empty receiver", argsize="celery_argsize", otel="OpenTelemetry")  # noqa: C408 - fits on one line
CHILDREN: Final = 2
#: The key of the messages in database 0. The workers use the databases after it.
STORE: Final = "messages"


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int
    """All workers are started anew for each round."""
    guests_every: int
    """Kinds of workers without a target take part only in each n-th round."""
    turns: int
    """Turns of each worker in a round."""
    tasks: int
    """Tasks in a turn."""


FULL: Final = Plan(rounds=15, guests_every=3, turns=2, tasks=2000)
SMOKE: Final = Plan(rounds=1, guests_every=1, turns=1, tasks=400)

#: Seconds that a worker may take to start, or to run its tasks.
TIMEOUT: Final = 120.0
#: Seconds between the last task and the reading of CPU time: the flush interval, and some time to write.
SETTLE: Final = 1.3


class Figures(NamedTuple):
    """The figures of one worker in one round."""

    rate: float
    """Tasks a second."""
    cpu: float
    """CPU time of all its processes, in microseconds a task."""
    cpu_main: float
    """CPU time of its main process, in microseconds a task."""
    cpu_children: float
    """CPU time of its children together, in microseconds a task."""
    rss_main: float
    """RSS of its main process, in MB."""
    uss_main: float
    """USS of its main process, in MB."""
    rss_child: float
    """Mean RSS of its children, in MB."""
    uss_child: float
    """Mean USS of its children, in MB."""


class Worker:
    """A ``celery worker`` process with one of the monitors or none: *variant* is a key of ``VARIANTS``."""

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
        settings = {"BROKER": self._url, "MONITOR": variant, "NOTES": self._notes, "READY": self._ready}
        variables = {f"BENCH_{name}": str(value) for name, value in settings.items()}
        options = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-c", str(CHILDREN)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own
                [sys.executable, "-m", "celery", "-A", "worker_app", "worker", "-n", f"{variant}@bench", *options],
                cwd=HERE,
                env={**os.environ, **variables, "PYTHONHASHSEED": str(seed)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C must reach this program only, which then ends the worker
            )

    def wait_ready(self, cores: Sequence[int]) -> None:
        """Wait until it takes tasks. Pin its main process to the first of *cores*, and its children to the others."""
        self._wait_until(self._ready.exists, "start")
        self._tree = self._processes()
        if len(self._tree) != 1 + CHILDREN:
            self._fail(f"has {len(self._tree) - 1} children")
        for process in self._tree:
            pin(process.pid, cores[:1] if process is self._tree[0] else cores[1:] or cores)
        self._cpu = self._clocks()

    def run(self, tasks: int) -> None:
        """Copy the *tasks* messages into its queue, and wait until it has run them all."""
        begin, self._tasks = self._tasks + tasks // 4, self._tasks + tasks
        self._client.copy(STORE, "celery", str(self._database))
        self._wait_until(lambda: self._ran >= begin, "run its tasks")
        ran, began = self._ran, time.monotonic()
        self._wait_until(lambda: self._ran >= self._tasks, "run its tasks")
        self._timed.append((self._tasks - ran, max(at for _, at in self._noted()) - began))

    def figures(self) -> Figures:
        """Its figures over all of its turns."""
        self._settle()
        tasks, seconds = (sum(column) for column in zip(*self._timed, strict=True))
        spent = (now - before for now, before in zip(self._clocks(), self._cpu, strict=True))
        main, *children = (seconds * 1e6 / self._tasks for seconds in spent)
        memory = [process.memory_full_info() for process in self._tree]
        rss, uss = ([getattr(info, name) / (1 << 20) for info in memory] for name in ("rss", "uss"))
        return Figures(
            tasks / seconds, main + sum(children), main, sum(children),
            rss[0], uss[0], statistics.mean(rss[1:]), statistics.mean(uss[1:]),
        )  # fmt: skip

    def _clocks(self) -> list[float]:
        """CPU seconds of each process, the main process first. psutil would give only hundredths of a second."""
        if self._processes() != self._tree:
            self._fail("has other children than before")
        return [time.clock_gettime((~process.pid << 3) | 2) for process in self._tree]  # see clock_getcpuclockid(3)

    def _settle(self) -> None:
        """Wait until its figures are in Redis. Every task must have run once, and be counted once."""
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
        """Kill its processes, children first. A warm shutdown may hang in billiard for 30 s, and nothing needs it."""
        with suppress(psutil.NoSuchProcess):
            for process in reversed(self._processes()):
                process.kill()
        self._process.wait()
        self._client.close()


# -- all of them --------------------------------------------------------------------------------------------------


def publish(server: str, tasks: int) -> None:
    """Have Celery make *tasks* messages, in the queue ``STORE``."""
    records = [1] * 90 + [8] * 9 + [90]  # number of records in a message; a record has about 110 characters
    rng = random.Random(1)
    app = Celery("publisher", broker=server, set_as_current=False)
    with closing(app), app.producer_or_acquire() as producer:
        for number in range(tasks):
            args = ([record(number + n) for n in range(records[number % 100])],)
            app.send_task(rng.choice(NAMES), args, producer=producer, queue=STORE, ignore_result=True)


def measure(plan: Plan, server: str, folder: Path) -> list[dict[str, Figures]]:
    """Run all rounds. Returns the figures of each variant, round by round."""
    publish(server, plan.tasks)
    with redis.Redis.from_url(server) as client:
        info: Any = client.info("server")
    cores = sorted(os.sched_getaffinity(0))
    pin(info["process_id"], cores[:1])
    return [one_round(plan, number, server, folder, cores) for number in range(plan.rounds)]


def one_round(plan: Plan, number: int, server: str, folder: Path, cores: Sequence[int]) -> dict[str, Figures]:
    """Start the workers of round *number*, and let them take turns."""
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
    """Pin all threads of the process with this pid to *cores*."""
    for thread in psutil.Process(process).threads():
        with suppress(ProcessLookupError):  # a thread may end before it is pinned
            os.sched_setaffinity(thread.id, cores)


# -- results ------------------------------------------------------------------------------------------------------


Rounds: TypeAlias = list[dict[str, Figures]]


def beside(variant: str, figure: str, rounds: Rounds) -> tuple[list[float], list[float]]:
    """*figure* of *variant*, and that figure without a monitor, in the *rounds* in which both took part."""
    values, plain = (
        [getattr(figures[name], figure) for figures in rounds if variant in figures] for name in (variant, "plain")
    )
    return values, plain


def extra(variant: str, figure: str, rounds: Rounds) -> float:
    """What *variant* adds to *figure*: the median over the rounds."""
    return float(statistics.median(map(sub, *beside(variant, figure, rounds))))


HEAD: Final = [
    "worker", "tasks a second", "ratio", "CPU a task, µs", "ratio", "main process, µs", "children, µs",
    "RSS of main, MB", "USS of main, MB", "RSS of a child, MB", "USS of a child, MB",
]  # fmt: skip


def row(variant: str, rounds: Rounds) -> list[str]:
    """The row of *variant* in the table."""
    cells = [VARIANTS[variant]]
    for figure in Figures._fields:
        values, plain = beside(variant, figure, rounds)
        cells.append(spread(values))
        if figure in ("rate", "cpu"):
            cells.append("" if variant == "plain" else spread(map(truediv, values, plain)))
    return cells


def claims(rounds: Rounds) -> list[Claim]:
    """The targets."""
    rate, cpu = (ratio(*beside("argsize", figure, rounds)) for figure in ("rate", "cpu"))
    main, child = (extra("argsize", figure, rounds) for figure in ("rss_main", "rss_child"))
    return [
        Claim("throughput, compared with no monitor", rate, 0.99, at_least=True),
        Claim("CPU time of the whole worker, compared with no monitor", cpu, 1.025),
        Claim("RSS added to the main process", main, 5, "MB"),
        Claim("RSS added to a child", child, 2, "MB"),
    ]


def added(variant: str, rounds: Rounds) -> str:
    """A note that says what *variant* adds."""
    main, children, *rss = (
        extra(variant, figure, rounds) for figure in ("cpu_main", "cpu_children", "rss_main", "rss_child")
    )
    return (
        f"- {VARIANTS[variant]} adds {main:.0f} µs of CPU time per task in the main process and {children:.0f} µs in "
        f"the children. It adds {rss[0]:.1f} MB to the RSS of the main process and {rss[1]:.1f} MB to that of a child."
    )


def chart(rounds: Rounds) -> Chart:
    """A chart of the CPU time per task in the main process and in the children."""
    series: dict[str, list[tuple[Any, float]]] = {
        place: [(label, statistics.median(beside(variant, figure, rounds)[0])) for variant, label in VARIANTS.items()]
        for place, figure in (("main process", "cpu_main"), ("children", "cpu_children"))
    }
    return Chart("CPU time of a task, in the whole worker", "µs", "", series, bars=True)


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - harness.run calls it with one argument
    """Measure all kinds of workers, and compare them."""
    plan = SMOKE if smoke else FULL
    with tempfile.TemporaryDirectory() as name, redis_server.run(Path(name)) as server:
        rounds = measure(plan, server, Path(name))
    complete = sum(len(figures) == len(VARIANTS) for figures in rounds)
    return Answer(
        title="What does it cost a whole worker?",
        head=HEAD,
        rows=[row(variant, rounds) for variant in VARIANTS],
        claims=claims(rounds),
        chart=chart(rounds),
        notes=[
            f"{plan.rounds} rounds, {complete} with all four; in each, {plan.turns} turns of {plan.tasks:,} tasks.",
            *(added(variant, rounds) for variant in VARIANTS if variant != "plain"),
        ],
        versions=["opentelemetry-instrumentation-celery", "opentelemetry-sdk"],
    )


if __name__ == "__main__":
    sys.exit(run(answer))
