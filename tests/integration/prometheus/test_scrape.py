"""A scrape of a real Redis: one connection, one round trip, and what is in Redis by then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from support.servers import RedisServer

from celery_argsize.figures.counters import Rules, Tally
from celery_argsize.figures.summary import summarize
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import Measurement, Part
from celery_argsize.measuring.repr_shape import Shape
from celery_argsize.prometheus.collector import ArgsizeCollector
from celery_argsize.prometheus.metrics import Scrape, exposition
from celery_argsize.settings import DEFAULT_BUCKETS, Settings
from celery_argsize.stores.base import Batch
from celery_argsize.stores.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ARGS = 'celery_task_args_size_bytes_sum{part="args",task="scan"}'


def batch(sequence: int, *names: str) -> Batch:
    tally = Tally(1000)
    for number, name in enumerate(names):
        cut = Part(Size(5000, 6000 + number), "size", 1024, shape=Shape(6000, 2, *[9] * 8))
        whole = Part(Size(70, 80), "intact", 75)
        for args, kwargs in ((cut, whole), (whole, whole), (Part(None, "custom"), whole)):
            tally.add(Measurement(name, "id", args, kwargs, 1234.5), Rules(1024, DEFAULT_BUCKETS))
    return Batch("w", sequence, tally.tasks)


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    store = RedisStore(Settings(redis_url=redis_url, app_name="music"))
    yield store
    store.close()


def lines(text: bytes) -> set[str]:
    return {*text.decode().splitlines()}


def test_what_is_in_redis_is_what_is_scraped(store: RedisStore) -> None:
    collector = ArgsizeCollector(store)
    store.apply(batch(1, "scan", 'a "b" \\ å', "__other__"))
    figures = store.read()
    assert collector.exposition() == exposition(Scrape(figures))
    assert f"{ARGS} 6080" in lines(collector.exposition())
    store.apply(batch(2, "scan"))
    assert f"{ARGS} 12160" in lines(collector.exposition())
    store.reset()
    assert not [line for line in lines(collector.exposition()) if "task=" in line]
    found = {task.name: task.truncated for task in summarize(figures).tasks}
    assert found == {"scan": 1, 'a "b" \\ å': 1, "__other__": 1}


def test_the_registry_of_an_app_has_it_too(store: RedisStore) -> None:
    store.apply(batch(1, "scan", "a\\b"))
    registry = CollectorRegistry()
    registry.register(ArgsizeCollector(store))

    def samples(text: bytes) -> list[object]:
        return [sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples]

    assert samples(generate_latest(registry)) == samples(ArgsizeCollector(store).exposition())


@pytest.mark.smoke
def test_a_scrape_is_one_round_trip_over_one_connection(store: RedisStore, redis_server: RedisServer) -> None:
    store.apply(batch(1, *(f"task {number}" for number in range(50))))
    store.close()
    with redis_server.client() as client:
        before = {each["id"] for each in client.client_list()}  # those of earlier tests may end meanwhile
        registry = CollectorRegistry()
        registry.register(collector := ArgsizeCollector(store))
        assert {each["id"] for each in client.client_list()} <= before, "nothing is connected to yet"
        collector.exposition()
        client.config_resetstat()
        for _ in range(3):
            collector.exposition()
            generate_latest(registry)
        calls = {name.removeprefix("cmdstat_"): seen["calls"] for name, seen in client.info("commandstats").items()}
        assert calls["evalsha"] == 6, "one for each scrape"
        assert calls.keys() <= {"evalsha", "hgetall", "smembers", "config|resetstat", "config"}, "what the script runs"
        assert len({each["id"] for each in client.client_list()} - before) == 1


def test_redis_away_and_back(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    store = RedisStore(Settings(redis_url=server.url))
    collector = ArgsizeCollector(store)
    try:
        server.start()
        store.apply(batch(1, "scan"))
        assert {"celery_task_args_up 1", f"{ARGS} 6080"} <= lines(collector.exposition())
        server.stop()
        samples = [line for line in lines(collector.exposition()) if not line.startswith("#")]
        assert samples == ["celery_task_args_up 0"]
        server.start()
        store.apply(batch(2, "scan", "insert"))
        assert {"celery_task_args_up 1", f"{ARGS} 6080"} <= lines(collector.exposition())
    finally:
        store.close()
        server.stop()
