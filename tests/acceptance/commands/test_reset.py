"""A reset while workers run: nothing from before comes back, nothing after is lost."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest
from celery import Celery
from support.servers import BIN, Worker, run, running, wait_until

import celery_argsize
from celery_argsize.api import reset

if TYPE_CHECKING:
    from support.scene import Scene


def total(scene: Scene) -> int:
    return celery_argsize.get_size_summary(redis_url=scene.broker).total_tasks


@pytest.mark.smoke
def test_nothing_from_before_comes_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reset, "REPLY_TIMEOUT", 4.0)  # a busy machine may take more than a second
    # an interval in which nothing would be written by itself: what is not flushed first would come back at the end
    with running(Worker(scene.folder, scene.env({"flush_interval": 600}), "-c", "2", "-l", "WARNING")) as worker:
        scene.send("task_9")
        wait_until(lambda: total(scene) == 1, what="the first flush")
        for _ in range(50):
            scene.send("task_0", "before")
        wait_until(lambda: len(scene.oracle()) >= 51, what="51 tasks")
        result = celery_argsize.reset_metrics(scene.producer)
        assert result.workers == ("tested@host",)
        assert result.failed == ()
        assert total(scene) == 0
        for _ in range(7):
            scene.send("task_1", "after")
        wait_until(lambda: len(scene.oracle()) >= 58, what="58 tasks")
        log = worker.stop()
    summary = celery_argsize.get_size_summary(redis_url=scene.broker)
    assert {task.name: task.count for task in summary.tasks} == {"task_1": 7}
    assert "[WORKER SHUTDOWN] Tasks analyzed: 7" in log


@pytest.mark.slow
def test_what_is_before_and_what_is_after_add_up_to_all_under_load(scene: Scene) -> None:
    """Each worker has one cut between before and after: resets under load lose or repeat no task."""
    with running(Worker(scene.folder, scene.env({"flush_interval": 0.05}), "-c", "2", "-l", "CRITICAL")) as worker:
        stopping, sent = threading.Event(), [0]

        def produce() -> None:
            with scene.producer.connection_for_write() as connection:
                producer = scene.producer.amqp.Producer(connection)
                while not stopping.wait(0.002):
                    scene.producer.send_task("task_0", ["x"], producer=producer, ignore_result=True)
                    sent.append(1)

        thread = threading.Thread(target=produce)
        thread.start()
        try:
            wait_until(lambda: total(scene) > 100, what="a load")
            seen_before_reset = len(scene.oracle())
            celery_argsize.reset_metrics(scene.producer)
            seen_after_reset = len(scene.oracle())
            wait_until(lambda: total(scene) > 100, what="new figures")
        finally:
            stopping.set()
            thread.join()
        wait_until(lambda: len(scene.oracle()) == sum(sent), what="the rest")
        worker.stop()
    everything = len(scene.oracle())
    assert everything - seen_after_reset <= total(scene) <= everything - seen_before_reset


@pytest.mark.smoke
def test_one_task(scene: Scene) -> None:
    with running(Worker(scene.folder, scene.env({"flush_interval": 0.1}), "-c", "1")):
        for name in ("task_0", "task_1", "task_2"):
            scene.send(name)
        wait_until(lambda: total(scene) == 3, what="3 tasks")
        env = scene.env()
        done = run(str(BIN / "celery"), "-A", "workload", "argsize", "reset", "--task", "task_1", "--yes", env=env)
    assert done.returncode == 0, done.stderr
    assert "The figures of task_1 were reset (app: workload)." in done.stdout
    assert "Workers that wrote what they had first: tested@host." in done.stdout
    assert {task.name for task in celery_argsize.get_size_summary(redis_url=scene.broker).tasks} == {"task_0", "task_2"}


@pytest.mark.slow
def test_with_a_url_alone_it_clears_and_says_that_nobody_was_asked(scene: Scene) -> None:
    with running(Worker(scene.folder, scene.env({"flush_interval": 0.1}), "-c", "1")):
        scene.send("task_0")
        wait_until(lambda: total(scene) == 1, what="the task")
    result = celery_argsize.reset_metrics(redis_url=scene.broker)
    assert "only a Redis URL was given" in str(result)
    assert total(scene) == 0


def test_the_command_asks_first(scene: Scene) -> None:
    refused = run(str(BIN / "celery"), "argsize", "reset", "--redis-url", scene.broker, env=scene.env())
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "Forget the figures of all tasks?" in refused.stderr


@pytest.mark.slow
def test_a_worker_that_keeps_its_own_figures_forgets_them(scene: Scene) -> None:
    env = scene.env({"flush_interval": 0.1}, {"argsize_redis_url": None, "result_backend": None})
    env.pop("TEST_BACKEND")
    folders = ("data_folder_in", "data_folder_out", "control_folder")
    # by default it looks once a second, and a reset waits no longer for answers
    options = {**dict.fromkeys(folders, str(scene.folder)), "polling_interval": 0.2}
    env["TEST_BROKER"] = "filesystem://"
    env["TEST_CONF"] = json.dumps({"broker_transport_options": options})
    producer = Celery("workload", broker="filesystem://")
    producer.conf.broker_transport_options = options
    with running(Worker(scene.folder, env, "-c", "1", "-l", "WARNING")) as worker:
        producer.send_task("task_0", ["before"])
        wait_until(lambda: len(scene.oracle()) >= 1, what="the task")
        assert celery_argsize.reset_metrics(producer).workers == ("tested@host",)
        producer.send_task("task_1", ["after"])
        wait_until(lambda: len(scene.oracle()) >= 2, what="the next task")
        log = worker.stop()
    assert "[WORKER SHUTDOWN] Tasks analyzed: 1" in log


@pytest.mark.slow
def test_workers_of_another_app_on_the_same_broker_are_left_alone(scene: Scene) -> None:
    other = {**scene.env(), "TEST_APP": "billing"}
    with running(Worker(scene.folder, other, "-c", "1", "-l", "WARNING")) as worker:
        scene.send("task_0")
        wait_until(lambda: total(scene) == 1, what="the figures of billing")
        result = celery_argsize.reset_metrics(scene.producer)
        assert (result.apps, result.workers) == (("workload",), ())
        log = worker.stop()
    assert total(scene) == 1
    assert "[WORKER SHUTDOWN] Tasks analyzed: 1" in log


def test_with_nothing_to_reset_it_says_so(scene: Scene) -> None:
    env = {**scene.env(), "TEST_BROKER": "memory://"}
    env.pop("TEST_BACKEND")
    done = run(str(BIN / "celery"), "-A", "workload", "argsize", "reset", "--yes", env=env)
    assert done.returncode == 2
    assert "set argsize_redis_url" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("options", [("-P", "solo"), ("-c", "1")], ids=["which cannot answer meanwhile", "in a child"])
def test_from_within_a_task_of_the_worker(scene: Scene, options: tuple[str, ...]) -> None:
    with running(Worker(scene.folder, scene.env({"flush_interval": 600}), *options, "-l", "WARNING")) as worker:
        scene.send("task_9")
        wait_until(lambda: total(scene) == 1, what="the first flush")
        for _ in range(20):
            scene.send("task_0", "before")
        scene.send("reset_inside")
        scene.send("task_1", "after")
        wait_until(lambda: len(scene.oracle()) >= 23, what="23 tasks")
        log = worker.stop()
    assert "[WORKER SHUTDOWN] Tasks analyzed: 1" in log
    assert [task.name for task in celery_argsize.get_size_summary(redis_url=scene.broker).tasks] == ["task_1"]


def test_a_name_that_nothing_is_known_of_is_said(scene: Scene) -> None:
    env = scene.env()
    done = run(str(BIN / "celery"), "-A", "workload", "argsize", "reset", "--task", "nope", "--yes", env=env)
    assert done.returncode == 1
    assert done.stdout.startswith("There were no figures of nope (app: workload).")


def test_a_name_that_was_made_fit_is_found_by_the_tasks_own_name(redis_url: str) -> None:
    name = "é" * 5_000 + "\n"
    app = Celery("music", broker="memory://", set_as_current=False)
    task = app.task(name=name)(body)
    celery_argsize.update_size_metrics(
        celery_argsize.measure_celery_task_size(task, "id", (1,), {}), redis_url=redis_url
    )
    assert celery_argsize.get_size_summary(redis_url=redis_url).total_tasks == 1
    assert celery_argsize.reset_metrics(redis_url=redis_url, task=name).forgotten == 1
    assert celery_argsize.get_size_summary(redis_url=redis_url).total_tasks == 0


def body(number: int) -> int:
    """A body (Celery takes no lambda)."""
    return number
