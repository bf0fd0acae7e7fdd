"""Measurements go from children to the main process: with real forks and real pipes, also full ones."""

from __future__ import annotations

import marshal
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from celery_argsize.figures.counters import OTHER, Rules, Tally, TaskStats
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import Measurement, Part
from celery_argsize.measuring.repr_shape import Shape
from celery_argsize.settings import DEFAULT_BUCKETS
from celery_argsize.worker.handoff import LocalHandoff, PipeHandoff, PipeWriter

if TYPE_CHECKING:
    from collections.abc import Callable

RULES = Rules(1024, DEFAULT_BUCKETS)

#: The largest message there is: names and ids are as long as the recorder lets them be.
HUGE = Part(Size(2**40, 2**40), "custom", 2**31, 100, 2**31, Shape(*[2**40] * 10))
LONG = Measurement("n" * 160, "i" * 64, HUGE, HUGE, time.time(), "h" * 64)


def measurement(number: int, name: str = "scan") -> Measurement:
    return Measurement(name, f"id-{number}", Part(Size(number, number)), Part(Size(0, 0), "size"), 1.5)


def fork(body: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(0)
    return pid


@pytest.fixture
def pipe() -> PipeHandoff:
    return PipeHandoff(RULES, 100)


def test_children_hand_over_side_by_side_and_a_killed_one_loses_nothing(pipe: PipeHandoff) -> None:
    def child() -> None:
        for number in range(300):
            pipe.put(measurement(number))
        os.kill(os.getpid(), signal.SIGKILL)

    for pid in [fork(child) for _ in range(6)]:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    tally = Tally(10)
    pipe.drain(tally)
    expected = Tally(10)
    for number in [*range(300)] * 6:
        expected.add(measurement(number), RULES)
    assert tally.tasks["scan"].counts == expected.tasks["scan"].counts
    assert tally.tasks["scan"].maxima["args.max_chars"].value == 299
    pipe.close()


def test_a_full_pipe_blocks_nobody_and_what_it_had_no_room_for_comes_later(pipe: PipeHandoff) -> None:
    count = 50_000  # several times the pipe
    for number in range(count):
        pipe.put(measurement(number, f"task {number % 5}"))
    tally = Tally(10)
    pipe.drain(tally)
    assert 0 < tally.count < count, "the pipe was full, and part of it was kept back"
    pipe.put(measurement(count))
    for _ in range(10):
        pipe.linger(0)
        pipe.drain(tally)
    expected = Tally(10)
    for number in range(count):
        expected.add(measurement(number, f"task {number % 5}"), RULES)
    expected.add(measurement(count), RULES)
    assert {name: stats.counts for name, stats in tally.tasks.items()} == {
        name: stats.counts for name, stats in expected.tasks.items()
    }
    assert {name: stats.maxima for name, stats in tally.tasks.items()} == {
        name: stats.maxima for name, stats in expected.tasks.items()
    }
    pipe.close()


def test_exemplars_that_a_full_pipe_kept_back_come_later_too(pipe: PipeHandoff) -> None:
    while not pipe._kept:
        pipe.put(measurement(1))
    for number in (3000, 5000, 70_000):
        pipe.put(measurement(number))
    tally = Tally(10)
    pipe.drain(tally)
    assert tally.tasks["scan"].exemplars == {}
    assert pipe.linger(0) == 0
    pipe.drain(tally)
    found = tally.tasks["scan"].exemplars
    assert {field: (seen.bytes, seen.task_id) for field, seen in found.items()} == {
        "args.last_le.4096": (3000, "id-3000"),
        "args.last_le.8192": (5000, "id-5000"),
        "args.last_le.131072": (70_000, "id-70000"),
    }
    pipe.close()


def test_the_longest_message_is_written_whole_or_not_at_all_on_any_system(
    pipe: PipeHandoff, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    real = os.write

    def write(fd: int, data: bytes) -> int:
        written.append(len(data))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(select, "PIPE_BUF", 512)  # the least that POSIX allows
    for _ in range(10_000):
        pipe.put(LONG)
    tally = Tally(10)
    pipe.drain(tally)
    pipe.linger(1)
    pipe.drain(tally)
    assert tally.count == 10_000
    assert max(written) <= 512
    pipe.close()


def test_what_a_full_pipe_kept_back_says_of_hosts_comes_later_too(pipe: PipeHandoff) -> None:
    cut = Part(Size(5000, 5000), "size", 1030, 0, 1024)
    while not pipe._kept:
        pipe.put(measurement(1))
    pipe.put(Measurement("scan", "id", cut, cut, 7.5, "web-1"))
    tally = Tally(10)
    pipe.drain(tally)
    assert tally.origins.hosts == {}
    assert pipe.linger(0) == 0
    pipe.drain(tally)
    seen = tally.origins.hosts["web-1"]
    assert seen == {"seen": (0, 7.5), "size:args:scan": (1024, 7.5), "size:kwargs:scan": (1024, 7.5)}
    pipe.close()


def test_counters_go_the_same_way_and_what_found_no_room_in_time_is_told(pipe: PipeHandoff) -> None:
    pipe.add("scan", TaskStats({"errors": 2}))
    while not pipe._kept:
        pipe.put(measurement(1))
    pipe.add("scan", TaskStats({"errors": 3}))
    kept = pipe._kept.count
    assert kept > 0
    assert pipe.linger(0.01) == kept, "runs that are still kept back"
    tally = Tally(10)
    pipe.drain(tally)
    assert pipe.linger(1) == 0
    pipe.drain(tally)
    assert tally.tasks["scan"].counts["errors"] == 5
    pipe.close()


@pytest.mark.parametrize("damaged", [b"", b"no marshal", marshal.dumps((1, 2, 3, 4)), marshal.dumps(("a", "b"))])
def test_a_message_that_cannot_be_read_is_an_error_and_those_around_it_count(
    pipe: PipeHandoff, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2000):  # more than one read
        pipe.put(measurement(1))
    os.write(pipe._fd, len(damaged).to_bytes(2, "little") + damaged)
    for _ in range(1000):
        pipe.put(measurement(2))
    tally = Tally(10)
    pipe.drain(tally)
    assert tally.tasks["scan"].counts["count"] == 3000
    assert tally.tasks[OTHER].counts == {"errors": 1}
    assert "no marshal" not in caplog.text
    pipe.close()


def test_a_spawned_child_opens_the_pipe_by_its_path() -> None:
    pipe = PipeHandoff(RULES, 10, named=True)
    assert pipe.path is not None
    path = pipe.path

    def child() -> None:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        PipeWriter(fd, RULES, 10).put(measurement(7))

    os.waitpid(fork(child), 0)
    tally = Tally(10)
    pipe.drain(tally)
    assert tally.count == 1
    pipe.close()
    assert not os.path.exists(os.path.dirname(path))  # noqa: PTH110, PTH120


def test_the_main_process_gone_is_survived(pipe: PipeHandoff) -> None:
    os.close(pipe._read_fd)
    for number in range(10):
        pipe.put(measurement(number))


def test_wait_returns_for_data_and_for_a_wake(pipe: PipeHandoff) -> None:
    begun = time.monotonic()
    threading.Timer(0.05, pipe.wake).start()
    pipe.wait()
    threading.Timer(0.05, lambda: pipe.put(measurement(1))).start()
    pipe.wait()
    assert time.monotonic() - begun < 10
    pipe.close()


def test_within_one_process_memory_is_bounded_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalHandoff, "HIGH_WATER", 50)
    handoff = LocalHandoff(RULES, 10)

    def put() -> None:
        for number in range(5000):
            handoff.put(measurement(number))
        handoff.put(measurement(0))  # whoever comes last folds what piled up while another was folding

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(handoff._queue) <= 50
    tally = Tally(10)
    handoff.drain(tally)
    handoff.drain(tally)
    assert tally.count == 20_004
