"""What is large does not wait for the flush interval: a worker that is killed for it has told by then."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from support.servers import Worker, running, wait_until

import celery_argsize

if TYPE_CHECKING:
    from support.scene import Scene
    from support.servers import RedisServer

#: Seconds. Nothing is written for this reason while a test runs.
INTERVAL = 3600
TEXT = "x" * 2_000_000


def counted(scene: Scene) -> dict[str, int]:
    return {task.name: task.count for task in celery_argsize.get_size_summary(redis_url=scene.broker).tasks}


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_part_over_write_at_once_bytes_is_in_redis_long_before_the_interval_ends(scene: Scene, pool: str) -> None:
    env = {
        **scene.env({"flush_interval": INTERVAL, "log_large_tasks": False}),
        "TEST_ORACLE_AFTER": str(scene.folder / "after"),
    }
    with running(Worker(scene.folder, env, "-c", "2", "-P", pool, "-l", "WARNING")):
        scene.send("task_0", TEXT)
        wait_until(lambda: counted(scene) == {"task_0": 1}, timeout=20, what="the first large task, and a connection")
        took = []
        for runs in range(2, 7):
            scene.send("task_1", "small")
            wait_until(lambda runs=runs: len(scene.oracle()) == 2 * runs - 2, timeout=20, what="the small task")  # type: ignore[misc]
            scene.send("task_0", TEXT)
            wait_until(lambda runs=runs: len(scene.oracle()) == 2 * runs - 1, timeout=20, what="the large task")  # type: ignore[misc]
            begun = time.monotonic()
            wait_until(lambda runs=runs: counted(scene).get("task_0") == runs, timeout=20, what="its figures")  # type: ignore[misc]
            took.append(time.monotonic() - begun)
            assert counted(scene)["task_1"] == runs - 1, "with all that was counted before"
    assert min(took) < 0.1, took
    assert max(took) < 10, "a machine may be busy, but this is no interval"


def test_a_worker_killed_by_what_a_large_task_does_has_told_of_it(scene: Scene) -> None:
    with running(Worker(scene.folder, scene.env({"flush_interval": INTERVAL}), "-c", "1", "-l", "WARNING")) as worker:
        write_first(scene)
        scene.send("task_0", TEXT)
        wait_until(lambda: counted(scene).get("task_0") == 1, timeout=20, what="the large task")
        worker.process.kill()
        worker.process.wait(10)
    task, _ = celery_argsize.get_size_summary(redis_url=scene.broker).tasks
    assert task.args.max == len(TEXT) + 4
    assert task.args.largest_task_id == scene.oracle()[1][1]


def write_first(scene: Scene) -> None:
    """Let a worker write something, as it writes its first figures without waiting for the interval."""
    scene.send("task_9")
    wait_until(lambda: counted(scene) == {"task_9": 1}, what="the first write")


def test_what_is_under_the_limit_waits(scene: Scene) -> None:
    settings = {"flush_interval": INTERVAL, "write_at_once_bytes": 3_000_000}
    with running(Worker(scene.folder, scene.env(settings), "-c", "1", "-l", "WARNING")) as worker:
        write_first(scene)
        scene.send("task_0", TEXT)
        wait_until(lambda: len(scene.oracle()) == 2, what="the task")
        time.sleep(0.5)  # several times as long as a write at once may take
        assert counted(scene) == {"task_9": 1}
        worker.stop()
    assert counted(scene) == {"task_0": 1, "task_9": 1}


@pytest.mark.slow
def test_there_are_at_most_ten_such_writes_a_second(scene: Scene, redis_server: RedisServer) -> None:
    settings = {"flush_interval": INTERVAL, "write_at_once_bytes": 1000, "log_large_tasks": False}
    writes: list[float] = []

    def listen() -> None:
        with redis_server.client() as client, client.monitor() as monitor:
            listening.set()
            for heard in monitor.listen():
                if heard["command"].startswith("EVALSHA") and heard["client_port"] == port:
                    writes.append(heard["time"])
                elif heard["command"] == "ECHO enough":
                    return

    with running(Worker(scene.folder, scene.env(settings), "-c", "2", "-l", "WARNING")), redis_server.client() as admin:
        scene.send("task_0", "x" * 2000)
        wait_until(lambda: counted(scene), what="the connection")
        (ours,) = [found for found in admin.client_list() if found["name"] == "celery-argsize"]
        port, listening = ours["addr"].rpartition(":")[2], threading.Event()
        listener = threading.Thread(target=listen)
        listener.start()
        assert listening.wait(20)
        scene.send_many(("task_0", ["x" * (2000 + number)], {}) for number in range(1500))
        wait_until(lambda: counted(scene)["task_0"] == 1501, timeout=30, what="all tasks")
        admin.echo("enough")
        listener.join(20)
    assert len(writes) > 11
    assert min(later - first for first, later in zip(writes, writes[10:], strict=False)) > 0.9, writes
