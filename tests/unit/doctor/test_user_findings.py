"""What a new user of `argsize doctor` ran into: alarms that lacked, and alarms that were false. Over facts alone."""

from __future__ import annotations

import time
from typing import Any

import pytest
from celery import Celery
from celery.beat import Scheduler
from support.judging import judged

from celery_argsize.doctor.app import external_scheduler
from celery_argsize.doctor.facts import (
    CeleryProcess,
    Facts,
    HostFacts,
    LookResult,
    Node,
    Scope,
    WorkerFacts,
)

NONE: LookResult[Any] = LookResult(why_not="not looked at")


def app_with(broker: str = "redis://localhost:6379/0", **conf: Any) -> Celery:
    app = Celery("shop", broker=broker, set_as_current=False)
    app.conf.update(conf)

    @app.task(name="t", shared=False)
    def task() -> None:
        """Do nothing."""

    app.finalize()
    return app


def facts(app: Celery, *processes: CeleryProcess, nodes: tuple[Node, ...] = (), **more: Any) -> Facts:
    found = WorkerFacts(**{"nodes": nodes, "port": 6379, "listened": 5.0, **more})
    host = HostFacts(hostname="box", cpus=2, memory_total=8 << 30, processes=processes)
    return Facts(Scope(app), NONE, LookResult(found), NONE, LookResult(host))


def node(name: str = "w@box", pid: int = 10, **more: Any) -> Node:
    return Node(name=name, pid=pid, **{"pool": "prefork", "queues": ("celery",), "uptime": 3600.0, **more})


def process(pid: int, kind: Any = "worker", *, age: float = 3600, **more: Any) -> CeleryProcess:
    values = {"ports": frozenset({6379}), **more}
    return CeleryProcess(pid=pid, ppid=1, kind=kind, app="shop", rss=50 << 20, created=time.time() - age, **values)


# --- settings


@pytest.mark.parametrize(
    ("broker", "limit", "verdict"),
    [
        ("redis://localhost", 1, "warn"),
        ("amqp://localhost", 1, "warn"),
        ("redis://localhost", 2, "ok"),
        ("redis://localhost", None, "ok"),
        ("redis://localhost", 0, "ok"),
        ("sqs://", 1, "ok"),  # there is no remote control that could wait
    ],
)
def test_a_pool_of_one_connection_hangs_remote_control(broker: str, limit: int | None, verdict: str) -> None:
    given = facts(app_with(broker, broker_pool_limit=limit))
    found = judged(given, "settings.broker_pool_limit")[""]
    assert found.verdict == verdict
    assert found.fix == ("app.conf.broker_pool_limit = 2" if verdict == "warn" else "")


def test_a_child_over_the_option_of_its_worker_is_replaced_after_every_task() -> None:
    child = CeleryProcess(pid=11, ppid=10, kind="child", rss=50 << 20, created=time.time())
    busy = node(processes=(11,), concurrency=1)
    given = facts(app_with(), process(10, max_memory=40_000), child, nodes=(busy,))
    found = judged(given, "workers.memory")["w@box"]
    assert (found.verdict, found.figure) == ("warn", "the smallest takes 50.0 MB, the limit is 39.1 MB")
    assert "--max-memory-per-child 102400" in found.fix


def test_sentences_go_with_their_figure() -> None:
    app = app_with(result_backend="redis://localhost:6379/0", task_ignore_result=True)
    app.tasks["t"].ignore_result = True
    assert judged(facts(app), "settings.ignore_result")[""].figure == "0 of 1 task store a result"
    known = judged(facts(app, nodes=(node(),)), "workers.queues")[""]
    assert known.reason == "Every queue that is known is consumed."


# --- Beat


@pytest.mark.parametrize(
    "scheduler",
    [
        "celery.beat.Scheduler",
        "celery.beat:Scheduler",
        "celery.beat.PersistentScheduler",
        "celery.beat:PersistentScheduler",
        Scheduler,
    ],
)
def test_celerys_own_schedulers_keep_no_schedule_of_their_own(scheduler: Any) -> None:
    assert external_scheduler(app_with(beat_scheduler=scheduler)) == ""


SELDOM = {"e": {"task": "t", "schedule": 3600.0}}
HERE, OTHER = "127.0.0.1:5000", "127.0.0.1:5001"


def two_beats(first: tuple[str, str], second: tuple[str, str]) -> list[CeleryProcess]:
    """Beats in these folders, with these ends of their connections."""
    return [
        process(pid, "beat", beat=True, folder=folder, ends=frozenset({end} - {""}))
        for pid, (folder, end) in ((20, first), (21, second))
    ]


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (("/srv/a", HERE), ("/srv/a", HERE), "fail"),  # both are known to be at the database
        (("/srv/a", HERE), ("/srv/a", OTHER), "ok"),  # staging, at another database of the same Redis
        (("/srv/a", HERE), ("/srv/b", HERE), "warn"),  # of two apps, or of one that moved
        (("/srv/a", ""), ("/srv/a", ""), "warn"),  # where Redis does not tell
        (("/srv/a", ""), ("/srv/b", ""), "unknown"),  # such as two projects that are both called config
        (("", ""), ("", ""), "warn"),
    ],
)
def test_two_beats_are_accused_only_where_they_are_known_to_do_the_same(
    first: tuple[str, str], second: tuple[str, str], verdict: str
) -> None:
    ends = {HERE: True, OTHER: False}
    given = facts(app_with(beat_schedule=SELDOM), *two_beats(first, second), nodes=(node(),), ends=ends)
    found = judged(given, "beat.single")[""]
    assert found.verdict == verdict
    assert ("not known" in found.reason) is (verdict in {"warn", "unknown"})


# --- workers that do not answer


@pytest.mark.parametrize(
    ("seen", "age", "verdict"),
    [
        ({}, 20, "unknown"),  # it is starting, or `-P solo` in the app's own words
        ({"pool": "solo"}, 20, "unknown"),
        ({"pool": "solo"}, 3600, "unknown"),
        ({"ports": frozenset()}, 20, "fail"),  # it has not come to this broker yet
        ({}, 3600, "fail"),
        ({"stopped": True}, 20, "fail"),
    ],
)
def test_a_young_or_busy_worker_alone_is_no_proof_that_nobody_is_there(
    seen: dict[str, Any], age: float, verdict: str
) -> None:
    found = judged(facts(app_with(), process(99, age=age, **seen)), "workers.answering")
    assert {outcome.verdict for outcome in found.values()} == {verdict}
    assert ("" in found) is (verdict == "fail")
    assert ("pid 99" in found) is (seen.get("ports") != frozenset())


def test_a_young_worker_that_does_not_answer_is_named_beside_those_that_do() -> None:
    found = judged(facts(app_with(), process(10), process(99, age=20), nodes=(node(),)), "workers.answering")
    assert found["pid 99"].verdict == "unknown"
    assert "solo worker in a task" in found["pid 99"].reason
    assert found[""].verdict == "ok"
