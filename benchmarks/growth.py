"""How do a scrape and the reports slow down as the number of task names grows? Times for 10, 100 and 1,000 names.

    python benchmarks/growth.py

The readers read the figures from a Redis of their own. Each name has had 24 runs of many sizes. Half
of the names have small arguments, a quarter have small arguments that are not ASCII, and a quarter have up to 200,000
characters, whose reprs Celery cut. The readers take turns. The time is that of all their work, with reading from Redis
but without printing or sending. The advice in the reports is made without timing publishes, which takes the commands
some more seconds if reprs were cut.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

HERE: Final = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "scripts"))

import redis  # noqa: E402
import redis_server  # noqa: E402
from harness import Answer, Chart, Claim, ratio, run, spread  # noqa: E402
from prometheus_client import CollectorRegistry, generate_latest  # noqa: E402
from redis_cost import any_size  # noqa: E402

from celery_argsize import advise  # noqa: E402
from celery_argsize.figures.counters import Rules, Tally, TaskStats  # noqa: E402
from celery_argsize.figures.summary import summarize  # noqa: E402
from celery_argsize.measuring.json_size import Size  # noqa: E402
from celery_argsize.measuring.measurement import Measurement, Part  # noqa: E402
from celery_argsize.measuring.repr_shape import Shape  # noqa: E402
from celery_argsize.prometheus.collector import ArgsizeCollector  # noqa: E402
from celery_argsize.prometheus.metrics import Scrape, exposition  # noqa: E402
from celery_argsize.settings import DEFAULT_BUCKETS, Settings  # noqa: E402
from celery_argsize.stores.base import Batch  # noqa: E402
from celery_argsize.stores.redis import RedisStore  # noqa: E402
from celery_argsize.views.page import report_html  # noqa: E402
from celery_argsize.views.report import report_json, report_text  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery_argsize.advice.advice import Advice
    from celery_argsize.figures.summary import Summary
    from celery_argsize.measuring.cuts import Verdict

    Reader = Callable[[RedisStore], object]

RULES: Final = Rules(1024, DEFAULT_BUCKETS)
RUNS: Final = 24
#: Target: milliseconds for a scrape of the most names.
SCRAPE_MS: Final = 50
#: Target: time per name with 1,000 names, compared with 100 names.
LINEAR: Final = 1.3


# -- figures in Redis ---------------------------------------------------------------------------------------------


def cut(size: int) -> Part:
    """A part of *size* characters, made of records of about 100 characters, whose repr Celery cut."""
    need, records = size * 5 // 4, max(1, size // 100)
    shape = Shape(need, 3, need, need, 1024, 1024, 7 * records, 6 * records, records + 2, 3 * records)
    return Part(Size(size, size), "size", 1024, limit=1024, shape=shape)


def args(name: int, rng: Random) -> Part:
    """The args of one run of the task with the number *name*."""
    match name % 4:
        case 0:
            size = any_size(rng, 10, 200_000)
            return cut(size) if size > 1000 else Part(Size(size, size), "intact", size)
        case 1:
            size = any_size(rng, 2, 900)
            return Part(Size(size, size * 5 // 4), "intact", size * 9 // 8)
    size = any_size(rng, 2, 900)
    return Part(Size(size, size), "intact", size)


def many(names: int) -> dict[str, TaskStats]:
    """Figures of so many task *names*, each with random runs."""
    tally, rng = Tally(names), Random(names)
    for name in range(names):
        for _ in range(RUNS):
            size = any_size(rng, 2, 900)
            parts = args(name, rng), Part(Size(size, size), "intact", size)
            tally.add(Measurement(f"app.jobs.tasks.task_{name}", f"{rng.getrandbits(128):032x}", *parts, 1e9), RULES)
    return tally.tasks


def filled(names: int) -> dict[str, TaskStats]:
    """Figures of so many task *names*, each with runs in every bucket, cut in every way."""
    tally = Tally(1)
    verdicts: tuple[Verdict, ...] = ("size", "depth", "both", "custom", "unknown", "intact")
    for number, bound in enumerate((*DEFAULT_BUCKETS, DEFAULT_BUCKETS[-1] * 2)):
        for verdict in verdicts:
            for levels in (2, 5):
                shape = Shape(bound - 1, levels, *[bound] * 8) if verdict in verdicts[:3] else None
                part = Part(Size(bound - 1, bound + number % 2), verdict, bound - 1, shape=shape)
                tally.add(Measurement("any", f"{number:032x}", part, part, 1e9 + number), RULES)
    (stats,) = tally.tasks.values()
    stats.counts |= dict.fromkeys(("unmeasurable", "args.unmeasurable", "kwargs.unmeasurable"), 3)
    return {f"app.jobs.tasks.task_{name}": stats for name in range(names)}


def stored(url: str, app: str, tasks: Mapping[str, TaskStats]) -> RedisStore:
    """Write *tasks* to Redis in batches, as a worker does. Returns the store, with its connection open."""
    store = RedisStore(Settings(redis_url=url, app_name=app))
    items = [*tasks.items()]
    for start in range(0, len(items), 100):
        store.apply(Batch("benchmark", 1 + start, dict(items[start : start + 100])))
    store.read()
    return store


# -- readers ------------------------------------------------------------------------------------------------------


def advised(store: RedisStore) -> tuple[Summary, Advice]:
    """Read a summary from *store*, and work out the advice."""
    summary = summarize(store.read())
    return summary, advise(summary, "redis", metadata.version("celery"))


def by_prometheus_client(store: RedisStore) -> bytes:
    """A scrape whose text is made by prometheus_client."""
    registry = CollectorRegistry()
    registry.register(ArgsizeCollector(store))
    return generate_latest(registry)


SCRAPE: Final = "scrape"
THROUGH: Final = "scrape through prometheus_client"
#: Readers with a target: their time must grow linearly.
READERS: Final[dict[str, Reader]] = {
    SCRAPE: lambda store: ArgsizeCollector(store).exposition(openmetrics=True),
    "report": lambda store: report_text(*advised(store)),
    "report as JSON": lambda store: json.dumps(report_json(*advised(store)), indent=2, ensure_ascii=False),
    "report as HTML": lambda store: report_html(
        *advised(store), redis_url=None, bounds=DEFAULT_BUCKETS, limits=None, now=0.0
    ),
}
figures_of: Final = lru_cache(RedisStore.read)
#: Readers without a target.
OTHERS: Final[dict[str, Reader]] = {
    "of a scrape: reading Redis": lambda store: ArgsizeCollector(store).scrape(),
    "of a scrape: making the text": lambda store: exposition(Scrape(figures_of(store)), openmetrics=True),
    THROUGH: by_prometheus_client,
}


def timed(reader: Reader, store: RedisStore, times: int) -> float:
    """Seconds that *reader* takes, the mean of *times* runs in a row."""
    began = time.perf_counter()
    for _ in range(times):
        reader(store)
    return (time.perf_counter() - began) / times


def by_turns(stores: Mapping[int, RedisStore], rounds: int) -> dict[str, dict[int, list[float]]]:
    """Time all readers in turns. Returns reader → number of names → seconds, one figure for each round."""
    readers = {**READERS, **OTHERS}
    seconds: dict[str, dict[int, list[float]]] = {name: {names: [] for names in stores} for name in readers}
    for _ in range(rounds):
        for names, store in stores.items():
            for name, reader in readers.items():
                seconds[name][names].append(timed(reader, store, max(1, 300 // names)))
    return seconds


class RedisWork(NamedTuple):
    """What Redis does for one scrape, from its own statistics."""

    trips: float
    """Requests that it read."""
    milliseconds: float
    """Time that it was busy with nothing else."""


def redis_work(store: RedisStore, client: redis.Redis, times: int) -> RedisWork:
    """The work of Redis for a scrape of *store*, the mean of *times* scrapes. *client* reads the statistics."""
    client.config_resetstat()
    for _ in range(times):
        READERS[SCRAPE](store)
    reads = client.info("stats")["total_reads_processed"] - 1  # without the request for the statistics
    return RedisWork(reads / times, client.info("commandstats")["cmdstat_evalsha"]["usec"] / times / 1000)


# -- results ------------------------------------------------------------------------------------------------------


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - harness.run calls it with one argument
    """Measure all readers."""
    sizes, rounds = ((2, 5, 10), 2) if smoke else ((10, 100, 1000), 12)
    few, most = sizes[1:]
    with tempfile.TemporaryDirectory() as folder, redis_server.run(Path(folder)) as url:
        stores = {names: stored(url, f"app {names}", many(names)) for names in sizes}
        full = stored(url, "full", filled(most))
        seconds = by_turns(stores, rounds)
        worst = [timed(READERS[SCRAPE], full, 1) for _ in range(rounds)]
        with redis.Redis.from_url(url) as client:
            works = {names: redis_work(store, client, rounds) for names, store in stores.items()}
    growth = {name: ratio(times[most], times[few]) * few / most for name, times in seconds.items()}
    rows = [
        [name, *(spread(times, 1000) for times in by_names.values()), f"{growth[name]:.2f}"]
        for name, by_names in seconds.items()
    ]
    rows.append(["of a scrape: time of the Redis server", *(f"{work.milliseconds:.3g}" for work in works.values()), ""])
    rows.append(["scrape, all fields and buckets filled", *("" for _ in sizes[1:]), spread(worst, 1000), ""])
    kilobytes = len(exposition(Scrape(figures_of(stores[most])), openmetrics=True)) / 1024
    return Answer(
        title="How does the time of a scrape and of the reports grow with the number of task names?",
        head=["milliseconds", *(f"{names:,} names" for names in sizes), f"per name, {most:,} compared with {few:,}"],
        rows=rows,
        claims=[
            *(
                Claim(f"{name}, time per name, {most:,} names compared with {few:,}", growth[name], LINEAR)
                for name in READERS
            ),
            Claim(f"scrape of {most:,} names", statistics.median(seconds[SCRAPE][most]) * 1000, SCRAPE_MS, "ms"),
            Claim("round trips to Redis", max(work.trips for work in works.values()), 1, "a scrape"),
        ],
        chart=Chart(
            "Growth with the number of task names",
            "task names",
            "milliseconds",
            {
                name: [(names, statistics.median(times) * 1000) for names, times in seconds[name].items()]
                for name in [*READERS, THROUGH]
            },
            log="xy",
            limit=SCRAPE_MS,
        ),
        notes=[
            f"A scrape of {most:,} names is {kilobytes:,.0f} KB of text. While Redis works on it, other clients wait.",
            "All fields and buckets filled: each name had runs in every bucket, cut in every way.",
        ],
        versions=["prometheus-client"],
    )


if __name__ == "__main__":
    sys.exit(run(answer))
