"""What the doctor says of settings is so: each fault made real with a real Redis and worker, next to what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import redis
from celery import Celery
from support.servers import BIN, ROOT, RedisServer, Worker, run, running, wait_until

from celery_argsize.doctor.examine import diagnose
from celery_argsize.doctor.facts import Facts, Scope
from celery_argsize.doctor.judge.settings import CHECKS

if TYPE_CHECKING:
    from pathlib import Path

    from support.scene import Scene

    from celery_argsize.doctor.checks import Outcome


#: The child that ran a task, out of the worker's log.
RAN_IN = re.compile(r"(ForkPoolWorker-\d+)\] Task \S+ succeeded")


def app_at(url: str, **conf: Any) -> Celery:
    app = Celery("workload", broker=url, backend=url, set_as_current=False)
    app.conf.update(conf)
    return app


def said(app: Celery, name: str) -> Outcome:
    app.finalize()
    (found,) = [check.outcomes(Facts(Scope(app))) for check in CHECKS if check.id == name]
    return found[0]


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "children", "verdict"), [(20_000, 3, "fail"), (512_000, 1, "ok")])
def test_a_limit_below_what_a_child_takes_starts_one_after_every_task(
    limit: int, children: int, verdict: str, scene: Scene, tmp_path: Path
) -> None:
    worker = Worker(tmp_path, scene.env(conf={"worker_max_memory_per_child": limit}), "-c", "1", "-l", "info")
    with running(worker):
        for _ in range(3):
            scene.send("task_0")
        ran = wait_until(lambda: len(found := RAN_IN.findall(worker.log)) == 3 and found, what="three tasks")
        outcome = said(app_at(scene.broker, worker_max_memory_per_child=limit), "settings.max_memory")

    assert len(set(ran)) == children
    assert outcome.verdict == verdict


#: Who waits for a result with as few connections as are given.
WAITING = """\
import sys
from celery import Celery
app = Celery("x", broker=sys.argv[1], backend=sys.argv[1])
app.conf.redis_max_connections = int(sys.argv[2])
app.send_task("nobody").get(timeout=1)
"""


@pytest.mark.parametrize(("most", "error", "verdict"), [(1, "Too many connections", "fail"), (2, "timed out", "ok")])
def test_one_connection_for_results_is_too_few(redis_url: str, most: int, error: str, verdict: str) -> None:
    waited = run(sys.executable, "-c", WAITING, redis_url, str(most))

    assert error in waited.stderr
    assert said(app_at(redis_url, redis_max_connections=most), "settings.redis_max_connections").verdict == verdict


@pytest.mark.slow
def test_messages_that_are_not_accepted_are_thrown_away(scene: Scene, tmp_path: Path) -> None:
    with running(Worker(tmp_path, scene.env(), "-c", "1")) as worker:
        scene.producer.send_task("task_0", serializer="pickle", ignore_result=True)
        scene.send("task_1")
        wait_until(scene.oracle, what="the task in JSON")

    assert [line[0] for line in scene.oracle()] == ["task_1"]
    assert "ContentDisallowed" in worker.log
    assert said(app_at(scene.broker, task_serializer="pickle"), "settings.serializer").verdict == "fail"


def test_pools_are_held_against_what_a_small_redis_takes(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--maxclients", "30")
    try:
        app = app_at(server.start().url, broker_pool_limit=50, redis_max_connections=50)
        results = {one.check.id: one.outcome for one in diagnose(app, seconds=5).results}
    finally:
        server.stop()

    assert results["redis.forecast"].verdict == "warn"
    assert "of 30 clients" in results["redis.forecast"].figure
    assert "broker_pool_limit" in results["redis.forecast"].fix


def test_results_without_expiry_stay(redis_url: str) -> None:
    app = app_at(redis_url, result_expires=None)
    app.backend.store_result("some-id", 1, "SUCCESS")

    with redis.Redis.from_url(redis_url) as client:
        assert client.ttl("celery-task-meta-some-id") == -1
    assert said(app, "settings.result_expires").verdict == "warn"


@pytest.mark.slow
@pytest.mark.parametrize("example", ["music_library", "social_sync", "django_render"])
def test_the_examples_get_no_alarm(example: str, scene: Scene) -> None:
    django = example == "django_render"
    folder = ROOT / "examples" / ("django_render" if django else "")
    env = {**scene.env(), "REDIS_URL": scene.broker, "SECRET_KEY": "a test's", "CELERY_BROKER_URL": scene.broker}
    env |= {"CELERY_RESULT_BACKEND": scene.broker}
    command = [str(BIN / "celery"), "-A", "config" if django else f"{example}.app", "argsize", "doctor", "--json"]
    told = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)

    checks = [one for one in json.loads(told.stdout)["checks"] if one["group"] == "settings"]
    assert len(checks) > 12
    assert [one for one in checks if one["verdict"] != "ok"] == []


def test_a_module_of_tasks_that_cannot_be_imported_is_named(redis_url: str) -> None:
    app = Celery("proj", broker=redis_url, include=["no_such_module_of_tasks"])
    (found,) = (one.outcome for one in diagnose(app, seconds=5).results if one.check.id == "settings.imports")
    assert (found.verdict, found.figure) == ("fail", "there is no module no_such_module_of_tasks")
