"""What does the monitor cost Redis? Round trips, bytes and memory, for 1,000, 100,000 and 1,000,000 tasks.

Compared with writing task by task, as the size guide that this package began with would: ``json.dumps`` of both parts,
and a pipeline that raises counters, sums and maxima. Both write to one redis-server, whose INFO is read before and
after: replies written (round trips), bytes read, and CPU time.

- Traffic is that of one worker with 50 task names, whose tasks come all the time for 20 flush intervals: more tasks are
  more in each interval. The flusher and the store are the real ones. What tasks hand over was added up before, in
  pieces of 20 ms, as no worker could run 1,000,000 tasks in that time. What is read back must be the number of tasks.
- Memory is that of 1,000 names: MEMORY USAGE of each key with all its fields, and a name's share of the set of names.
  Sizes of args and kwargs are from 2 to 200,000 characters, each order of magnitude as likely as the next; half of the
  parts have characters of several bytes. *Much cut*: reprs over 1,024 characters, Celery's default, came cut. There are
  25 sets of figures, and each is that of 40 names.
- Task by task, all is reckoned from 5,000 tasks, as each costs the same.
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

import redis  # noqa: E402 - from here on, what is ours is found too
import redis_server  # noqa: E402
from harness import Answer, Chart, Claim, run  # noqa: E402

from celery_argsize.figures.counters import Book, Rules, TaskStats  # noqa: E402
from celery_argsize.measuring.json_size import Size  # noqa: E402
from celery_argsize.measuring.measurement import Measurement, Part  # noqa: E402
from celery_argsize.measuring.repr_shape import Shape  # noqa: E402
from celery_argsize.settings import DEFAULT_BUCKETS, Settings  # noqa: E402
from celery_argsize.stores.base import Batch  # noqa: E402
from celery_argsize.stores.redis import RedisStore  # noqa: E402
from celery_argsize.worker.flusher import Flusher  # noqa: E402
from celery_argsize.worker.handoff import LocalHandoff  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery_argsize.measuring.cuts import Verdict

RULES: Final = Rules(1024, DEFAULT_BUCKETS)
#: Bytes that a name may take; and how many times as much after a thousand times as many tasks, as numbers get longer.
MOST: Final = 4096
FLAT: Final = 1.25
MB: Final = 1 << 20


class Plan(NamedTuple):
    """How much is measured."""

    tasks: tuple[int, ...]
    intervals: int
    interval: float
    """Seconds."""
    alone: int
    """Tasks that are written one by one."""
    names: int
    """Task names whose memory is measured."""
    sets: int
    """Sets of figures that they have."""


FULL: Final = Plan(tasks=(1_000, 100_000, 1_000_000), intervals=20, interval=0.2, alone=5000, names=1000, sets=25)
SMOKE: Final = Plan(tasks=(100, 1_000, 3_000), intervals=3, interval=0.1, alone=50, names=20, sets=2)

BUSY: Final = 50
MANY: Final = 1000
#: Seconds between two pieces that are handed over.
PIECE: Final = 0.02


# -- made-up tasks ------------------------------------------------------------------------------------------------


def make_shape(rng: random.Random, chars: int, need: int, header: int) -> Shape:
    """What is known of a part that was cut: about that of lists of records."""
    items = chars // 15
    sums = (need, need * 21 // 20, header, header * 21 // 20, items, items, items // 2, items // 6, 3 * items)
    return Shape(need, rng.choice((2, 3, 4, 5)), *sums)


def make_part(rng: random.Random, chars: int, *, cut: bool) -> Part:
    """A part of so many characters; its repr is a little longer, and cut where Celery would have."""
    size = Size(chars, chars + rng.choice((0, chars // 10)))
    need = chars + chars // rng.choice((8, 16, 32))
    if not cut or need <= 1024:
        return Part(size, "intact", need)
    verdict: Verdict = rng.choice(("size", "size", "depth", "both"))
    return Part(size, verdict, 1024, limit=1024, shape=make_shape(rng, chars, need, 1024))


def make_id(rng: random.Random) -> str:
    """A task id, as Celery makes them."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def any_size(rng: random.Random, low: int = 2, high: int = 200_000) -> int:
    """*low* to *high*, each order of magnitude as likely as the next."""
    return int(math.exp(rng.uniform(math.log(low), math.log(high))))


def make_run(rng: random.Random, task: str, *, cut: bool) -> Measurement:
    """One run of *task*."""
    args, kwargs = (make_part(rng, any_size(rng), cut=cut) for _ in range(2))
    return Measurement(task, make_id(rng), args, kwargs, time.time() + rng.random())


