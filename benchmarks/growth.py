"""How do a scrape and the reports grow with the number of task names? 10, 100 and 1,000 names, in a Redis of its own.

    python benchmarks/growth.py

Each name has had 24 runs of many sizes: half of the names with small ones, a quarter with small ones that are not
ASCII, a quarter with ones of up to 200,000 characters that Celery cut. The readers take turns. Timed is all of their
work, the reading of Redis among it, but neither printing nor sending. The advice in the reports is made without the
timing of publishes: that takes the commands seconds more where arguments were cut.
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
from celery_argsize.figures.counters import Book, Rules, TaskStats  # noqa: E402
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
#: Milliseconds that a scrape of the most names may take.
SCRAPE_MS: Final = 50
#: By how much one of 1,000 names may take longer than one of 100.
LINEAR: Final = 1.3


# -- what is read -------------------------------------------------------------------------------------------------


def cut(size: int) -> Part:
    """A part that Celery cut, with records of about 100 characters."""
    need, records = size * 5 // 4, max(1, size // 100)
    shape = Shape(need, 3, need, need, 1024, 1024, 7 * records, 6 * records, 2 * records, records + 2, 3 * records)
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
    """What workers counted, by task name."""
    book, rng = Book(names), Random(names)
    for name in range(names):
        for _ in range(RUNS):
            size = any_size(rng, 2, 900)
            parts = args(name, rng), Part(Size(size, size), "intact", size)
            book.add(Measurement(f"app.jobs.tasks.task_{name}", f"{rng.getrandbits(128):032x}", *parts, 1e9), RULES)
    return book.tasks


def filled(names: int) -> dict[str, TaskStats]:
    """The same with all that there can be: runs in each bucket, cut in each way."""
    book = Book(1)
    verdicts: tuple[Verdict, ...] = ("size", "depth", "both", "custom", "unknown", "intact")
    for number, bound in enumerate((*DEFAULT_BUCKETS, DEFAULT_BUCKETS[-1] * 2)):
        for verdict in verdicts:
            for levels in (2, 5):
                shape = Shape(bound - 1, levels, *[bound] * 9) if verdict in verdicts[:3] else None
                part = Part(Size(bound - 1, bound + number % 2), verdict, bound - 1, shape=shape)
                book.add(Measurement("any", f"{number:032x}", part, part, 1e9 + number), RULES)
    (stats,) = book.tasks.values()
    stats.counts |= dict.fromkeys(("unmeasurable", "args.unmeasurable", "kwargs.unmeasurable"), 3)
    return {f"app.jobs.tasks.task_{name}": stats for name in range(names)}


def stored(url: str, app: str, tasks: Mapping[str, TaskStats]) -> RedisStore:
    """A store with *tasks*, as workers write them; its connection is open."""
    store = RedisStore(Settings(redis_url=url, app_name=app))
    rest = [*tasks.items()]
    for start in range(0, len(rest), 100):
        store.apply(Batch("benchmark", 1 + start, dict(rest[start : start + 100])))
    store.read()
    return store


# -- who reads it -------------------------------------------------------------------------------------------------


def advised(store: RedisStore) -> tuple[Summary, Advice]:
    """What the reports are made of."""
    summary = summarize(store.read())
    return summary, advise(summary, "redis", metadata.version("celery"))


def by_prometheus_client(store: RedisStore) -> bytes:
    """A scrape, by what brings no text of its own."""
    registry = CollectorRegistry()
    registry.register(ArgsizeCollector(store))
    return generate_latest(registry)


SCRAPE: Final = "scrape"
THROUGH: Final = "scrape through prometheus_client"
#: What must be linear.
READERS: Final[dict[str, Reader]] = {
    SCRAPE: lambda store: ArgsizeCollector(store).exposition(openmetrics=True),
    "report": lambda store: report_text(*advised(store)),
    "report as JSON": lambda store: json.dumps(report_json(*advised(store)), indent=2, ensure_ascii=False),
    "report as HTML": lambda store: report_html(
        *advised(store), redis_url=None, bounds=DEFAULT_BUCKETS, limits=None, now=0.0
    ),
}
figures_of: Final = lru_cache(RedisStore.read)
#: Timed as well.
OTHERS: Final[dict[str, Reader]] = {
    "of a scrape: reading Redis": lambda store: ArgsizeCollector(store).scrape(),
    "of a scrape: making the text": lambda store: exposition(Scrape(figures_of(store)), openmetrics=True),
    THROUGH: by_prometheus_client,
}


def timed(reader: Reader, store: RedisStore, times: int) -> float:
    """Seconds that it takes, the mean of so many times in a row."""
    began = time.perf_counter()
    for _ in range(times):
        reader(store)
    return (time.perf_counter() - began) / times


def by_turns(stores: Mapping[int, RedisStore], rounds: int) -> dict[str, dict[int, list[float]]]:
    """Seconds of each reader by number of names, one figure a round."""
    readers = {**READERS, **OTHERS}
    found: dict[str, dict[int, list[float]]] = {name: {names: [] for names in stores} for name in readers}
    for _ in range(rounds):
        for names, store in stores.items():
            for name, reader in readers.items():
                found[name][names].append(timed(reader, store, max(1, 300 // names)))
    return found


class Asked(NamedTuple):
    """What a scrape is for Redis, by its own count."""

    trips: float
    """How often there was something to read for it."""
    milliseconds: float
    """How long it was at it, and did nothing else."""


def asked(store: RedisStore, client: redis.Redis, times: int) -> Asked:
    """What *store*'s Redis has to do for a scrape, the mean of so many; *client* asks it."""
    client.config_resetstat()
    for _ in range(times):
        READERS[SCRAPE](store)
    reads = client.info("stats")["total_reads_processed"] - 1  # that of the question
    return Asked(reads / times, client.info("commandstats")["cmdstat_evalsha"]["usec"] / times / 1000)


