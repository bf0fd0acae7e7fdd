"""What does the monitor cost Redis? Round trips, bytes and memory for 1,000, 100,000 and 1,000,000 tasks.

It is compared with a simple design that writes after each task: ``json.dumps`` of both parts, and a pipeline that
raises counters, sums and maxima. Both write to one redis-server. INFO before and after tells the number of replies
(round trips), the bytes received, and the CPU time.

- Traffic is that of one worker with 50 task names over 20 flush intervals, with the real flusher and the real store.
  More tasks mean more tasks in each interval. What the tasks hand over is added up beforehand in pieces of 20 ms,
  because no worker could run 1,000,000 tasks in that time. The number of tasks read back must be right.
- Memory is that of 1,000 task names: MEMORY USAGE of each key with all its fields, and its share of the set of names.
  Args and kwargs have 2 to 200,000 characters, each order of magnitude equally likely; half of the parts have
  characters of several bytes. *Much cut*: Celery cut all reprs over its default of 1,024 characters. The names share 25
  sets of figures.
- The figures of the simple design are extrapolated from 5,000 tasks, because each task costs the same there.
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

HERE: Final = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "scripts"))

import redis  # noqa: E402 - the folders of our own modules are on sys.path only from here on
import redis_server  # noqa: E402
from harness import Answer, Chart, Claim, run  # noqa: E402

from celery_argsize.figures.counters import Rules, Tally, TaskStats  # noqa: E402
from celery_argsize.figures.layout import ERRORS, Changes  # noqa: E402
from celery_argsize.measuring.json_size import Size  # noqa: E402
from celery_argsize.measuring.measurement import Measurement, Part  # noqa: E402
from celery_argsize.measuring.repr_shape import Shape  # noqa: E402
from celery_argsize.settings import DEFAULT_BUCKETS, Settings  # noqa: E402
from celery_argsize.stores.base import Batch  # noqa: E402
from celery_argsize.stores.redis import RedisStore  # noqa: E402
from celery_argsize.worker.flusher import Flusher  # noqa: E402
from celery_argsize.worker.notes import LocalNotes  # noqa: E402
from celery_argsize.worker.shared_counters import SharedCounters  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery_argsize.measuring.cuts import Verdict

RULES: Final = Rules(1024, DEFAULT_BUCKETS)
#: Targets: bytes that a task name may take, and how much this may grow when a thousand times as many tasks ran.
MOST: Final = 4096
FLAT: Final = 1.25
MB: Final = 1 << 20


class Plan(NamedTuple):
    """How much is measured."""

    tasks: tuple[int, ...]
    intervals: int
    interval: float
    """Seconds of a flush interval."""
    alone: int
    """Tasks that the simple design writes one by one."""
    names: int
    """Task names whose memory is measured."""
    sets: int
    """Sets of figures that these names share."""


FULL: Final = Plan(tasks=(1_000, 100_000, 1_000_000), intervals=20, interval=0.2, alone=5000, names=1000, sets=25)
SMOKE: Final = Plan(tasks=(100, 1_000, 3_000), intervals=3, interval=0.1, alone=50, names=20, sets=2)

#: Task names of the worker whose traffic is measured, and of a worker with many names.
BUSY: Final = 50
MANY: Final = 1000
#: Seconds between two pieces of figures that are handed over.
PIECE: Final = 0.02


# -- made-up tasks ------------------------------------------------------------------------------------------------


def make_shape(rng: random.Random, chars: int, need: int, header: int) -> Shape:
    """Shape of a part that Celery cut, much like a list of records."""
    items = chars // 15
    sums = (need, need * 21 // 20, header, header * 21 // 20, items, items, items // 6, 3 * items)
    return Shape(need, rng.choice((2, 3, 4, 5)), *sums)


def make_part(rng: random.Random, chars: int, *, cut: bool) -> Part:
    """A part of *chars* characters. Its repr is a little longer, and with *cut*, is cut if Celery would cut it."""
    size = Size(chars, chars + rng.choice((0, chars // 10)))
    need = chars + chars // rng.choice((8, 16, 32))
    if not cut or need <= 1024:
        return Part(size, "intact", need)
    verdict: Verdict = rng.choice(("size", "size", "depth", "both"))
    return Part(size, verdict, 1024, limit=1024, shape=make_shape(rng, chars, need, 1024))


def make_id(rng: random.Random) -> str:
    """A random task id, in the form that Celery uses."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def any_size(rng: random.Random, low: int = 2, high: int = 200_000) -> int:
    """A random size from *low* to *high*; each order of magnitude is equally likely."""
    return int(math.exp(rng.uniform(math.log(low), math.log(high))))