def make_stats(rng: random.Random, runs: int, *, cut: bool) -> TaskStats:
    """The figures of one task name after so many runs."""
    stats = TaskStats()
    for _ in range(runs):
        stats.add(make_run(rng, "", cut=cut), RULES)
    return stats


def fullest_stats(rng: random.Random) -> TaskStats:
    """Every field and bucket, in both parts, as after hundreds of millions of runs."""
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
    return TaskStats({field: by * rng.randrange(10**6) for field, by in stats.counts.items()}, stats.maxima)


# -- traffic ------------------------------------------------------------------------------------------------------


class Traffic(NamedTuple):
    """What a redis-server had to do."""

    trips: float
    """Replies that it wrote."""
    received: float
    """Bytes."""
    cpu: float
    """Seconds."""

    def less(self, other: Traffic) -> Traffic:
        """Without *other*."""
        return Traffic(*(this - that for this, that in zip(self, other, strict=True)))

    def times(self, factor: float) -> Traffic:
        """So many times as much."""
        return Traffic(*(figure * factor for figure in self))


def so_far(client: redis.Redis) -> Traffic:
    """All since the server began."""
    info: Any = client.info("all")
    cpu = info["used_cpu_user"] + info["used_cpu_sys"]
    return Traffic(info["total_writes_processed"], info["total_net_input_bytes"], cpu)


def traffic(client: redis.Redis, work: Callable[[], object]) -> Traffic:
    """What *work* made the server do; asking for it is not counted."""
    before, began = so_far(client), so_far(client)
    work()
    return so_far(client).less(began).less(began.less(before))


def write_alone(url: str, tasks: int) -> Traffic:
    """Write so many tasks one by one."""
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


