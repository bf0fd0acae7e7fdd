"""RabbitMQ carries the messages, Redis keeps the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from celery.utils.saferepr import saferepr
from support.scene import figures
from support.servers import Worker, running, wait_until

import celery_argsize
from celery_argsize.api import reset

if TYPE_CHECKING:
    from support.scene import Scene


@pytest.mark.slow
def test_figures_go_to_the_redis_that_was_named(amqp_scene: Scene, redis_url: str) -> None:
    for number in range(200):
        amqp_scene.send(f"task_{number % 10}", "x" * number * 20, number=number)
    with running(Worker(amqp_scene.folder, amqp_scene.env({"redis_url": redis_url}), "-c", "2")) as worker:
        wait_until(lambda: len(amqp_scene.oracle()) >= 200, what="200 tasks")
        worker.stop()
    summary = celery_argsize.get_size_summary(redis_url=redis_url)
    assert figures(summary) == amqp_scene.truth()
    sent = [("x" * number * 20,) for number in range(200)]
    assert summary.truncated_tasks == sum(saferepr(args, 1024) != saferepr(args) for args in sent)


def test_the_redis_of_the_results_is_found(amqp_scene: Scene, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reset, "REPLY_TIMEOUT", 4.0)  # a busy machine may take more than a second
    amqp_scene.backend = redis_url
    amqp_scene.send("task_0", 1)
    with running(Worker(amqp_scene.folder, amqp_scene.env(), "-c", "1")) as worker:
        wait_until(amqp_scene.oracle, what="the task")
        result = celery_argsize.reset_metrics(
            amqp_scene.producer, redis_url=redis_url
        )  # remote control over AMQP works as well
        assert result.workers == ("tested@host",)
        amqp_scene.send("task_1", 1)
        wait_until(lambda: len(amqp_scene.oracle()) >= 2, what="the next task")
        worker.stop()
    assert [task.name for task in celery_argsize.get_size_summary(redis_url=redis_url).tasks] == ["task_1"]


@pytest.mark.slow
def test_without_a_redis_the_figures_stay_with_the_worker(amqp_scene: Scene) -> None:
    with running(Worker(amqp_scene.folder, amqp_scene.env(), "-c", "2", "-l", "WARNING")) as worker:
        amqp_scene.send("task_0", "x" * 500)
        wait_until(amqp_scene.oracle, what="the task")
        log = worker.stop()
    assert log.count("no Redis is configured") == 1
    assert "[WORKER SHUTDOWN] Max args size: 504 characters" in log
