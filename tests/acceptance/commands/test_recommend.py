"""Advice in the real world: what is advised publishes and runs, what is called harmful breaks, and verify tells."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from amqp.exceptions import FrameError
from celery import Celery
from celery.utils.saferepr import saferepr
from support.servers import BIN, Worker, run, running, wait_until

import celery_argsize
from celery_argsize import ReprLimits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess

    from support.scene import Scene

    from celery_argsize import TaskAdvice

HOST = socket.gethostname()


def records(count: int) -> list[Any]:
    return [{"id": n, "title": f"Song {n}", "tags": ["rock"]} for n in range(count)]


def send(scene: Scene, app: Celery, name: str, argument: Any, times: int = 30) -> None:
    """Send, and wait until all have run and are in the figures."""
    before, counted = len(scene.oracle()), total(scene)
    for _ in range(times):
        app.send_task(name, (argument,), ignore_result=True, retry=False)
    wait_until(lambda: len(scene.oracle()) >= before + times, what=f"{times} tasks")
    wait_until(lambda: total(scene) >= counted + times, what=f"{times} tasks in the figures")


def total(scene: Scene) -> int:
    return celery_argsize.get_size_summary(redis_url=scene.figures_url).total_tasks


def truncated(scene: Scene) -> dict[str, int]:
    summary = celery_argsize.get_size_summary(redis_url=scene.figures_url)
    return {task.name: task.truncated for task in summary.tasks}


def fresh(scene: Scene) -> Celery:
    return Celery("workload", broker=scene.broker, backend=scene.backend, set_as_current=False)


def advice_for(app: Celery, scene: Scene, name: str) -> TaskAdvice:
    advice = celery_argsize.get_advice(app, redis_url=scene.figures_url)
    return next(task for task in advice.tasks if task.name == name)


@pytest.fixture
def on_redis(scene: Scene, redis_url: str) -> Iterator[Scene]:
    scene.figures_url = redis_url
    with running(Worker(scene.folder, scene.env({"flush_interval": 0.05}), "-c", "2", "-l", "ERROR")):
        yield scene


@pytest.fixture
def on_rabbitmq(amqp_scene: Scene, redis_url: str) -> Iterator[Scene]:
    amqp_scene.figures_url = redis_url
    env = amqp_scene.env({"flush_interval": 0.05, "redis_url": redis_url})
    with running(Worker(amqp_scene.folder, env, "-c", "2", "-l", "ERROR")):
        yield amqp_scene


@pytest.mark.slow
def test_what_is_advised_cures_on_redis(on_redis: Scene) -> None:
    app = fresh(on_redis)
    send(on_redis, app, "task_0", records(100))
    send(on_redis, app, "task_1", "short")
    assert truncated(on_redis) == {"task_0": 30, "task_1": 0}
    seen = {task.name: task.args for task in celery_argsize.get_size_summary(redis_url=on_redis.figures_url).tasks}
    assert seen["task_0"].truncated_by == {"size": 0, "depth": 0, "both": 30}
    whole = len(saferepr((records(100),), None, 0))
    assert (seen["task_0"].need.max, seen["task_0"].need.p99, seen["task_0"].need.levels) == (whole, whole, 4)
    assert (seen["task_1"].need.max, seen["task_1"].need.levels) == (len("('short',)"), 0)
    done = celery_argsize.auto_configure_celery_limits(app, apply=True)
    assert (done.advice.verdict, done.app_limits, dict(done.refused)) == ("apply", ReprLimits(131_072, levels=4), {})
    assert (done.advice.truncated, done.advice.cured) == (30, 30)
    celery_argsize.reset_metrics(app)
    send(on_redis, app, "task_0", records(100))
    assert truncated(on_redis) == {"task_0": 0}


@pytest.mark.slow
def test_what_is_advised_publishes_and_runs_on_rabbitmq(on_rabbitmq: Scene) -> None:
    app = fresh(on_rabbitmq)
    send(on_rabbitmq, app, "task_0", records(100))
    done = celery_argsize.auto_configure_celery_limits(app, apply=True, redis_url=on_rabbitmq.figures_url)
    assert done.app_limits == ReprLimits(16 * 1024, levels=4)
    celery_argsize.reset_metrics(redis_url=on_rabbitmq.figures_url)
    send(on_rabbitmq, app, "task_0", records(100))
    assert truncated(on_rabbitmq) == {"task_0": 0}
    # and what outgrows the limit is cut, but breaks nothing
    send(on_rabbitmq, app, "task_0", records(20_000), times=1)
    assert truncated(on_rabbitmq) == {"task_0": 1}


@pytest.mark.slow
def test_the_tightest_limits_that_are_advised_still_publish_on_rabbitmq(on_rabbitmq: Scene) -> None:
    app = fresh(on_rabbitmq)
    for name, text in (("task_0", "x" * 118_000), ("task_1", "é" * 59_000), ("task_2", "語" * 39_000)):
        send(on_rabbitmq, app, name, text)
        task = advice_for(app, on_rabbitmq, name)
        assert task.limits is not None, task.reasons
        limited = fresh(on_rabbitmq)
        celery_argsize.set_repr_limits(limited, {name: task.limits})
        send(on_rabbitmq, limited, name, text * 3, times=1)


@pytest.mark.slow
@pytest.mark.parametrize("harmful", ["args", "both"])
def test_what_is_called_harmful_breaks_the_producer_on_rabbitmq(on_rabbitmq: Scene, harmful: str) -> None:
    app = fresh(on_rabbitmq)
    text = "x" * (140_000 if harmful == "args" else 70_000)
    call: Any = ((text,), {}) if harmful == "args" else ((text,), {"more": text})
    for _ in range(30):
        app.send_task("task_0", *call, ignore_result=True)
    wait_until(lambda: total(on_rabbitmq) >= 30, what="the figures")
    task = advice_for(app, on_rabbitmq, "task_0")
    assert task.limits is None
    assert "131,064 bytes" in task.reasons[0]
    done = celery_argsize.auto_configure_celery_limits(app, apply=True, redis_url=on_rabbitmq.figures_url)
    assert (done.app_limits, dict(done.task_limits), [*done.refused]) == (None, {}, ["task_0"])
    app.send_task("task_0", *call, ignore_result=True, retry=False)  # as before: it is cut, and sent
    forced = celery_argsize.auto_configure_celery_limits(app, apply=True, force=True, redis_url=on_rabbitmq.figures_url)
    assert "131,064 bytes" in forced.refused["task_0"]
    assert forced.task_limits["task_0"].args >= len(text)
    with app.connection_for_write() as held:
        app.send_task("task_0", call[0], call[1], connection=held, ignore_result=True, retry=False)
        with pytest.raises(FrameError, match="frame_too_large"):
            held.drain_events(timeout=10)  # the broker's answer


# -- verify ------------------------------------------------------------------------------------------------------------


def verify(scene: Scene, limits: dict[str, int], *options: str) -> CompletedProcess[str]:
    env = {**scene.env(), "TEST_AMQP": json.dumps(limits)}
    return run(str(BIN / "celery"), "-A", "workload", "argsize", "verify", *options, env=env)


def test_verify_tells_whether_the_limits_have_arrived(on_redis: Scene) -> None:
    wanted = {"argsrepr_maxsize": 131_072}
    nothing = verify(on_redis, wanted)
    assert nothing.returncode == 1, nothing.stderr
    assert "No message was seen" in nothing.stdout

    old, new = fresh(on_redis), fresh(on_redis)
    new.amqp.argsrepr_maxsize = 131_072
    send(on_redis, old, "task_0", "few", times=1)
    assert "nothing seen that tells" in verify(on_redis, wanted).stdout

    send(on_redis, old, "task_0", [1] * 3000, times=1)
    before = verify(on_redis, wanted)
    assert before.returncode == 4, before.stderr
    assert f"{HOST}: NOT IN FORCE" in before.stdout
    assert "task_0 args: cut at 1,0" in before.stdout
    assert verify(on_redis, {}).returncode == 1, "the limit that is in force is the one that is wanted"

    send(on_redis, new, "task_0", [1] * 3000, times=1)
    after = verify(on_redis, wanted, "--json")
    assert after.returncode == 0, after.stdout
    (host,) = json.loads(after.stdout)
    assert (host["host"], host["verdict"]) == (HOST, "in_force")
    assert host["findings"][0]["text"] == "a repr of 9,003 characters came whole"

    send(on_redis, old, "task_0", [1] * 3000, times=1)  # somebody forgot one
    assert verify(on_redis, wanted, "--minutes", "10").returncode == 4
    celery_argsize.reset_metrics(old)
    assert verify(on_redis, wanted).returncode == 1


@pytest.mark.slow
def test_verify_without_an_app(on_redis: Scene) -> None:
    done = run(str(BIN / "celery"), "argsize", "verify", env=on_redis.env())
    assert done.returncode == 2
    assert "celery -A proj argsize verify" in done.stderr


# -- recommend ---------------------------------------------------------------------------------------------------------


def test_recommend_for_people_and_for_programs(on_redis: Scene) -> None:
    command = [str(BIN / "celery"), "-A", "workload", "argsize", "recommend"]
    nothing = run(*command, env=on_redis.env())
    assert (nothing.returncode, "install(app)" in nothing.stdout) == (1, True)
    send(on_redis, fresh(on_redis), "task_0", records(100))
    done = run(*command, env=on_redis.env())
    assert done.returncode == 0, done.stderr
    assert "Verdict: APPLY these limits" in done.stdout
    assert "    app.amqp.argsrepr_maxsize = 131072" in done.stdout
    assert "Broker: redis" in done.stdout
    data = json.loads(run(*command, "--json", "--broker", "amqp", env=on_redis.env()).stdout)
    assert data["tasks"]["task_0"]["parts"][0]["limit"] == 16_384
    assert data["tasks"]["task_0"]["cost"]["publish_seconds"] > 0
    report = run(*command[:-1], "report", env=on_redis.env()).stdout
    assert "What cures it: APPLY these limits, for all tasks (of 30 seen truncated, 30 would be whole)" in report
