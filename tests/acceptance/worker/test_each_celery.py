"""What depends on the installed Celery: how it cuts reprs, which limits it knows, and that verify sees them.

With real producers and a real worker. `make test-matrix` runs this on each version of Celery.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import celery
import pytest
from celery import Celery
from support.servers import BIN, Worker, run, running, wait_until

import celery_argsize
from celery_argsize import ReprLimits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.scene import Scene

pytestmark = pytest.mark.smoke

#: Celery has a limit on the levels of all tasks, and cuts between brackets only.
SINCE_5_7 = celery.VERSION >= (5, 7)
COMMAND = [str(BIN / "celery"), "-A", "workload", "argsize"]


def records(count: int) -> list[Any]:
    return [{"id": n, "title": f"Song {n}", "tags": ["rock"]} for n in range(count)]


@pytest.fixture
def on_redis(scene: Scene) -> Iterator[Scene]:
    with running(Worker(scene.folder, scene.env({"flush_interval": 0.05}), "-c", "1", "-l", "ERROR")):
        yield scene


def producer(scene: Scene) -> Celery:
    return Celery("workload", broker=scene.broker, backend=scene.backend, set_as_current=False)


def verdicts(scene: Scene, app: Celery, arguments: dict[str, Any], times: int = 1) -> dict[str, set[str]]:
    """By task name: how *app* cut the header of all *times* runs, as the worker counted it after a reset."""
    celery_argsize.reset_metrics(redis_url=scene.broker)
    for name, argument in arguments.items():
        for _ in range(times):
            app.send_task(name, (argument,), ignore_result=True)

    def all_counted() -> Any:
        summary = celery_argsize.get_size_summary(redis_url=scene.broker)
        return summary if summary.total_tasks == times * len(arguments) else None

    tasks = wait_until(all_counted, what="the figures").tasks
    return {task.name: {cause for cause, runs in task.args.truncated_by.items() if runs == times} for task in tasks}


@pytest.mark.slow
def test_the_verdicts_on_what_this_celery_cuts(on_redis: Scene) -> None:
    sent = {
        "task_0": "Loading...",
        "task_1": "x" * 5000,
        "task_2": [{"id": 1, "tags": ["rock"]}],
        "task_3": records(100),
        "task_4": list(range(3000)),
    }
    cut = {"task_0": set(), "task_1": {"size"}, "task_2": {"depth"}, "task_3": {"both"}, "task_4": {"size"}}
    assert verdicts(on_redis, producer(on_redis), sent) == cut


@pytest.mark.slow
def test_what_is_recommended_for_this_celery_cures(on_redis: Scene) -> None:
    app = producer(on_redis)
    deep, flat = {"task_0": records(100)}, {"task_1": list(range(3000))}
    verdicts(on_redis, app, deep | flat, times=30)
    said = run(*COMMAND, "recommend", env=on_redis.env())
    assert said.returncode == 0, said.stderr
    assert ("Verdict: APPLY these limits" in said.stdout) is SINCE_5_7
    assert ("Verdict: APPLY ONLY FOR THESE TASKS" in said.stdout) is not SINCE_5_7
    done = celery_argsize.auto_configure_celery_limits(app, apply=True)
    assert done.advice.cured == 60
    if SINCE_5_7:
        assert (done.app_limits, dict(done.task_limits)) == (ReprLimits(131_072, levels=4), {})
    else:  # levels can be set for single tasks only
        assert done.task_limits["task_0"].levels == 4
    assert verdicts(on_redis, app, deep | flat) == {"task_0": set(), "task_1": set()}


@pytest.mark.slow
def test_verify_sees_limits_for_one_task_arrive(on_redis: Scene) -> None:
    wanted = {**on_redis.env(), "TEST_AMQP": json.dumps({"argsrepr_maxsize": 131_072})}
    app = producer(on_redis)
    numbers = {"task_0": [*range(3000)]}
    assert verdicts(on_redis, app, numbers) == {"task_0": {"size"}}
    before = run(*COMMAND, "verify", env=wanted)
    assert (before.returncode, "NOT IN FORCE" in before.stdout) == (4, True), before
    celery_argsize.set_repr_limits(app, {"task_0": ReprLimits(args=131_072, levels=9)})
    assert verdicts(on_redis, app, numbers) == {"task_0": set()}
    after = run(*COMMAND, "verify", env=wanted)
    assert (after.returncode, ": in force" in after.stdout) == (0, True), after