def pieces(tasks: int, names: int, plan: Plan) -> list[dict[str, TaskStats]]:
    """So many tasks as figures by name, in equal pieces: a few that are used again and again."""
    number = round(plan.intervals * plan.interval / PIECE)
    rng = random.Random(tasks)
    some = [Book(names) for _ in range(5)]
    for book in some:
        for _ in range(max(1, tasks // number)):
            book.add(make_run(rng, f"music.tasks.task_{rng.randrange(names)}", cut=True), RULES)
    return [some[at % len(some)].tasks for at in range(number)]


def write_ours(url: str, tasks: int, names: int, plan: Plan) -> tuple[Traffic, int]:
    """What it is for one worker, and in how many flush intervals: the last one is cut short."""
    settings = Settings(redis_url=url, app_name=f"{tasks} of {names}", flush_interval=plan.interval)
    handoff = LocalHandoff(RULES, MANY)
    flusher = Flusher(handoff, RedisStore(settings), settings, "worker")
    given = pieces(tasks, names, plan)

    def work() -> None:
        began = time.monotonic()
        for at, piece in enumerate(given):
            time.sleep(max(0.0, began + at * PIECE - time.monotonic()))
            for name, stats in piece.items():
                handoff.add(name, stats)
            handoff.wake()
        flusher.stop(10.0)
        took.append(time.monotonic() - began)

    took: list[float] = []
    flusher.start()
    handoff.add("music.tasks.task_0", TaskStats({"errors": 1}))
    flusher.flush(10.0)  # connects: once in the life of a worker
    with redis.Redis.from_url(url) as admin:
        found = traffic(admin, work)
    read = RedisStore(settings).read().tasks
    sent = sum(Book.count_of(piece) for piece in given)
    if Book.count_of(read) != sent:
        message = f"{sent:,} runs were handed over, and {Book.count_of(read):,} are in Redis"
        raise RuntimeError(message)
    return found, math.floor(took[0] / plan.interval) + 1


# -- memory -------------------------------------------------------------------------------------------------------


def bytes_a_name(url: str, figures: list[TaskStats], names: int) -> float:
    """Bytes in Redis for each of so many names, which have *figures* by turns."""
    settings = Settings(redis_url=url, app_name="memory")
    store, base = RedisStore(settings), settings.base
    every = [f"music_library.tasks.task_{n:05}" for n in range(names)]
    for sequence, at in enumerate(range(0, names, Flusher.BATCH_TASKS), 1):
        some = range(at, min(at + Flusher.BATCH_TASKS, names))
        store.apply(Batch("worker", sequence, {every[n]: figures[n % len(figures)] for n in some}))
    with redis.Redis.from_url(url) as client:
        pipeline = client.pipeline(transaction=False)
        for key in (f"{base}names", *(f"{base}task:{name}" for name in every)):
            pipeline.memory_usage(key, samples=0)
        found = sum(pipeline.execute())
        client.flushall()
    store.close()
    return float(found / names)


def bytes_a_name_alone(url: str) -> float:
    """The same of those that ``write_alone`` left there."""
    with redis.Redis.from_url(url) as client:
        found: int = sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter("sizes:*"))
        client.flushall()
    return found / BUSY


def kept(url: str, plan: Plan, *, cut: bool) -> list[float]:
    """Bytes a name after each number of the plan's tasks, and after a thousand times the last."""
    rng = random.Random(2)
    found: list[float] = []
    for tasks in plan.tasks:
        figures = [make_stats(rng, tasks // plan.tasks[0], cut=cut) for _ in range(plan.sets)]
        found.append(bytes_a_name(url, figures, plan.names))
    thousandfold = [TaskStats({field: 1000 * by for field, by in one.counts.items()}, one.maxima) for one in figures]
    return [*found, bytes_a_name(url, thousandfold, plan.names)]


# -- the answer ---------------------------------------------------------------------------------------------------


def row(name: str, done: Traffic | None, memory: Sequence[float] = ()) -> list[str]:
    """A row of the table."""
    spent = ["", "", ""]
    if done is not None:
        spent = [f"{done.trips:,.0f}", f"{done.received / MB:,.3g} MB", f"{done.cpu * 1000:,.3g} ms"]
    sizes = [f"{size:,.0f}" for size in memory]
    return [name, *spent, *sizes, *[""] * (2 - len(sizes))]


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - as the harness calls it
    """Measure."""
    plan = SMOKE if smoke else FULL
    _, some, most = plan.tasks
    with tempfile.TemporaryDirectory() as folder, redis_server.run(Path(folder)) as url:
        one_by_one = write_alone(url, plan.alone).times(1 / plan.alone)
        alone_memory = bytes_a_name_alone(url)
        done = {tasks: write_ours(url, tasks, BUSY, plan) for tasks in plan.tasks}
        many, intervals = write_ours(url, some, MANY, plan)
        with redis.Redis.from_url(url) as client:
            client.flushall()
            info: Any = client.info("server")
        intact, cut = (kept(url, plan, cut=cut) for cut in (False, True))
        fullest = bytes_a_name(url, [fullest_stats(random.Random(3))], plan.names)
    rows, many_trips = [], many.trips / intervals
    for at, tasks in enumerate(plan.tasks):
        rows.append(row(f"{tasks:,}, task by task (≈)", one_by_one.times(tasks), [alone_memory] * 2))
        rows.append(row(f"{tasks:,}, celery_argsize", done[tasks][0], [intact[at], cut[at]]))
    rows.append(row(f"{some:,} of {MANY:,} names, celery_argsize", many))
    rows.append(row(f"{1000 * most:,}, celery_argsize", None, [intact[-1], cut[-1]]))
    rows.append(row("every field and bucket, celery_argsize", None, [fullest] * 2))
    trips = max(ours.trips / intervals for ours, intervals in done.values())
    growth = max(sizes[-1] / sizes[-2] for sizes in (intact, cut))
    return Answer(
        title="What does it cost Redis?",
        head=["tasks", "round trips", "sent to Redis", "CPU time of Redis", "bytes a name, nothing cut", "much cut"],
        rows=rows,
        claims=[
            Claim("round trips of a worker in a flush interval", trips, 1, "round trips"),
            Claim(f"memory of a name after {most:,} tasks, nothing cut", intact[-2], MOST, "bytes"),
            Claim(f"memory of a name after {most:,} tasks, much cut", cut[-2], MOST, "bytes"),
            Claim(f"the same after {1000 * most:,} tasks, by that after {most:,}", growth, FLAT),
        ],
        chart=Chart(
            title="Round trips to Redis: task by task, and in batches",
            x=f"tasks of one worker, in {plan.intervals} flush intervals",
            y="round trips",
            series={
                "task by task": [(tasks, one_by_one.trips * tasks) for tasks in plan.tasks],
                "celery_argsize": [(tasks, ours.trips) for tasks, (ours, _) in done.items()],
            },
            log="xy",
        ),
        notes=[
            f"Redis {info['redis_version']}; traffic of {plan.intervals} flush intervals, the last flush included.",
            f"A batch has up to {Flusher.BATCH_TASKS} names: with {MANY:,} names, an interval took {many_trips:.1f}.",
            f"≈: reckoned from {plan.alone:,} tasks.",
            "Task by task, there are no histograms, no bytes, and nothing that advice could be made from.",
        ],
        versions=["redis"],
    )


if __name__ == "__main__":
    sys.exit(run(answer))
