"""What the doctor says of the broker and the workers, where each threshold is: over facts, without any server."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from celery.exceptions import CDeprecationWarning
from kombu import Queue
from support.judging import judged

from celery_argsize.doctor.app import is_of_app, known_queues, queue_of, routed_queues, word_of
from celery_argsize.doctor.errors import why_not
from celery_argsize.doctor.facts import (
    NO_APP,
    CeleryProcess,
    Facts,
    Heartbeat,
    HostFacts,
    LookResult,
    Node,
    Scope,
    Unavailable,
    WorkerFacts,
)
from celery_argsize.doctor.judge.workers import CHECKS
from celery_argsize.doctor.look.workers import look_at_workers
from celery_argsize.doctor.redis_facts import QueueCount, Queues

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome

MIB = 1 << 20
CREATED = time.time() - 3600


def body() -> None:
    """Do nothing."""


def app_with(*tasks: str, **conf: Any) -> Celery:
    app = Celery("proj", broker="memory://", set_as_current=False)
    app.conf.update(conf)
    for name in tasks:
        app.task(name=name, shared=False)(body)
    app.finalize()
    return app


def facts(
    *nodes: Node, app: Celery | None = None, host: HostFacts | None = None, redis: Any = None, **more: Any
) -> Facts:
    found = WorkerFacts(**{"nodes": nodes, "listened": 2.5, "port": 6379, **more})
    where = Scope(app or app_with())
    none: LookResult[Any] = LookResult(why_not="not looked at")
    return Facts(
        where, none if redis is None else LookResult(redis), LookResult(found), none, LookResult(host) if host else none
    )


def here(*processes: CeleryProcess, **more: Any) -> HostFacts:
    return HostFacts(**{"hostname": "box", "cpus": 2, "processes": processes, **more})


def process(
    pid: int, ppid: int = 1, kind: Any = "worker", rss: int = 100, *, age: float = 0, **more: Any
) -> CeleryProcess:
    return CeleryProcess(pid=pid, ppid=ppid, kind=kind, rss=rss * MIB, created=CREATED + age, **{"app": "proj", **more})


def prefork(count: int, pid: int = 10, **more: Any) -> Node:
    pids = tuple(range(pid + 1, pid + 1 + count))
    values = {"name": f"w{pid}@box", "pid": pid, "pool": "prefork", "concurrency": count, "processes": pids}
    return Node(**{**values, "queues": ("celery",), "uptime": 3600.0, **more})


def pool(node: Node, *rss: int, main: int = 100) -> list[Any]:
    children = zip(node.processes, rss, strict=True)
    return [process(node.pid, rss=main), *(process(pid, node.pid, "child", size) for pid, size in children)]


def test_nothing_is_asked_without_an_app() -> None:
    with pytest.raises(Unavailable, match=NO_APP):
        look_at_workers(Scope(None))


@pytest.mark.parametrize("name", [check.id for check in CHECKS])
def test_where_the_broker_is_away_nothing_else_accuses_anybody(name: str) -> None:
    with pytest.raises(Unavailable, match="connection refused"):
        judged(facts(broker_error="connection refused"), name)


def test_an_error_is_told_in_words_of_our_own() -> None:
    told = why_not(ConnectionError("Error 111 connecting to redis://:hunter2@host. Connection refused."))
    assert told == "connection refused: nothing listens there"
    assert why_not(ValueError("hunter2")) == "ValueError"


def test_too_little_time_is_no_proof_that_nobody_is_there() -> None:
    with pytest.raises(Unavailable, match="too little time"):
        judged(facts(listened=0.5), "workers.answering")
    assert judged(facts(listened=4.5), "workers.answering")[""].verdict == "fail"
    off = judged(facts(app=app_with(worker_enable_remote_control=False)), "workers.answering")[""]
    assert off.verdict == "unknown"
    assert "worker_enable_remote_control" in off.reason


def test_two_workers_of_one_name_are_told() -> None:
    found = judged(facts(prefork(1), shared_names=("w10@box",)), "workers.answering")
    assert [found[""].verdict, found["w10@box"].verdict] == ["ok", "warn"]
    assert "-n worker1@%h" in found["w10@box"].fix


def silent(**more: Any) -> dict[str, Outcome]:
    stuck = process(99, **{"ports": frozenset({6379}), **more})
    return judged(facts(prefork(1), host=here(process(10), process(11, 10, "child"), stuck)), "workers.answering")


def test_a_process_that_does_not_answer_is_accused_only_where_it_is_ours() -> None:
    assert silent()["pid 99"].verdict == "fail"
    assert "py-spy dump --pid 99" in silent()["pid 99"].fix
    assert silent(ports=None)["pid 99"].verdict == "fail"
    assert silent(stopped=True)["pid 99"].fix == "kill -CONT 99"
    assert silent(pool="solo")["pid 99"].verdict == "unknown"
    for fine in (
        silent(ports=frozenset({5672})),  # at another broker
        silent(app="other"),
        silent(ports=frozenset(), age=7200),  # it is starting, whenever this runs
    ):
        assert [outcome.verdict for outcome in fine.values()] == ["ok"]


def test_a_worker_that_does_not_answer_may_be_the_one_for_a_queue() -> None:
    app = app_with("a", task_routes={"a": "later"})
    given = {
        ports: facts(prefork(1), app=app, host=here(process(10), process(99, ports=frozenset({ports}))))
        for ports in (6379, 5672)
    }
    assert judged(given[6379], "workers.queues")["later"].verdict == "unknown"
    assert judged(given[5672], "workers.queues")["later"].verdict == "warn"  # it is at another broker


def test_a_worker_whose_heartbeat_is_heard_must_answer() -> None:
    found = judged(facts(prefork(1), silent=("deaf@box",)), "workers.answering")
    assert (found[""].verdict, found["deaf@box"].verdict) == ("ok", "fail")
    alone = judged(facts(silent=("deaf@box",)), "workers.answering")
    assert (alone[""].verdict, alone["deaf@box"].verdict) == ("fail", "fail")


def beat(at: float, every: float = 2) -> Heartbeat:
    return Heartbeat(CREATED + at, every)


@pytest.mark.parametrize(
    ("beats", "verdict"),
    [
        ((beat(0), beat(2)), "ok"),
        ((), "ok"),  # --without-heartbeat
        ((beat(0), beat(4.9)), "ok"),
        ((beat(0), beat(5.1)), "warn"),
    ],
)
def test_heartbeats_that_come_late(beats: tuple[Heartbeat, ...], verdict: str) -> None:
    found = judged(facts(prefork(1, heartbeats=beats)), "workers.answering")
    assert found.pop("").verdict == "ok"
    assert [(subject, outcome.verdict) for subject, outcome in found.items()] == [("w10@box", "warn")] * (
        verdict == "warn"
    )


def test_workers_on_a_queue_know_the_same_of_what_is_sent_there() -> None:
    app = app_with("a", "b", "c", task_routes={"c": {"queue": "other"}})
    old = prefork(1, 10, registered=("a",))
    new = prefork(1, 20, registered=("a", "b", "c"))
    found = judged(facts(old, new, app=app), "workers.registered")
    assert found["w10@box"].figure == "1 unknown on queue celery: b"  # c never comes there
    assert list(found) == ["w10@box"]
    apart = prefork(1, 20, registered=("a", "b", "c"), queues=("other",))
    assert judged(facts(old, apart, app=app), "workers.registered")[""].verdict == "ok"


# --- pools


@pytest.mark.parametrize(("count", "cpus", "verdict"), [(8, 1, "ok"), (9, 1, "warn"), (16, 4, "ok"), (17, 4, "warn")])
def test_prefork_children_against_the_cpus(count: int, cpus: int, verdict: str) -> None:
    assert judged(facts(prefork(count), host=here(cpus=cpus)), "workers.concurrency")[""].verdict == verdict


def test_green_threads_and_other_machines_are_not_held_against_these_cpus() -> None:
    green = Node(name="g@box", pool="gevent", concurrency=1000)
    assert judged(facts(green, host=here(cpus=1)), "workers.concurrency")[""].verdict == "ok"
    far = prefork(64, name="w@far")
    assert judged(facts(far, host=here(cpus=1)), "workers.concurrency")[""].verdict == "ok"


@pytest.mark.parametrize(
    ("rss", "verdict"), [((100, 100, 100, 100), "ok"), ((100, 100, 100, 240), "ok"), ((100, 100, 100, 350), "warn")]
)
def test_memory_where_every_child_grew_like_the_biggest(rss: tuple[int, ...], verdict: str) -> None:
    node = prefork(4)
    found = judged(facts(node, host=here(*pool(node, *rss), memory_total=1000 * MIB)), "workers.memory")[""]
    assert found.verdict == verdict
    assert ("worker_max_memory_per_child" in found.fix) is (verdict == "warn")


def test_a_limit_below_what_a_child_takes_at_birth() -> None:
    node = prefork(2)
    host = here(*pool(node, 120, 130), memory_total=8000 * MIB)
    limits = {
        kib: judged(facts(node, host=host, app=app_with(worker_max_memory_per_child=kib)), "workers.memory")
        for kib in (100_000, 200_000)
    }
    assert limits[100_000]["w10@box"].figure == "the smallest takes 120.0 MB, the limit is 97.7 MB"
    assert "w10@box" not in limits[200_000]


def test_the_memory_of_other_machines_is_not_judged() -> None:
    found = judged(facts(prefork(2, name="w@far"), host=here(memory_total=MIB)), "workers.memory")
    assert {subject: outcome.verdict for subject, outcome in found.items()} == {"w@far": "ok"}


def test_pools_are_not_known_without_psutil() -> None:
    found = judged(facts(prefork(1), host=here(psutil_missing=True)), "workers.memory")[""]
    assert found.verdict == "unknown"
    assert "pip install" in found.fix


# --- queues


def server(**queues: int) -> tuple[Any, ...]:
    return (SimpleNamespace(roles={"messages"}, error="", messages=Queues(queues)),)


def test_the_default_queue_is_no_trouble_before_something_waits_there() -> None:
    node = prefork(1, queues=("work",))
    unused = app_with(task_default_queue="celery")
    assert judged(facts(node, app=unused, redis=server(celery=0)), "workers.queues")[""].verdict == "ok"
    used = app_with("debug_task")
    assert judged(facts(node, app=used, redis=server(celery=0)), "workers.queues")[""].verdict == "ok"
    found = judged(facts(node, app=used, redis=server(celery=1200)), "workers.queues")["celery"]
    assert (found.verdict, found.figure) == ("fail", "1,200 waiting")


def test_queues_of_another_app_and_celerys_own() -> None:
    node = prefork(1)
    names = {"other": 3, "x.reply.celery.pidbox": 3, "celeryev.y": 2, "idle": 0}
    assert list(judged(facts(node, redis=server(**names)), "workers.queues")) == ["other"]


def test_what_a_deaf_worker_consumes_is_not_known_but_to_the_broker_itself() -> None:
    app = app_with("a", task_routes={"a": {"queue": "deaf"}})
    deaf = ("deaf@box",)
    found = judged(facts(prefork(1), app=app, redis=server(deaf=3), silent=deaf), "workers.queues")
    assert found["deaf"].verdict == "unknown"
    counted = {"deaf": QueueCount(3, 1)}
    assert list(judged(facts(prefork(1), app=app, silent=deaf, counted=counted), "workers.queues")) == [""]
    counted = {"deaf": QueueCount(3, 0)}
    assert judged(facts(prefork(1), app=app, silent=deaf, counted=counted), "workers.queues")["deaf"].verdict == "fail"


def test_of_queues_that_were_not_counted_nothing_is_said_but_why() -> None:
    app = app_with("a", task_routes={"a": {"queue": "far"}})
    (outcome,) = judged(
        facts(prefork(1), app=app, uncounted={"far": "too slow", "celery": "too slow"}), "workers.queues"
    ).values()
    assert outcome.verdict == "unknown"
    assert "consumes far," in outcome.reason
    assert "too slow" in outcome.reason


def test_a_queue_with_a_name_for_the_shell_is_quoted() -> None:
    found = judged(facts(prefork(1), redis=server(**{"a; rm -rf ~": 1})), "workers.queues")["a; rm -rf ~"]
    assert "control add_consumer 'a; rm -rf ~'" in found.fix


def test_the_queues_of_an_app_in_all_ways_to_name_one() -> None:
    def router(name: str, *_: Any, **__: Any) -> Any:
        if name == "broken":
            raise RuntimeError
        return {"queue": "by_function"} if name == "routed" else None

    app = app_with(
        "plain",
        "patterned.x",
        "routed",
        "broken",
        task_queues=[Queue("celery"), Queue("declared")],
        task_create_missing_queues=True,
        task_routes=[router, {"patterned.*": "by_pattern"}],
        beat_schedule={"e": {"task": "elsewhere", "schedule": 1, "options": {"queue": "by_beat"}}, "odd": {}},
    )
    with pytest.warns(CDeprecationWarning, match="'queue' task attribute"):  # deprecated, and in force
        app.task(name="own", queue="by_task", shared=False)(body)
    assert queue_of(app, "own") == "by_task"
    assert queue_of(app, "plain") == "celery"
    assert queue_of(app, "broken") is None
    named = {"by_function", "by_pattern", "by_beat", "by_task"}
    assert named <= set(routed_queues(app))
    assert {"declared", "celery", *named} <= known_queues(app)
    assert "celery" not in routed_queues(app)


# --- what -A says


def test_the_word_behind_dash_a(monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_with()
    monkeypatch.setitem(__import__("sys").modules, "site.celery", SimpleNamespace(made=app))
    assert [word for word in ("proj", "proj:app", "site", "site.celery", "other", "") if is_of_app(app, word)] == [
        "proj",
        "proj:app",
        "site",
        "site.celery",
    ]
    assert word_of(app) == "proj"
    app.main = "__main__"
    assert word_of(app) == "proj"
    app.main = "site"
    assert word_of(app) == "site.celery"
