"""How many worker nodes does one Redis, or one slot of a Redis Cluster, carry? All keys of an app are in one slot.

    python benchmarks/slot.py [FLUSHES]

Batches as workers send them, of 1, 10 and 100 task names with twenty runs each, are written to a redis-server of its
own, as by many workers. Its CPU time (INFO cpu) is read before and after. Printed: the CPU time of a flush, and the
number of nodes that keep one core half busy when each flushes once a second.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "scripts"))

import redis  # noqa: E402
import redis_server  # noqa: E402

from celery_argsize.config import DEFAULT_BUCKETS, Settings  # noqa: E402
from celery_argsize.measure import Size  # noqa: E402
from celery_argsize.stats import Book, Measurement, Part, Rules  # noqa: E402
from celery_argsize.stores.base import Batch  # noqa: E402
from celery_argsize.stores.redis import RedisStore  # noqa: E402

RULES = Rules(1024, DEFAULT_BUCKETS)
RUNS = 20
WRITERS = 50


def batch(number: int, names: int, rng: random.Random) -> Batch:
    """What a node sends after a second of work."""
    book = Book(names)
    for name in range(names):
        for _ in range(RUNS):
            size = int(rng.lognormvariate(6, 1.5))
            parts = Part(Size(size, size), "intact", size), Part(Size(2, 2), "intact", 2)
            book.add(Measurement(f"app.tasks.task_{name}", str(number), *parts, time.time(), "web-1"), RULES)
    return Batch(f"node-{number % WRITERS}", number, book.tasks, book.origins.take())


def cpu(client: redis.Redis) -> float:
    """Seconds of CPU that the server has used."""
    info = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def main() -> int:
    """Write, and print what it cost."""
    flushes = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    print("| task names in a flush | CPU of a flush | time of a flush | nodes at half a core |")
    print("|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder, redis_server.run(Path(folder)) as url:
        store, client, rng = RedisStore(Settings(redis_url=url)), redis.Redis.from_url(url), random.Random(1)
        version = client.info("server")["redis_version"]
        for names in (1, 10, 100):
            count = max(100, flushes // names)
            sent = [batch(number, names, rng) for number in range(1, count + 1)]
            client.flushall()
            store.apply(batch(0, names, rng))
            before, begun = cpu(client), time.perf_counter()
            for one in sent:
                store.apply(one)
            each = (cpu(client) - before) / count
            took = (time.perf_counter() - begun) / count
            print(f"| {names} | {each * 1e6:,.0f} µs | {took * 1e6:,.0f} µs | {0.5 / each:,.0f} |")
        print(f"\nRedis {version}, {flushes:,} flushes, {RUNS} runs of each name in a flush.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
