"""Processes that are killed, stopped, and replaced: real prefork workers lose nothing and leave nothing behind.

Two oracles count the runs, one just before our handler and one just after it, as a child may be killed in between. The
right figure lies between theirs, which are nearly always the same.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from support.scene import json_lines
from support.servers import Worker, running, wait_until

import celery_argsize

if TYPE_CHECKING:
    from pathlib import Path

    from support.scene import Scene

#: Tasks and kills of children at random; KILLS=200 for the full number.
KILLS = int(os.environ.get("KILLS", "60"))
TASKS = 100 * KILLS


def counts(scene: Scene) -> dict[str, int]:
    return {task.name: task.count for task in celery_argsize.get_size_summary(redis_url=scene.broker).tasks}


def runs(scene: Scene) -> dict[str, int]:
    return dict(Counter(name for name, *_ in scene.oracle()))


def wait_for_runs(scene: Scene, number: int) -> None:
    wait_until(lambda: len(scene.oracle()) == number, timeout=60, what=f"{number} runs")


class After:
    """The oracle that comes after our handler."""

    def __init__(self, scene: Scene) -> None:
        self.file = scene.folder / "after.jsonl"

    def env(self) -> dict[str, str]:
        return {"TEST_ORACLE_AFTER": str(self.file)}

    def lines(self) -> list[tuple[str, str, float]]:
        return json_lines(self.file)


def send(scene: Scene, count: int) -> None:
    scene.send_many((f"task_{number % 10}", ["x" * (number % 500)], {}) for number in range(count))


def held(process: psutil.Process) -> tuple[int, int]:
    """Descriptors and threads of *process*."""
    return process.num_fds(), process.num_threads()


def most_held(process: psutil.Process) -> tuple[int, int]:
    """The most descriptors and threads within a second: while children come and go, there are fewer at times."""
    fds, threads = held(process)
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        now = held(process)
        fds, threads = max(fds, now[0]), max(threads, now[1])
        time.sleep(0.02)
    return fds, threads


def own_temp(scene: Scene) -> Path:
    """A folder for this worker's temporary files, apart from those of other tests."""
    (folder := scene.folder / "temp").mkdir()
    return folder


def our_files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if "argsize" in path.name]


@pytest.mark.slow
def test_children_killed_at_random_lose_nothing_and_leave_nothing_behind(scene: Scene) -> None:
    after, rng, temp = After(scene), random.Random(7), own_temp(scene)
    env = {**scene.env({"log_large_tasks": False}), **after.env(), "TMPDIR": str(temp)}
    with running(Worker(scene.folder, env, "-c", "3", "-l", "CRITICAL")) as worker:
        main = psutil.Process(worker.process.pid)
        send(scene, 30)
        wait_until(lambda: len(scene.oracle()) >= 30, what="the first tasks")
        wait_until(lambda: counts(scene), what="the first flush")
        before = held(main)
        send(scene, TASKS)
        kills = 0
        while kills < KILLS:
            children = main.children()
            if len(children) >= 3:
                with suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile
                    rng.choice(children).kill()
                    kills += 1
            time.sleep(rng.random() * 0.1)

        def idle() -> bool:
            seen = len(scene.oracle())
            time.sleep(0.5)
            return len(scene.oracle()) == seen and len(main.children()) == 3

        wait_until(idle, timeout=90, what="the end of the tasks")
        wait_until(lambda: len({run[1] for run in scene.oracle()}) >= TASKS * 0.9, what="most of the tasks")
        wait_until(lambda: held(main) <= before, timeout=10, what=f"what was held before, {before}, not {held(main)}")
        worker.stop()
    counted, least = counts(scene), Counter(name for name, *_ in after.lines())
    most = runs(scene)
    assert sum(most.values()) - sum(least.values()) <= KILLS / 2, "that it is hardly ever in question"
    assert all(least[name] <= counted[name] <= most[name] for name in most), (least, counted, most)
    assert counted.keys() == most.keys()
    assert our_files(temp) == []


@pytest.mark.slow
def test_children_that_live_for_one_task_leave_nothing_behind(scene: Scene) -> None:
    temp = own_temp(scene)
    env = {**scene.env({"log_large_tasks": False}), "TMPDIR": str(temp)}
    with running(Worker(scene.folder, env, "-l", "CRITICAL", "-c", "3", "--max-tasks-per-child", "1")) as worker:
        main = psutil.Process(worker.process.pid)

        def run(tasks: int) -> None:
            send(scene, tasks)
            wait_until(
                lambda: counts(scene) == runs(scene) and sum(runs(scene).values()) % tasks == 0, what="the tasks"
            )
            wait_until(lambda: len(main.children()) == 3, what="three children")

        # a child that leaves something behind does so every time; a pipe or two come and go
        seen = []
        for _ in range(4):
            run(30)
            seen.append(most_held(main))
        assert any(all(map(int.__ge__, before, after)) for before, after in pairwise(seen)), seen
        (fds, threads), (fds_later, threads_later) = seen[0], seen[-1]
        assert fds_later <= fds + 2, seen
        assert threads_later <= threads, seen
        worker.stop()
    assert counts(scene) == runs(scene)
    assert our_files(temp) == []


