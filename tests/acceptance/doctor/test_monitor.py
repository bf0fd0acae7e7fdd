"""The doctor on the monitor itself: each step of "nothing is collected", made real."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from support.servers import BIN, RedisServer, Worker, run, running, wait_until

import celery_argsize
from celery_argsize import get_size_summary
from celery_argsize.doctor.examine import diagnose, judge, look_around
from celery_argsize.doctor.facts import Scope
from celery_argsize.doctor.judge.monitor import CHECKS

if TYPE_CHECKING:
    from pathlib import Path

    from support.scene import Scene

    from celery_argsize.doctor.checks import Outcome


def asked(app: Celery | None, **given: str | None) -> dict[str, list[Outcome]]:
    """What the checks of this group say."""
    found: dict[str, list[Outcome]] = {}
    for one in judge(look_around(Scope(app, given)), CHECKS):
        found.setdefault(one.check.id, []).append(one.outcome)
    return found


def verdict(found: dict[str, list[Outcome]], name: str) -> str:
    (only,) = found[f"monitor.{name}"]
    return only.verdict


def app_of(scene: Scene, **settings: Any) -> Celery:
    app = Celery("workload", broker=scene.broker, backend=scene.backend)
    celery_argsize.install(app, **settings)
    return app


def measured(scene: Scene, runs: int) -> None:
    wait_until(lambda: get_size_summary(redis_url=scene.figures_url).total_tasks >= runs, what=f"{runs} runs")


def test_all_is_well_where_tasks_are_measured_and_written(scene: Scene) -> None:
    app = app_of(scene)
    with running(Worker(scene.folder, scene.env(), "--concurrency", "2")):
        for number in range(40):
            scene.send("task_1", number)
        measured(scene, 40)
        found = asked(app)
    assert {outcome.verdict for outcomes in found.values() for outcome in outcomes} == {"ok"}
    assert found["monitor.measuring"][0].subject == "tested@host"
    assert found["monitor.arriving"][0].figure == "40 runs of 1 task name"
    celery_argsize.uninstall(app)


@pytest.mark.slow
def test_an_app_without_install_fails_and_so_does_its_worker(scene: Scene) -> None:
    app = Celery("workload", broker=scene.broker)
    worker = Worker(scene.folder, scene.env({"enabled": False}), "--concurrency", "1")
    with running(worker):
        found = asked(app)
    assert verdict(found, "installed") == "fail"
    assert "celery_argsize.install(app)" in found["monitor.installed"][0].fix
    assert verdict(found, "measuring") == "fail"


@pytest.mark.slow
def test_a_worker_that_writes_under_another_name_is_found_out(scene: Scene) -> None:
    app = app_of(scene)
    with running(Worker(scene.folder, scene.env({"app_name": "other"}), "--concurrency", "1")):
        scene.send("task_1", 1)
        measured(scene, 1)
        found = asked(app)
    assert verdict(found, "arriving") == "fail"
    assert "'other'" in found["monitor.arriving"][0].reason
    celery_argsize.uninstall(app)


@pytest.mark.slow
def test_a_worker_that_writes_under_another_prefix_is_found_out(scene: Scene) -> None:
    app = app_of(scene)
    with running(Worker(scene.folder, scene.env({"key_prefix": "elsewhere"}), "--concurrency", "1")):
        scene.send("task_1", 1)
        wait_until(lambda: get_size_summary(redis_url=scene.broker, key_prefix="elsewhere").total_tasks)
        found = asked(app)
        assert verdict(found, "arriving") == "fail"
        assert verdict(asked(app, key_prefix="elsewhere"), "arriving") == "ok"
    celery_argsize.uninstall(app)


@pytest.mark.slow
def test_a_worker_that_cannot_write_is_found_out(scene: Scene, tmp_path: Path) -> None:
    """Its figures go to a Redis of their own, which dies."""
    folder = tmp_path / "figures"
    folder.mkdir()
    figures = RedisServer(folder)
    figures.start()
    app = app_of(scene, redis_url=figures.url)
    settings = {"redis_url": figures.url, "flush_interval": 0.1}
    with running(Worker(scene.folder, scene.env(settings), "--concurrency", "1")):
        figures.stop()
        scene.send("task_1", 1)

        def said() -> Any:
            answers: Any = app.control.inspect(timeout=1)._request("argsize")
            (answer,) = answers.values()
            return answer["flush_failures"] and answer["waiting"]

        wait_until(said, what="a failed flush")
        (outcome,) = asked(app)["monitor.flushing"]
        assert "1 run waiting" in outcome.figure
        assert outcome.verdict == "fail"  # it never wrote anything
    celery_argsize.uninstall(app)


def test_figures_in_memory_only_are_warned_of() -> None:
    app = Celery("workload", broker="amqp://127.0.0.1:1//")
    celery_argsize.install(app)
    facts = look_around(Scope(app, seconds=1))
    found = {one.check.id: one.outcome.verdict for one in judge(facts, CHECKS)}
    assert found["monitor.installed"] == "warn"
    celery_argsize.uninstall(app)


@pytest.mark.slow
def test_a_setting_that_cannot_work_is_named(scene: Scene) -> None:
    app = app_of(scene)
    app.conf.argsize_flush_interval = "soon"
    found = asked(app)
    assert verdict(found, "installed") == "fail"
    assert "argsize_flush_interval = 'soon'" in found["monitor.installed"][0].reason
    celery_argsize.uninstall(app)


@pytest.mark.slow
def test_eager_tasks_explain_why_nothing_is_collected(scene: Scene) -> None:
    app = app_of(scene)
    app.conf.task_always_eager = True
    assert verdict(asked(app), "arriving") == "warn"
    celery_argsize.uninstall(app)


@pytest.mark.slow
def test_limits_that_are_advised_are_asked_for_until_the_app_has_them(scene: Scene) -> None:
    app = app_of(scene)
    with running(Worker(scene.folder, scene.env(), "--concurrency", "1")):
        for _ in range(40):
            scene.send("task_1", ["song"] * 900)
        measured(scene, 40)
        outcome = asked(app)["monitor.limits"][0]
        assert outcome.verdict == "warn"
        assert "app.amqp.argsrepr_maxsize" in outcome.fix
        exec(outcome.fix, {"app": app})  # noqa: S102 - what a person pastes
        advised, host = asked(app)["monitor.limits"]
        assert advised.verdict == "ok"
        assert host.verdict == "warn"  # the messages so far were made with the old ones
        assert host.subject
    celery_argsize.uninstall(app)


@pytest.mark.slow
def test_names_past_the_cap_are_told(scene: Scene) -> None:
    app = app_of(scene)
    with running(Worker(scene.folder, scene.env({"max_task_names": 1}), "--concurrency", "1")):
        for name in ("task_1", "task_2", "task_3"):
            scene.send(name)
        measured(scene, 3)
        assert verdict(asked(app), "arriving") == "warn"
    celery_argsize.uninstall(app)


@pytest.mark.slow
def test_a_worker_that_is_frozen_is_no_reason_to_wait_for_long(scene: Scene) -> None:
    app = app_of(scene)
    worker = Worker(scene.folder, scene.env(), "--concurrency", "1")
    with running(worker):
        os.kill(worker.process.pid, signal.SIGSTOP)
        try:
            found = diagnose(app, seconds=8)
        finally:
            os.kill(worker.process.pid, signal.SIGCONT)
    said = {one.check.id: one.outcome.verdict for one in found.results}
    assert said["workers.answering"] == "fail"
    assert said["monitor.limits"] == "ok"
    celery_argsize.uninstall(app)


@pytest.mark.slow
def test_the_command_says_the_same(scene: Scene) -> None:
    env = scene.env({"enabled": False})
    done = run(str(BIN / "celery"), "-A", "workload", "argsize", "doctor", "--json", env=env)
    found = {one["id"]: one["verdict"] for one in json.loads(done.stdout)["checks"]}
    assert found["monitor.installed"] == "warn"