def make_run(rng: random.Random, task: str, *, cut: bool) -> Measurement:
    """The measurement of one run of *task*, with random sizes."""
    args, kwargs = (make_part(rng, any_size(rng), cut=cut) for _ in range(2))
    return Measurement(task, make_id(rng), args, kwargs, time.time() + rng.random())


def make_stats(rng: random.Random, runs: int, *, cut: bool) -> TaskStats:
    """The figures of one task name after *runs* random runs."""
    stats = TaskStats()
    for _ in range(runs):
        stats.add(make_run(rng, "", cut=cut), RULES)
    return stats


def fullest_stats(rng: random.Random) -> TaskStats:
    """Figures with every field and bucket in both parts, and numbers as after hundreds of millions of runs."""
    verdicts: tuple[Verdict, ...] = ("intact", "size", "depth", "both", "custom", "unknown")
    stats = TaskStats({"errors": 1})
    for chars in (*RULES.bounds, 2 * RULES.bounds[-1]):
        for verdict in verdicts:
            for _ in range(8):
                size = Size(chars, chars * rng.choice((1, 1, 1, 2)))
                need = chars * rng.choice((1, 1, 1, 2))
                part = Part(size, verdict, need, shape=make_shape(rng, chars, need, 1024))
                stats.add(Measurement("", make_id(rng), part, part, time.time()), RULES)
    nothing = Part(None)
    stats.add(Measurement("", "", nothing, nothing, time.time()), RULES)
    counts = {field: by * rng.randrange(10**6) for field, by in stats.counts.items()}
    return TaskStats(counts, stats.maxima, stats.exemplars)


# -- traffic ------------------------------------------------------------------------------------------------------


class Traffic(NamedTuple):
    """The work of a redis-server."""

    trips: float
    """Round trips: replies that it wrote."""
    received: float
    """Bytes that it received."""
    cpu: float
    """Seconds of CPU time."""

    def less(self, other: Traffic) -> Traffic:
        """This traffic minus *other*."""
        return Traffic(*(ours - theirs for ours, theirs in zip(self, other, strict=True)))

    def times(self, factor: float) -> Traffic:
        """This traffic times *factor*."""
        return Traffic(*(figure * factor for figure in self))


def so_far(client: redis.Redis) -> Traffic:
    """The traffic since the server was started."""
    info: Any = client.info("all")
    cpu = info["used_cpu_user"] + info["used_cpu_sys"]
    return Traffic(info["total_writes_processed"], info["total_net_input_bytes"], cpu)


def traffic(client: redis.Redis, work: Callable[[], object]) -> Traffic:
    """The traffic that *work* causes, without that of asking for the figures."""
    before, began = so_far(client), so_far(client)
    work()
    return so_far(client).less(began).less(began.less(before))