@pytest.mark.slow
def test_the_main_process_killed_loses_one_interval_at_most_and_leaves_no_orphan(scene: Scene) -> None:
    interval = 0.5
    after = After(scene)
    env = {**scene.env({"flush_interval": interval, "log_large_tasks": False}), **after.env()}
    worker = Worker(scene.folder, env, "-c", "2", "-l", "CRITICAL")
    with running(worker):
        send(scene, 5000)
        wait_until(lambda: len(scene.oracle()) > 1000, what="tasks")
        family = psutil.Process(worker.process.pid).children(recursive=True)
        time.sleep(interval)
        killed = time.time()
        worker.process.kill()
        worker.process.wait(10)
        wait_until(lambda: not any(child.is_running() for child in family), timeout=10, what="the end of all children")
    counted = counts(scene)
    # beside the interval, 0.05 s in which measurements gather, and what a write takes on a busy machine
    written = Counter(name for name, _, moment in after.lines() if moment < killed - interval - 0.25)
    assert sum(written.values()) > 500
    assert all(written[name] <= counted[name] <= runs(scene)[name] for name in written), (written, counted)
    lost = sum(runs(scene).values()) - sum(counted.values())

    with running(Worker(scene.folder, env, "-c", "2", "-l", "CRITICAL")) as again:
        wait_until(lambda: len({run[1] for run in scene.oracle()}) >= 4990, timeout=60, what="the other tasks")
        send(scene, 10)
        wait_until(lambda: len(scene.oracle()) >= 5000, what="the last tasks")
        again.stop()
    assert sum(runs(scene).values()) - sum(counts(scene).values()) == lost, "nothing twice, nothing more lost"


@pytest.mark.slow
def test_what_children_count_while_the_main_process_is_stopped_is_read_later(scene: Scene) -> None:
    env = scene.env({"log_large_tasks": False, "include_eager": True})
    with running(Worker(scene.folder, env, "-c", "2", "-l", "WARNING", "--prefetch-multiplier", "4")) as worker:
        for _ in range(2):
            scene.send("eager_many", 10_000)
        wait_until(lambda: len(scene.oracle()) > 200, what="the start of both")
        worker.process.send_signal(signal.SIGSTOP)
        wait_for_runs(scene, 20_002)  # that nobody takes
        assert sum(counts(scene).values()) < 10_000, "the main process stood still"
        worker.process.send_signal(signal.SIGCONT)
        log = worker.stop()  # and no other task comes
    assert counts(scene) == runs(scene)
    assert "lost" not in log


FORKS = """
import os, signal, sys, threading, time
from celery_argsize.settings import DEFAULT_BUCKETS, Settings
from celery_argsize.worker.flusher import Flusher
from celery_argsize.worker.notes import PipeNotes
from celery_argsize.worker.shared_counters import SharedCounters
from celery_argsize.measuring.json_size import Size
from celery_argsize.measuring.measurement import Measurement, Part
from celery_argsize.figures.counters import Rules
from celery_argsize.stores.redis import RedisStore

settings = Settings(redis_url=sys.argv[1], flush_interval=0.05)
rules = Rules(1024, DEFAULT_BUCKETS)
counters, notes = SharedCounters(rules, 100, 1), PipeNotes()
store = RedisStore(settings)
store.prepare()
flusher = Flusher(counters, notes, store, settings, "writer")
flusher.start()
for number in range(int(sys.argv[2])):
    pid = os.fork()
    if not pid:
        signal.alarm(20)  # a child that hangs dies of it
        part = Part(Size(number, number))
        run = Measurement(f"task {number % 7}", "id", part, part, time.time())
        counters.after_fork()
        counters.region().update(run.task, rules.layout.changes(run.args, run.kwargs))
        notes.send({"host": "web-1", "sightings": {"seen": (0, run.time)}})
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        sys.exit(f"child {number} hung")
sys.exit(flusher.stop(10))
"""


@pytest.mark.slow
def test_ten_thousand_forks_while_the_threads_are_busy_never_hang(redis_url: str) -> None:
    """A fork copies locks as they are, held or not: a child must need none of them."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, redis_url, "10000"],
        capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = celery_argsize.get_size_summary(redis_url=redis_url, app_name="celery")
    assert summary.total_tasks == 10_000
    assert max(task.args.max for task in summary.tasks) == 9_999


@pytest.mark.slow
def test_ten_thousand_tasks_in_greenlets_never_hang(scene: Scene) -> None:
    """With locks, threads and sockets patched by gevent, and then by eventlet."""
    for number, pool in enumerate(("gevent", "eventlet"), 1):
        settings: dict[str, Any] = {"log_large_tasks": False, "include_eager": True, "flush_interval": 0.05}
        with running(Worker(scene.folder, scene.env(settings), "-P", pool, "-c", "20", "-l", "CRITICAL")) as worker:
            for _ in range(20):
                scene.send("eager_many", 499)
            wait_for_runs(scene, 10_000 * number)
            worker.stop()
        assert counts(scene) == runs(scene)