# -- what is told -------------------------------------------------------------------------------------------------


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - as the frame calls it
    """Measure, and tell."""
    sizes, rounds = ((2, 5, 10), 2) if smoke else ((10, 100, 1000), 12)
    few, most = sizes[1:]
    with tempfile.TemporaryDirectory() as folder, redis_server.run(Path(folder)) as url:
        stores = {names: stored(url, f"app {names}", many(names)) for names in sizes}
        full = stored(url, "full", filled(most))
        found = by_turns(stores, rounds)
        worst = [timed(READERS[SCRAPE], full, 1) for _ in range(rounds)]
        with redis.Redis.from_url(url) as client:
            redis_did = {names: asked(store, client, rounds) for names, store in stores.items()}
    growth = {name: ratio(times[most], times[few]) * few / most for name, times in found.items()}
    rows = [
        [name, *(spread(times, 1000) for times in of.values()), f"{growth[name]:.2f}"] for name, of in found.items()
    ]
    rows.append(
        ["of a scrape: time of the Redis server", *(f"{did.milliseconds:.3g}" for did in redis_did.values()), ""]
    )
    rows.append(["scrape, all fields and buckets filled", *("" for _ in sizes[1:]), spread(worst, 1000), ""])
    kilobytes = len(exposition(Scrape(figures_of(stores[most])), openmetrics=True)) / 1024
    return Answer(
        title="How do a scrape and the reports grow with the number of task names?",
        head=["milliseconds", *(f"{names:,} names" for names in sizes), f"one of {most:,} by one of {few:,}"],
        rows=rows,
        claims=[
            *(Claim(f"{name}, one of {most:,} names by one of {few:,}", growth[name], LINEAR) for name in READERS),
            Claim(f"scrape of {most:,} names", statistics.median(found[SCRAPE][most]) * 1000, SCRAPE_MS, "ms"),
            Claim("round trips to Redis of a scrape", max(did.trips for did in redis_did.values()), 1, "a scrape"),
        ],
        chart=Chart(
            "Growth with the number of task names",
            "task names",
            "milliseconds",
            {
                name: [(names, statistics.median(times) * 1000) for names, times in found[name].items()]
                for name in [*READERS, THROUGH]
            },
            log="xy",
            limit=SCRAPE_MS,
        ),
        notes=[
            f"A scrape of {most:,} names is {kilobytes:,.0f} KB of text. While Redis does its part, others wait.",
            "All filled: each name was seen in every bucket, and cut in every way.",
        ],
        versions=["prometheus-client"],
    )


if __name__ == "__main__":
    sys.exit(run(answer))
