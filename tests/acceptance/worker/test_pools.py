"""Each kind of pool counts each task, whatever becomes of its processes: the figures are those of the oracle."""

from __future__ import annotations

import random
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from support.scene import figures
from support.servers import Worker, missing, running, wait_until

import celery_argsize

if TYPE_CHECKING:
    from support.scene import Scene


def send_many(scene: Scene, count: int, *, seed: int = 1) -> None:
    rng = random.Random(seed)
    scene.send_many(
        (
            f"task_{number % 10}",
            [["å" * rng.randrange(40), rng.random()] for _ in range(rng.randrange(20))],
            {"n": number, "text": "x" * rng.randrange(200)} if number % 3 else {},
        )
        for number in range(count)
    )


def run_and_compare(scene: Scene, count: int, *options: str, settings: dict[str, object] | None = None) -> str:
    send_many(scene, count)
    with running(Worker(scene.folder, scene.env(settings), "-l", "WARNING", *options)) as worker:
        wait_until(lambda: len(scene.oracle()) >= count, timeout=120, what=f"{count} tasks")
        log = worker.stop()
    assert len(scene.oracle()) == count
    assert figures(celery_argsize.get_size_summary(redis_url=scene.broker)) == scene.truth()
    assert f"[WORKER SHUTDOWN] Tasks analyzed: {count:,}" in log
    return log


@pytest.mark.slow
def test_five_thousand_tasks_over_ten_names_at_concurrency_four(scene: Scene) -> None:
    run_and_compare(scene, 5000, "-c", "4")
    assert len(scene.truth()) == 10


@pytest.mark.parametrize("pool", ["solo", pytest.param("threads", marks=pytest.mark.smoke), "gevent", "eventlet"])
def test_pools_without_children(scene: Scene, pool: str) -> None:
    if pool in {"gevent", "eventlet"} and find_spec(pool) is None:  # not imported here: they mind forks
        missing(pool)
    run_and_compare(scene, 300, "-P", pool, "-c", "8")


def test_a_new_child_for_each_task(scene: Scene) -> None:
    run_and_compare(scene, 60, "-c", "3", "--max-tasks-per-child", "1")


@pytest.mark.slow
@pytest.mark.smoke
def test_autoscale(scene: Scene) -> None:
    run_and_compare(scene, 1000, "--autoscale", "6,1")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="prefork only")
def test_spawned_children(scene: Scene) -> None:
    pytest.importorskip("celery", minversion="5.7")
    run_and_compare(scene, 100, "-c", "2", "--pool-start-method", "spawn")


@pytest.mark.smoke
def test_children_that_are_killed_right_after_prerun_lose_nothing(scene: Scene) -> None:
    send_many(scene, 200)
    for number in range(25):
        scene.send("killed", "x" * number)
    send_many(scene, 200, seed=2)
    with running(Worker(scene.folder, scene.env(), "-l", "CRITICAL", "-c", "4")) as worker:
        # Celery runs a task again that was on its way to a child that died: there are more runs than ids
        wait_until(lambda: len({run[1] for run in scene.oracle()}) >= 425, timeout=120, what="425 tasks")
        worker.stop()
    truth = scene.truth()
    assert truth["killed"][0] >= 25
    assert figures(celery_argsize.get_size_summary(redis_url=scene.broker)) == truth


@pytest.mark.slow
def test_figures_arrive_while_the_worker_runs(scene: Scene) -> None:
    with running(Worker(scene.folder, scene.env({"flush_interval": 0.2}), "-c", "2")):
        scene.send("task_1", "x" * 100)
        wait_until(
            lambda: celery_argsize.get_size_summary(redis_url=scene.broker).total_tasks == 1, timeout=10, what="a flush"
        )
