"""The flusher between real shared counters and a real Redis: it writes, waits out failures, and answers requests."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from celery import Celery
from support.counting import Counting
from support.servers import RedisServer, wait_until

from celery_argsize.figures.counters import OTHER, Rules, TaskStats
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import Measurement, Part
from celery_argsize.settings import DEFAULT_BUCKETS, Settings
from celery_argsize.stores.memory import MemoryStore
from celery_argsize.stores.redis import RedisStore
from celery_argsize.worker.flusher import Flusher
from celery_argsize.worker.recorder import Recorder

if TYPE_CHECKING:
    from pathlib import Path

    from celery_argsize.stores.base import Batch, Store

RULES = Rules(1024, DEFAULT_BUCKETS)


def measurement(name: str = "scan") -> Measurement:
    return Measurement(name, "id", Part(Size(10, 10)), Part(Size(0, 0)), time.time())


def start(store: Store, settings: Settings, *, children: int = 2) -> tuple[Flusher, Counting]:
    counting = Counting(settings, children=children)
    flusher = Flusher(counting.counters, counting.notes, store, settings, "writer")
    flusher.start()
    return flusher, counting


def counted(store: Store) -> int:
    return sum(stats.counts["count"] for stats in store.read().tasks.values())


def test_exemplars_are_written_rarely_and_rare_ones_always(redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, flush_interval=3600)
    store = RedisStore(settings)
    flusher, counting = start(store, settings)

    def run(task_id: str, size: int, when: float) -> dict[str, str]:
        """The exemplars in Redis after a run."""
        part = Part(Size(size, size), "intact", size)
        counting.put(Measurement("scan", task_id, part, Part(Size(0, 0), "intact", 2), when))
        assert flusher.flush(30)
        return {field: seen.task_id for field, seen in store.read().tasks["scan"].exemplars.items()}

    assert run("a", 3000, 100.0) == {"args.last_le.4096": "a"}
    assert run("b", 3000, 101.0) == {"args.last_le.4096": "a"}, "too soon"
    assert run("c", 9000, 102.0) == {"args.last_le.4096": "a", "args.last_le.16384": "c"}, "the first of its size"
    assert run("d", 3000, 110.0) == {"args.last_le.4096": "d", "args.last_le.16384": "c"}
    assert flusher.read().tasks["scan"].exemplars["args.last_le.4096"].task_id == "d"
    assert run("e", 3000, 111.0)["args.last_le.4096"] == "d"
    assert flusher.read().tasks["scan"].exemplars["args.last_le.4096"].task_id == "e", "not in its own figures"
    store.reset()
    assert flusher.release(30)
    assert run("f", 3000, 112.0) == {"args.last_le.4096": "f"}, "after a reset, at once"
    assert store.read().tasks["scan"].counts["count"] == 1
    flusher.stop(30)


def test_a_run_that_is_told_of_while_a_reset_begins_hides_no_later_largest_one(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(redis_url=redis_url, flush_interval=3600)
    store = RedisStore(settings)
    flusher, counting = start(store, settings)
    recorder = Recorder(Celery(set_as_current=False), settings, RULES, counting.counters, counting.notes)

    def run(size: int) -> None:
        part = Part(Size(size, size), "intact", size)
        recorder.add(Measurement("scan", f"id-{size}", part, Part(Size(0, 0), "intact", 2), time.time()))

    read = counting.counters.differences
    with monkeypatch.context() as patch:
        patch.setattr(counting.counters, "differences", lambda: (run(500), read())[1])  # type: ignore[func-returns-value]
        assert flusher.flush(30, hold=60)
    store.reset()
    assert flusher.release(30)
    run(400)
    assert flusher.flush(30)
    largest = store.read().tasks["scan"].maxima["args.max_chars"]
    assert (largest.value, largest.task_id) == (400, "id-400")
    flusher.stop(30)


def test_what_is_counted_at_once_while_the_counters_are_read_is_written_at_once_too(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(redis_url=redis_url, flush_interval=3600, write_at_once_bytes=1)
    store = RedisStore(settings)
    flusher, counting = start(store, settings)
    counting.put(measurement())
    wait_until(lambda: counted(store) == 1, what="the first write")
    read, late = counting.counters.differences, [measurement()]

    def and_count() -> list[tuple[str, TaskStats]]:
        found = [*read()]
        if found and late:
            counting.put(late.pop())
        return found

    monkeypatch.setattr(counting.counters, "differences", and_count)
    counting.put(measurement())
    wait_until(lambda: counted(store) == 3, timeout=5, what="both runs")
    flusher.stop(30)


def test_a_worker_s_own_figures_have_no_more_names_than_is_allowed_written_or_not(redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, flush_interval=3600, max_task_names=3)
    flusher, counting = start(RedisStore(settings), settings)
    names = [f"task {number}" for number in range(5)]

    def found() -> dict[str, int]:
        return {name: stats.counts["count"] for name, stats in flusher.read().tasks.items()}

    for put, name in enumerate([*names, *names], 1):
        counting.put(measurement(name))
        wait_until(lambda put=put: sum(found().values()) == put, what="it")  # type: ignore[misc]
        if put == 1:
            flusher.flush(30)
        assert set(found()) <= {*names[:3], OTHER}
    before = found()
    assert sum(before.values()) == 10
    assert flusher.read().waiting == 9
    assert flusher.flush(30)
    assert (found(), flusher.read().waiting) == (before, 0)
    flusher.stop(30)


@pytest.mark.parametrize("children", [2, 0])
@pytest.mark.smoke
def test_figures_arrive_by_themselves_and_what_is_left_at_the_stop(children: int, redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, flush_interval=0.1)
    flusher, counting = start(RedisStore(settings), settings, children=children)
    counting.put(measurement())
    wait_until(lambda: counted(RedisStore(settings)) == 1, what="the first flush")
    for _ in range(500):
        counting.put(measurement())
    assert flusher.stop(30) == 0
    assert counted(RedisStore(settings)) == 501
    assert flusher.read().tasks["scan"].counts["count"] == 501


@pytest.mark.smoke
def test_a_redis_that_arrives_later_gets_everything_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = RedisServer(tmp_path)
    settings = Settings(redis_url=server.url, flush_interval=0.05)
    flusher, counting = start(RedisStore(settings), settings)
    for number in range(1000):
        counting.put(measurement(f"task {number % 7}"))
    wait_until(lambda: "figures are not being written" in caplog.text, what="the one line")
    for _ in range(1000):
        counting.put(measurement())
    server.start()
    try:
        assert flusher.flush(30)
        assert counted(RedisStore(settings)) == 2000
        assert caplog.text.count("figures are not being written") == 1
        assert caplog.text.count("figures are being written again") == 1
        assert flusher.stop(30) == 0
    finally:
        server.stop()


def test_a_stop_without_redis_ends_in_time_and_counts_what_is_lost(tmp_path: Path) -> None:
    settings = Settings(redis_url=RedisServer(tmp_path).url, flush_interval=0.05)
    flusher, counting = start(RedisStore(settings), settings)
    for _ in range(30):
        counting.put(measurement())
    begun = time.monotonic()
    assert flusher.stop(1) == 30
    assert time.monotonic() - begun < 5


@pytest.mark.smoke
def test_a_stop_while_a_write_hangs_counts_what_came_in_meanwhile() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = Settings(redis_url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0", flush_interval=0.05)
        flusher, counting = start(RedisStore(settings), settings)
        counting.put(measurement())
        connection, _ = silent.accept()
        with connection:
            for _ in range(20):
                counting.put(measurement())
            assert flusher.stop(0.2) == 21


def test_after_a_stop_nothing_reads_from_a_descriptor_that_is_anothers_by_then(redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, flush_interval=0.05)
    for _ in range(5):
        flusher, counting = start(RedisStore(settings), settings)
        counting.put(measurement())
        assert flusher.stop(30) == 0
        ends = [end for _ in range(5) for end in socket.socketpair()]
        for end in ends:
            end.sendall(b"still here")
            end.settimeout(5)
        time.sleep(0.25)  # longer than either thread waits
        assert [end.recv(20) for end in ends] == [b"still here"] * 10
        for end in ends:
            end.close()


def test_many_hosts_go_in_small_portions_until_all_are_written(redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, flush_interval=0.05)
    flusher, counting = start(RedisStore(settings), settings)
    for number in range(3 * Flusher.BATCH_HOSTS):
        counting.put(measurement()._replace(origin=f"web-{number}"))
    wait_until(lambda: len(RedisStore(settings).read_origins()) == 3 * Flusher.BATCH_HOSTS, what="all hosts")
    assert flusher.stop(30) == 0
    assert counted(RedisStore(settings)) == 3 * Flusher.BATCH_HOSTS


def test_a_hold_keeps_back_what_comes_after_it(redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, flush_interval=0.05)
    flusher, counting = start(RedisStore(settings), settings)
    counting.put(measurement("before"))
    assert flusher.flush(30, hold=60)
    assert set(RedisStore(settings).read().tasks) == {"before"}
    counting.put(measurement("after"))
    time.sleep(0.3)  # several intervals, in which it must not come
    assert set(RedisStore(settings).read().tasks) == {"before"}
    assert flusher.release(30)
    wait_until(lambda: set(RedisStore(settings).read().tasks) == {"before", "after"}, what="the release")
    assert flusher.stop(30) == 0
    assert set(flusher.read().tasks) == {"after"}


@pytest.mark.slow
def test_a_flush_writes_what_was_counted_before_it_also_in_the_middle_of_a_turn() -> None:
    """Else what was counted before a reset would be written after it."""
    settings, asked = Settings(flush_interval=0.05), threading.Event()

    class Store(MemoryStore):
        def apply(self, batch: Batch, failed: int = 0) -> None:
            if batch.sequence == 1:
                counting.put(measurement("second"))
                asked.set()
                wait_until(lambda: flusher._requests, what="the request")
            super().apply(batch, failed)

    store = Store(settings)
    flusher, counting = start(store, settings)
    counting.put(measurement("first"))
    assert asked.wait(30)
    assert flusher.flush(30, hold=60)
    assert set(store.read().tasks) == {"first", "second"}
    flusher.stop(30)


def test_a_hold_that_nobody_releases_ends_by_itself(redis_url: str) -> None:
    settings = Settings(redis_url=redis_url, flush_interval=0.05)
    flusher, counting = start(RedisStore(settings), settings)
    assert flusher.flush(30, hold=0.2)
    counting.put(measurement())
    wait_until(lambda: counted(RedisStore(settings)) == 1, what="the end of the hold")
    flusher.stop(30)


def test_releasing_with_a_store_that_nobody_else_sees_clears_it() -> None:
    settings = Settings()
    store = MemoryStore(settings)
    flusher, counting = start(store, settings, children=0)
    counting.put(measurement())
    assert flusher.flush(30, hold=60)
    assert flusher.release(30)
    assert counted(store) == 0
    flusher.stop(30)


def test_a_stop_during_a_hold_writes_all_the_same_and_does_not_spin(redis_url: str) -> None:
    settings = Settings(redis_url=redis_url)
    flusher, counting = start(RedisStore(settings), settings)
    assert flusher.flush(30, hold=60)
    counting.put(measurement())
    before = time.process_time()
    assert flusher.stop(3) == 0
    assert time.process_time() - before < 1, "seconds of CPU, in two of waiting"
    assert counted(RedisStore(settings)) == 1
