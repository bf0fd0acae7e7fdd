"""What one worker does: its connections, its log, its report at shutdown, and how it takes odd configurations."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest
from support.servers import Worker, running, wait_until, wait_until_steady

import celery_argsize

if TYPE_CHECKING:
    from collections.abc import Iterable

    from support.scene import Scene
    from support.servers import RedisServer


def clients(server: RedisServer) -> dict[str, str]:
    """The clients of *server*, id → name, but for the one that asks."""
    with server.client(client_name="the-test") as client:
        return {found["id"]: found["name"] for found in client.client_list() if found["name"] != "the-test"}


def settled(server: RedisServer, others: Iterable[str]) -> list[str]:
    """Names of the clients that are none of *others*, once they have not changed for a second."""
    ids = wait_until_steady(lambda: clients(server).keys() - others, seconds=1, what="a list of clients")
    return [name for client, name in clients(server).items() if client in ids]


def settled_clients(scene: Scene, server: RedisServer, settings: dict[str, object]) -> list[str]:
    """The clients that a worker with 8 children has after each child ran tasks."""
    for _ in range(60):
        scene.send("slow", 0.05)
    before = len(scene.oracle())
    others = clients(server).keys()
    with running(Worker(scene.folder, scene.env(settings), "-c", "8", "--without-heartbeat")):
        wait_until(lambda: len(scene.oracle()) >= before + 60, what="60 tasks")
        if settings.get("enabled", True):
            wait_until(lambda: "celery-argsize" in clients(server).values(), what="our connection")
        names = settled(server, others)
    wait_until(lambda: clients(server).keys() <= others, what="the worker's connections to close")
    return names


def test_one_more_connection_for_a_worker_with_eight_children(scene: Scene, redis_server: RedisServer) -> None:
    without = settled_clients(scene, redis_server, {"enabled": False})
    with_us = settled_clients(scene, redis_server, {})
    assert with_us.count("celery-argsize") == 1
    assert len(with_us) == len(without) + 1


@pytest.mark.smoke
def test_a_large_task_is_in_the_log_before_it_kills_its_process(scene: Scene) -> None:
    with running(Worker(scene.folder, scene.env(), "-c", "1")) as worker:
        sent = scene.send("killed", "x" * 45_674)
        wait_until(lambda: "SIGKILL" in worker.log, what="the end of the child")
        log = worker.stop()
    block = (
        "[CELERY MONITOR] Task: killed\n"
        f"[CELERY MONITOR] ID: {sent.id}\n"
        "[CELERY MONITOR] Args: 45,678 characters (⚠ TRUNCATED by size)\n"
        "[CELERY MONITOR] Kwargs: 0 characters (✓)\n"
        "[CELERY MONITOR] Current limit: 1,024 characters\n"
    )
    assert block in log
    assert log.index(block) < log.index("SIGKILL")


@pytest.mark.slow
def test_a_burst_of_large_tasks_does_not_flood_the_log(scene: Scene) -> None:
    for _ in range(300):
        scene.send("task_0", "x" * 2000)
    with running(Worker(scene.folder, scene.env(), "-c", "1")) as worker:
        wait_until(lambda: len(scene.oracle()) >= 300, what="300 tasks")
        log = worker.stop()
    assert 5 <= log.count("[CELERY MONITOR] Task: task_0") <= 20


@pytest.mark.slow
def test_children_that_live_for_one_task_share_the_limit(scene: Scene) -> None:
    for _ in range(40):
        scene.send("task_0", "x" * 2000)
    with running(Worker(scene.folder, scene.env(), "-c", "2", "--max-tasks-per-child", "1")) as worker:
        wait_until(lambda: len(scene.oracle()) >= 40, what="40 tasks")
        log = worker.stop()
    assert 5 <= log.count("[CELERY MONITOR] Task: task_0") <= 15


def test_no_argument_value_reaches_the_log_or_redis(scene: Scene, redis_server: RedisServer) -> None:
    secret = "sesame-open-4711"
    with running(Worker(scene.folder, scene.env(), "-c", "1", "-l", "WARNING")) as worker:
        scene.send("task_0", [secret] * 200, word=secret)
        wait_until(scene.oracle, what="the task")
        log = worker.stop()
    assert "[CELERY MONITOR] Task: task_0" in log
    assert secret not in log
    with redis_server.client(decode_responses=True) as client:
        ours = [key for key in client.scan_iter("celery-argsize:*") if client.type(key) == "hash"]
        assert ours
        assert secret not in str([client.hgetall(key) for key in ours])


SHUTDOWN = """\
Final monitoring report for worker tested@host:
Tasks analyzed: 127
Max args size: 67,890 characters
Max kwargs size: 12 characters
Mean args size: 540 characters
Mean kwargs size: 0 characters
Truncated tasks: 1
Largest task: task_0 (args)
Recommended limit: 81,468 characters
Recommended tier: 128KB (131072)
"""


def shutdown_report(log: str) -> str:
    return "".join(f"{line}\n" for line in re.findall(r"\[WORKER SHUTDOWN\] (.*)", log))


def test_the_report_at_a_warm_shutdown_is_the_guides_to_the_character(scene: Scene) -> None:
    scene.send("task_0", "x" * 67_886)
    for _ in range(125):
        scene.send("task_1", 12)
    scene.send("task_2", 12, a="1234")
    with running(Worker(scene.folder, scene.env(), "-c", "2", "-l", "WARNING")) as worker:
        wait_until(lambda: len(scene.oracle()) >= 127, what="127 tasks")
        log = worker.stop()
    assert shutdown_report(log) == SHUTDOWN.replace("540", f"{(67_890 + 126 * 4) / 127:,.0f}")


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_cold_shutdown_writes_and_reports_too(scene: Scene, pool: str) -> None:
    with running(Worker(scene.folder, scene.env(), "-c", "2", "-P", pool, "-l", "WARNING")) as worker:
        for _ in range(5):
            scene.send("task_0", "x")
        wait_until(lambda: len(scene.oracle()) >= 5, what="5 tasks")
        log = worker.stop(signal.SIGQUIT)
    assert "Tasks analyzed: 5\n" in shutdown_report(log)
    assert celery_argsize.get_size_summary(redis_url=scene.broker).total_tasks == 5


def test_without_redis_the_worker_says_so_once_and_still_reports(scene: Scene) -> None:
    scene.broker, scene.backend = f"filesystem://{os.devnull}", None
    folder = {name: str(scene.folder) for name in ("data_folder_in", "data_folder_out", "control_folder")}
    scene.producer.conf.update(broker_url="filesystem://", broker_transport_options=folder)
    scene.broker = "filesystem://"
    conf = {"broker_transport_options": folder}
    with running(Worker(scene.folder, scene.env(conf=conf), "-c", "2", "-l", "WARNING")) as worker:
        scene.send("task_0", "x" * 2000)
        scene.send("summary_inside")
        wait_until(lambda: len(scene.oracle()) >= 2, what="2 tasks")
        wait_until(lambda: "memory of the worker's main process" in worker.log, what="the child's clear error")
        log = worker.stop()
    assert log.count("no Redis is configured, the figures of this worker are kept in its memory") == 1
    assert "Tasks analyzed: 2\n" in shutdown_report(log)


@pytest.mark.slow
def test_a_setting_that_cannot_work_is_said_and_the_worker_runs(scene: Scene) -> None:
    conf = {"argsize_flush_interval": "often"}
    with running(Worker(scene.folder, scene.env(conf=conf), "-c", "1", "-l", "WARNING")) as worker:
        scene.send("task_0")
        wait_until(scene.oracle, what="the task")
        log = worker.stop()
    assert "celery_argsize is off" in log
    assert "argsize_flush_interval = 'often' cannot work; allowed: seconds from 0.05 to 3600" in log
    assert "Traceback" not in log


@pytest.mark.slow
@pytest.mark.parametrize("include_eager", [False, True])
def test_eager_runs_count_only_when_asked(scene: Scene, include_eager: bool) -> None:  # noqa: FBT001 - a parameter
    with running(Worker(scene.folder, scene.env({"include_eager": include_eager}), "-c", "1")) as worker:
        scene.send("eager_inside", 1, 2, 3)
        wait_until(lambda: len(scene.oracle()) >= 2, what="the task and the eager one in it")
        worker.stop()
    names = {task.name for task in celery_argsize.get_size_summary(redis_url=scene.broker).tasks}
    assert names == ({"eager_inside", "task_0"} if include_eager else {"eager_inside"})


@pytest.mark.slow
@pytest.mark.smoke
def test_messages_without_the_headers_are_measured(scene: Scene) -> None:
    scene.producer.conf.task_protocol = 1
    scene.send("task_0", "x" * 5000)
    with running(Worker(scene.folder, scene.env(), "-c", "1")) as worker:
        wait_until(scene.oracle, what="the task")
        worker.stop()
    (task,) = celery_argsize.get_size_summary(redis_url=scene.broker).tasks
    assert (task.name, task.args.max, task.truncated) == ("task_0", 5004, 0)


@pytest.mark.slow
def test_disabled_leaves_no_trace(scene: Scene, redis_server: RedisServer) -> None:
    with running(Worker(scene.folder, scene.env({"enabled": False}), "-c", "1", "-l", "WARNING")) as worker:
        scene.send("task_0", "x" * 5000)
        wait_until(scene.oracle, what="the task")
        log = worker.stop()
    assert "CELERY MONITOR" not in log
    assert "WORKER SHUTDOWN" not in log
    with redis_server.client() as client:
        assert not list(client.scan_iter("celery-argsize*"))


@pytest.mark.slow
def test_an_app_configured_by_django_settings(scene: Scene) -> None:
    with running(Worker(scene.folder, scene.env(), "-c", "1", module="django_project")) as worker:
        scene.send("from_django", "x" * 20)
        wait_until(
            lambda: celery_argsize.get_size_summary(redis_url=scene.broker, app_name="django_project").total_tasks == 1,
            what="the figures",
        )
        log = worker.stop()
    assert "[CELERY MONITOR] Args: 24 characters (✓)" in log
