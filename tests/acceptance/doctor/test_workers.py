"""`argsize doctor` on real workers and brokers: each fault is made, and what is well makes no alarm."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from celery import Celery
from support.judging import judged, verdicts
from support.servers import RedisServer, Worker, free_port, run, running, wait_until

from celery_argsize.doctor.examine import LOOKS, look_around
from celery_argsize.doctor.facts import Scope
from celery_argsize.doctor.judge import workers
from celery_argsize.doctor.judge.workers import CHECKS
from celery_argsize.doctor.look.broker import Listener, connection_to, count_queues

if TYPE_CHECKING:
    from pathlib import Path

    import redis
    from support.scene import Scene

    from celery_argsize.doctor.facts import Facts


def facts_of(app: Any, seconds: float = 10, *, redis: bool = True) -> Facts:
    names = ("redis", "workers", "host") if redis else ("workers", "host")
    return look_around(Scope(app, {}, seconds), {name: LOOKS[name] for name in names})


def node(name: str) -> str:
    return f"{name}@{os.uname().nodename}"


def pool_of(worker: Worker) -> list[psutil.Process]:
    children: list[psutil.Process] = psutil.Process(worker.process.pid).children()
    return children


def kombu_keys(client: redis.Redis) -> list[bytes]:
    """All keys but ours, and a lock that kombu takes for a moment at each tenth poll."""
    keys: list[bytes] = client.keys("*")  # type: ignore[assignment, unused-ignore]
    return sorted(key for key in keys if not key.startswith((b"celery-argsize", b"unacked_mutex")))


def own_connections() -> set[int]:
    """The local ports: a test before this one may have left some behind, which end meanwhile."""
    return {connection.laddr.port for connection in psutil.Process().net_connections("tcp") if connection.raddr}


def test_a_sane_worker_makes_no_alarm_and_nothing_stays_behind(scene: Scene, redis_server: RedisServer) -> None:
    options = ("-c", "2", "-n", "one@%h")
    with running(Worker(scene.folder, scene.env(), *options)), redis_server.client() as client:
        scene.send("task_0", 1)
        wait_until(scene.oracle, what="the task")
        scene.producer.send_task("task_1", ("not for the doctor",), countdown=300, ignore_result=True)
        # The worker holds it back from now on: no list of waiting messages is left.
        wait_until(lambda: client.hlen("unacked") == 1 and not client.exists("celery"), what="a message held back")
        keys, connections = kombu_keys(client), own_connections()
        facts = facts_of(scene.producer)
        said = run(sys.executable, "-m", "celery", "-A", "workload", "argsize", "doctor", "--json", env=scene.env())
        wait_until(lambda: kombu_keys(client) == keys, timeout=5, what="a Redis as it was")
        wait_until(lambda: own_connections() <= connections, timeout=5, what="no connection that stays")
    found = {check.id: verdicts(facts, check.id) for check in CHECKS}
    assert all(verdict == "ok" for each in found.values() for verdict in each.values()), found
    (one,) = facts.workers.get().nodes
    assert (one.name, one.pool, one.concurrency, one.queues) == (node("one"), "prefork", 2, ("celery",))
    assert one.totals == {"task_0": 1}
    assert one.longest_eta is not None
    assert 200 < one.longest_eta <= 300
    assert "not for the doctor" not in repr(facts) + said.stdout
    assert one.registered is not None
    assert "task_0" in one.registered
    assert one.argsize is not None
    assert one.argsize["total_tasks"] == 1
    assert len(one.processes) == 2
    shown = {check["id"]: check["verdict"] for check in json.loads(said.stdout)["checks"]}
    assert shown["broker.reachable"] == shown["workers.answering"] == shown["workers.queues"] == "ok"


def test_queues_that_nobody_consumes_and_workers_that_disagree(scene: Scene) -> None:
    app = scene.producer
    app.conf.task_routes = {"task_0": {"queue": "a"}, "task_1": {"queue": "b"}, "task_2": {"queue": "c"}}
    app.send_task("task_1", (1,), ignore_result=True)
    named = {**scene.env(), "TEST_NAMES": json.dumps(["task_0"])}
    with (
        running(Worker(scene.folder, scene.env(), "-c", "1", "-Q", "a", "-n", "one@%h")),
        running(
            Worker(scene.folder, named, "-c", "1", "-Q", "a", "-n", "two@%h", "--without-heartbeat", module="named")
        ),
    ):
        facts = facts_of(app)
    queues = judged(facts, "workers.queues")
    assert {name: one.verdict for name, one in queues.items()} == {"b": "fail", "c": "warn"}
    assert queues["b"].figure == "1 waiting"
    assert "-Q a,b" in queues["b"].fix
    assert verdicts(facts, "workers.registered") == {node("two"): "warn"}
    (answering,) = judged(facts, "workers.answering").values()
    assert answering.verdict == "ok"
    assert f"from {node('two')}" in answering.figure


@pytest.mark.slow
def test_a_stopped_worker_is_named_and_a_busy_solo_one_is_not_accused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "STARTING_SECONDS", 0)
    with (
        running(Worker(scene.folder, scene.env(), "-c", "1", "-n", "one@%h")) as frozen,
        running(Worker(scene.folder, scene.env(), "-P", "solo", "-Q", "b", "-n", "two@%h")) as solo,
    ):
        os.kill(frozen.process.pid, signal.SIGSTOP)
        try:
            scene.producer.send_task("slow", (5,), queue="b", ignore_result=True)
            wait_until(scene.oracle, what="the slow task")
            facts = facts_of(scene.producer, 4)
        finally:
            os.kill(frozen.process.pid, signal.SIGCONT)
    stopped, busy = f"pid {frozen.process.pid}", f"pid {solo.process.pid}"
    found = judged(facts, "workers.answering")
    assert {subject: one.verdict for subject, one in found.items()} == {stopped: "fail", busy: "unknown"}
    assert found[stopped].fix == f"kill -CONT {frozen.process.pid}"


@pytest.mark.slow
def test_children_that_are_replaced_after_every_task_are_told(scene: Scene) -> None:
    limited = ("-c", "1", "-Q", "b", "--max-memory-per-child", "20000", "-n", "two@%h")
    with (
        running(Worker(scene.folder, scene.env(), "-c", "2", "-n", "one@%h")),
        running(Worker(scene.folder, scene.env(), *limited)) as recycling,
    ):
        first = {child.pid for child in pool_of(recycling)}
        scene.producer.send_task("task_0", queue="b", ignore_result=True)
        wait_until(lambda: {child.pid for child in pool_of(recycling)} - first, what="another child")
        scene.producer.conf.worker_max_memory_per_child = None
        memory = judged(facts_of(scene.producer, 4), "workers.memory")
    assert {subject: one.verdict for subject, one in memory.items()} == {"": "ok", node("two"): "warn"}
    assert memory[node("two")].figure.endswith("the limit is 19.5 MB")


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_away_is_told_within_seconds_and_without_secrets(scene: Scene, scheme: str) -> None:
    scene.producer.conf["broker_url"] = f"{scheme}://user:verysecret@127.0.0.1:{free_port()}/0"
    began = time.monotonic()
    facts = facts_of(scene.producer, redis=False)
    assert time.monotonic() - began < 6
    reachable = judged(facts, "broker.reachable")[""]
    assert reachable.verdict == "fail"
    assert "refused" in reachable.reason
    assert "verysecret" not in repr(reachable)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("maxmemory", 1_000_000, "its memory is full"),
        ("requirepass", "verysecret", "wants another user name and password"),
        ("maxclients", 1, "no room for one more client"),
    ],
)
def test_a_redis_that_takes_nothing_says_why(tmp_path: Path, name: str, value: str | int, told: str) -> None:
    server = RedisServer(tmp_path).start()
    try:
        with server.client() as client:
            client.config_set(name, value)
            facts = facts_of(Celery("workload", broker=server.url), redis=False)
    finally:
        server.stop()
    reachable = judged(facts, "broker.reachable")[""]
    assert reachable.verdict == "fail"
    assert told in reachable.reason


@pytest.mark.slow
def test_a_frozen_broker_costs_no_more_than_its_time(tmp_path: Path, scene: Scene) -> None:
    server = RedisServer(tmp_path).start()
    try:
        scene.producer.conf["broker_url"] = server.url
        os.kill(server.pid, signal.SIGSTOP)
        env = {**scene.env(), "TEST_BROKER": server.url}
        began = time.monotonic()
        said = run(
            sys.executable, "-m", "celery", "-A", "workload", "argsize", "doctor", "--json", "--timeout", "6", env=env
        )
        assert time.monotonic() - began < 12
        began = time.monotonic()
        facts = facts_of(scene.producer, 6, redis=False)
        assert time.monotonic() - began < 5
    finally:
        os.kill(server.pid, signal.SIGCONT)
        server.stop()
    reachable = judged(facts, "broker.reachable")[""]
    assert (reachable.verdict, reachable.reason) == ("fail", "No task is sent or run: no answer in time.")
    shown = {check["id"]: check["verdict"] for check in json.loads(said.stdout)["checks"]}
    assert (shown["broker.reachable"], shown["workers.answering"]) == ("fail", "unknown")


@pytest.mark.slow
def test_on_rabbitmq_the_broker_itself_counts_messages_and_consumers(amqp_scene: Scene) -> None:
    app = amqp_scene.producer
    app.conf.task_routes = {"task_1": {"queue": "rabbit_b"}}
    app.send_task("task_1", (1,), ignore_result=True)
    with running(Worker(amqp_scene.folder, amqp_scene.env(), "-c", "1", "-Q", "rabbit_a", "-n", "one@%h")):
        facts = facts_of(app)
    assert verdicts(facts, "broker.reachable") == {"": "ok"}
    assert [one.name for one in facts.workers.get().nodes] == [node("one")]
    assert facts.workers.get().nodes[0].heartbeats
    queues = judged(facts, "workers.queues")
    assert (queues["rabbit_b"].verdict, queues["rabbit_b"].figure) == ("fail", "1 waiting")
    with connection_to(app, 2) as connection:
        listener = Listener(app, connection)
        with listener:
            listener.ask({"ping": {}}, seconds=1)
            names = [queue.name for consumer in listener.consumers for queue in consumer.queues]
            assert len(count_queues(connection, names, math.inf)[0]) == 2
    with connection_to(app, 2) as connection:
        # more than AMQP has channels: none of them is used up
        missing = [f"none_{number}" for number in range(2100)]
        assert count_queues(connection, [*names, *missing], math.inf) == ({}, {})
        assert len(count_queues(connection, names, 0)[1]) == 2
