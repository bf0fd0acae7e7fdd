"""Each batch counts once, whatever becomes of the connection: real flusher, real Redis, and a proxy that breaks off."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from support.counting import Counting
from support.proxy import FATES, Proxy

from celery_argsize import StoreError
from celery_argsize.figures.counters import Rules, Tally
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import Measurement, Part
from celery_argsize.settings import DEFAULT_BUCKETS, Settings
from celery_argsize.stores.base import Batch
from celery_argsize.stores.redis import RedisStore
from celery_argsize.worker.flusher import Flusher

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.servers import RedisServer

RULES = Rules(1024, DEFAULT_BUCKETS)
FLUSHES = 1000


def measurement(name: str, size: int) -> Measurement:
    parts = Part(Size(size, 3 * size), "intact", 2 * size), Part(Size(0, 0))
    return Measurement(name, "id", *parts, time.time(), "web-1")


def through(proxy: Proxy, redis_url: str, server: RedisServer, **settings: object) -> Settings:
    return Settings(redis_url=redis_url.replace(f":{server.port}/", f":{proxy.port}/"), **settings)  # type: ignore[arg-type]


def counted(settings: Settings) -> dict[str, tuple[int, int]]:
    tasks = RedisStore(settings).read().tasks
    return {name: (stats.counts["count"], stats.counts["args.chars"]) for name, stats in tasks.items()}


@pytest.mark.slow
def test_a_thousand_flushes_over_a_bad_line_count_every_task_once(
    redis_url: str, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(4)
    admin = redis_server.client()

    def choose(_: bytes) -> str:
        if rng.random() < 0.05:
            admin.script_flush()  # and the next call is told NOSCRIPT
        return rng.choice(FATES)

    proxy = Proxy(redis_server.port, choose)
    monkeypatch.setattr(Flusher, "MIN_BACKOFF", 0.001)
    monkeypatch.setattr(Flusher, "MAX_BACKOFF", 0.001)
    settings = through(proxy, redis_url, redis_server, flush_interval=0.05, max_task_names=7)
    counting = Counting(settings)
    flusher = Flusher(counting.counters, counting.notes, RedisStore(settings), settings, "writer")
    flusher.start()
    runs: Counter[str] = Counter()
    chars: Counter[str] = Counter()
    for _ in range(FLUSHES):
        for _ in range(rng.randrange(1, 6)):
            name, size = f"task {rng.randrange(7)}", rng.randrange(5000)
            counting.put(measurement(name, size))
            runs[name] += 1
            chars[name] += size
        while not flusher.flush(5):  # what was cut is tried again
            pass
    assert flusher.stop(5) == 0
    proxy.close()
    assert all(proxy.seen[fate] > FLUSHES / 10 for fate in FATES), proxy.seen
    assert counted(Settings(redis_url=redis_url)) == {name: (runs[name], chars[name]) for name in runs}
    assert flusher.read().tasks["task 0"].counts["count"] == runs["task 0"]
    admin.close()


def lost_reply(redis_url: str, server: RedisServer, fate: str) -> tuple[RedisStore, Batch, Callable[[], None]]:
    """A batch whose first sending met *fate*; the next ones pass."""
    fates = ["pass", fate]  # the sadd, the script
    proxy = Proxy(server.port, lambda _: fates.pop(0) if fates else "pass")
    store = RedisStore(through(proxy, redis_url, server))
    tally = Tally(10)
    tally.add(measurement("scan", 10), RULES)
    batch = Batch("writer", 1, tally.tasks)
    with pytest.raises(StoreError):
        store.apply(batch)
    return store, batch, proxy.close


@pytest.mark.parametrize(("fate", "before"), [("cut after", 1), ("cut within", 0), ("cut before", 0)])
def test_what_the_server_did_with_a_batch_that_had_no_answer_does_not_matter(
    redis_url: str, redis_server: RedisServer, fate: str, before: int
) -> None:
    settings = Settings(redis_url=redis_url)
    RedisStore(settings).apply(Batch("another", 1, {}))  # the script is known to the server
    store, batch, close = lost_reply(redis_url, redis_server, fate)
    assert len(counted(settings)) == before
    store.apply(batch)
    store.apply(batch)
    assert counted(settings) == {"scan": (1, 10)}
    close()


def test_a_reset_between_a_lost_reply_and_its_retry_brings_nothing_back(
    redis_url: str, redis_server: RedisServer
) -> None:
    settings = Settings(redis_url=redis_url)
    RedisStore(settings).apply(Batch("another", 1, {}))
    store, batch, close = lost_reply(redis_url, redis_server, "cut after")
    assert RedisStore(settings).reset() == 1
    store.apply(batch)
    assert counted(settings) == {}
    close()


@pytest.mark.parametrize("foreign", ["a string", "a number that is none"])
def test_a_batch_that_redis_refuses_midway_counts_as_a_whole_once_it_can(
    redis_url: str, redis_server: RedisServer, foreign: str
) -> None:
    settings = Settings(redis_url=redis_url, app_name="music")
    store = RedisStore(settings)
    tally = Tally(10)
    for name in ("before", "scan", "after"):
        tally.add(measurement(name, 100), RULES)
    with redis_server.client() as client:
        key = "celery-argsize:{music}:task:scan"
        client.set(key, "not ours") if foreign == "a string" else client.hset(key, "count", "many")
        for _ in range(2):
            with pytest.raises(StoreError):
                store.apply(Batch("writer", 1, tally.tasks))
            left = client.hgetall("celery-argsize:{music}:task:before")
            assert not any(int(by) for field, by in left.items() if b"max" not in field)
        client.delete(key)
    store.apply(Batch("writer", 1, tally.tasks))
    store.apply(Batch("writer", 1, tally.tasks))
    assert counted(settings) == dict.fromkeys(("before", "scan", "after"), (1, 100))


@pytest.mark.usefixtures("redis_url")
def test_rights_that_were_missing_midway_lose_nothing_once_given(redis_server: RedisServer) -> None:
    tally = Tally(10)
    tally.add(measurement("scan", 10), RULES)
    batch = Batch("writer", 1, tally.tasks, tally.origins.take())
    with redis_server.client() as client:
        for command in ("hincrby", "hmget", "set", "smismember", "zadd", "hset", "sadd"):
            client.flushall()
            client.execute_command("ACL SETUSER", "narrow", "reset", "on", "nopass", "~*", "+@all", f"-{command}")
            settings = Settings(redis_url=f"redis://narrow:any@127.0.0.1:{redis_server.port}/0")
            store = RedisStore(settings)
            for _ in range(2):
                with pytest.raises(StoreError):
                    store.apply(batch)
            client.execute_command("ACL SETUSER", "narrow", f"+{command}")
            store.apply(batch)
            assert counted(settings) == {"scan": (1, 10)}, command
            store.close()
        client.execute_command("ACL DELUSER", "narrow")