def write_alone(url: str, tasks: int) -> Traffic:
    """The traffic of the simple design, which writes *tasks* tasks one by one."""
    rng = random.Random(1)
    texts = ["x" * (any_size(rng) // 2) for _ in range(100)]

    def measured(value: object) -> int:
        return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    def work() -> None:
        for number in range(tasks):
            name = f"music.tasks.task_{number % BUSY}"
            args, kwargs = measured([texts[number % 100]]), measured({"title": texts[number % 89]})
            pipeline = client.pipeline(transaction=False)
            for field, by in (("count", 1), ("args", args), ("kwargs", kwargs), ("truncated", int(args > 1024))):
                pipeline.hincrby(f"sizes:{name}", field, by)
            pipeline.zadd("sizes:max_args", {name: args}, gt=True)
            pipeline.zadd("sizes:max_kwargs", {name: kwargs}, gt=True)
            pipeline.execute()

    with redis.Redis.from_url(url) as client, redis.Redis.from_url(url) as admin:
        client.ping()
        return traffic(admin, work)


#: A run: its task, and what it changes (``Layout.changes``).
Run = tuple[str, Changes]


def pieces(tasks: int, names: int, plan: Plan) -> list[list[Run]]:
    """The runs of *tasks* tasks, in pieces of equal size. To save time, five different pieces are repeated."""
    number = round(plan.intervals * plan.interval / PIECE)
    rng = random.Random(tasks)

    def run() -> Run:
        measurement = make_run(rng, f"music.tasks.task_{rng.randrange(names)}", cut=True)
        return measurement.task, RULES.layout.changes(measurement.args, measurement.kwargs)

    different = [[run() for _ in range(max(1, tasks // number))] for _ in range(5)]
    return [different[at % len(different)] for at in range(number)]


def write_ours(url: str, tasks: int, names: int, plan: Plan) -> tuple[Traffic, int]:
    """The traffic of one worker with celery_argsize, and the number of flush intervals. The last one is shorter."""
    settings = Settings(redis_url=url, app_name=f"{tasks} of {names}", flush_interval=plan.interval)
    counters = SharedCounters(RULES, MANY)
    region = counters.region()
    if region is None:
        message = "there is no region to count in"
        raise RuntimeError(message)
    flusher = Flusher(counters, LocalNotes(), RedisStore(settings), settings, "worker")
    to_add = pieces(tasks, names, plan)

    def work() -> None:
        began = time.monotonic()
        for at, piece in enumerate(to_add):
            time.sleep(max(0.0, began + at * PIECE - time.monotonic()))
            for counted in piece:
                region.update(*counted)
        flusher.stop(10.0)
        took.append(time.monotonic() - began)

    took: list[float] = []
    flusher.start()
    region.update("music.tasks.task_0", Changes({ERRORS: 1}, {}))
    flusher.flush(10.0)  # connects, which a worker does only once
    with redis.Redis.from_url(url) as admin:
        measured = traffic(admin, work)
    read = RedisStore(settings).read().tasks
    sent = sum(map(len, to_add))
    if Tally.count_of(read) != sent:
        message = f"{sent:,} runs were counted, and {Tally.count_of(read):,} are in Redis"
        raise RuntimeError(message)
    return measured, math.floor(took[0] / plan.interval) + 1


# -- memory -------------------------------------------------------------------------------------------------------


def bytes_a_name(url: str, figures: list[TaskStats], names: int) -> float:
    """Bytes in Redis per task name, for so many *names* that share the *figures*."""
    settings = Settings(redis_url=url, app_name="memory")
    store, base = RedisStore(settings), settings.base
    task_names = [f"music_library.tasks.task_{n:05}" for n in range(names)]
    for sequence, at in enumerate(range(0, names, Flusher.BATCH_TASKS), 1):
        numbers = range(at, min(at + Flusher.BATCH_TASKS, names))
        store.apply(Batch("worker", sequence, {task_names[n]: figures[n % len(figures)] for n in numbers}))
    with redis.Redis.from_url(url) as client:
        pipeline = client.pipeline(transaction=False)
        for key in (f"{base}names", *(f"{base}task:{name}" for name in task_names)):
            pipeline.memory_usage(key, samples=0)
        total = sum(pipeline.execute())
        client.flushall()
    store.close()
    return float(total / names)


def bytes_a_name_alone(url: str) -> float:
    """Bytes in Redis per task name of the simple design, from what ``write_alone`` wrote."""
    with redis.Redis.from_url(url) as client:
        total: int = sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter("sizes:*"))
        client.flushall()
    return total / BUSY


def kept(url: str, plan: Plan, *, cut: bool) -> list[float]:
    """Bytes per task name after each number of tasks in the plan, and after a thousand times the last number."""
    rng = random.Random(2)
    sizes: list[float] = []
    for tasks in plan.tasks:
        figures = [make_stats(rng, tasks // plan.tasks[0], cut=cut) for _ in range(plan.sets)]
        sizes.append(bytes_a_name(url, figures, plan.names))
    thousandfold = [
        TaskStats({field: 1000 * by for field, by in stats.counts.items()}, stats.maxima) for stats in figures
    ]
    return [*sizes, bytes_a_name(url, thousandfold, plan.names)]


# -- the answer ---------------------------------------------------------------------------------------------------


def row(name: str, done: Traffic | None, memory: Sequence[float] = ()) -> list[str]:
    """A row of the table: traffic, and bytes per name without and with cut reprs."""
    spent = ["", "", ""]
    if done is not None:
        spent = [f"{done.trips:,.0f}", f"{done.received / MB:,.3g} MB", f"{done.cpu * 1000:,.3g} ms"]
    sizes = [f"{size:,.0f}" for size in memory]
    return [name, *spent, *sizes, *[""] * (2 - len(sizes))]


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - harness.run calls it with one argument
    """Measure traffic and memory of both designs."""
    plan = SMOKE if smoke else FULL
    _, middle, most = plan.tasks
    with tempfile.TemporaryDirectory() as folder, redis_server.run(Path(folder)) as url:
        one_by_one = write_alone(url, plan.alone).times(1 / plan.alone)
        alone_memory = bytes_a_name_alone(url)
        ours = {tasks: write_ours(url, tasks, BUSY, plan) for tasks in plan.tasks}
        many, intervals = write_ours(url, middle, MANY, plan)
        with redis.Redis.from_url(url) as client:
            client.flushall()
            info: Any = client.info("server")
        intact, cut = (kept(url, plan, cut=cut) for cut in (False, True))
        fullest = bytes_a_name(url, [fullest_stats(random.Random(3))], plan.names)
    rows, many_trips = [], many.trips / intervals
    for at, tasks in enumerate(plan.tasks):
        rows.append(row(f"{tasks:,}, task by task (≈)", one_by_one.times(tasks), [alone_memory] * 2))
        rows.append(row(f"{tasks:,}, celery_argsize", ours[tasks][0], [intact[at], cut[at]]))
    rows.append(row(f"{middle:,} of {MANY:,} names, celery_argsize", many))
    rows.append(row(f"{1000 * most:,}, celery_argsize", None, [intact[-1], cut[-1]]))
    rows.append(row("every field and bucket, celery_argsize", None, [fullest] * 2))
    trips = max(spent.trips / intervals for spent, intervals in ours.values())
    growth = max(sizes[-1] / sizes[-2] for sizes in (intact, cut))
    return Answer(
        title="What does it cost Redis?",
        head=["tasks", "round trips", "sent to Redis", "CPU time of Redis", "bytes per name, nothing cut", "much cut"],
        rows=rows,
        claims=[
            Claim("round trips of a worker in a flush interval", trips, 1, "round trips"),
            Claim(f"memory of a name after {most:,} tasks, nothing cut", intact[-2], MOST, "bytes"),
            Claim(f"memory of a name after {most:,} tasks, much cut", cut[-2], MOST, "bytes"),
            Claim(f"memory of a name, {1000 * most:,} tasks compared with {most:,}", growth, FLAT),
        ],
        chart=Chart(
            title="Round trips to Redis: task by task, and in batches",
            x=f"tasks of one worker, in {plan.intervals} flush intervals",
            y="round trips",
            series={
                "task by task": [(tasks, one_by_one.trips * tasks) for tasks in plan.tasks],
                "celery_argsize": [(tasks, spent.trips) for tasks, (spent, _) in ours.items()],
            },
            log="xy",
        ),
        notes=[
            f"Redis {info['redis_version']}. The traffic is that of {plan.intervals} flush intervals and a last flush.",
            f"A batch has at most {Flusher.BATCH_TASKS} names. With {MANY:,}, an interval took {many_trips:.1f} trips.",
            f"≈: extrapolated from {plan.alone:,} tasks.",
            "The design that writes task by task keeps no histograms, no bytes, and nothing to base advice on.",
        ],
        versions=["redis"],
    )


if __name__ == "__main__":
    sys.exit(run(answer))
