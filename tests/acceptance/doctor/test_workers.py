"""`argsize doctor` on real workers and brokers: each fault is made, and what is well makes no alarm."""

from __future__ import annotations

import json
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

from celery_argsize.doctor.facts import Facts, LookResult, Scope
from celery_argsize.doctor.judge import queues as silence, workers as pool_checks, workers as worker_checks
from celery_argsize.doctor.look.broker import connection_to, count_queues
from celery_argsize.doctor.look.host import look_at_host
from celery_argsize.doctor.look.redis import look_at_redis
from celery_argsize.doctor.look.workers import Listener, look_at_workers

if TYPE_CHECKING:
    from pathlib import Path

    import redis
    from support.scene import Scene


def facts_of(app: Any, seconds: float = 10, *, redis: bool = True) -> Facts:
    where = Scope(app, {}, seconds)
    return Facts(
        where,
        LookResult(look_at_redis(where)) if redis else LookResult(why_not="not asked"),
        LookResult(look_at_workers(where)),
        LookResult(why_not="not asked"),
        LookResult(look_at_host(where)),
    )


def node(name: str) -> str:
    return f"{name}@{os.uname().nodename}"


def pool_of(worker: Worker) -> list[psutil.Process]:
    children: list[psutil.Process] = psutil.Process(worker.process.pid).children()
    return children


def kombu_keys(client: redis.Redis) -> list[bytes]:
    keys: list[bytes] = client.keys("*")  # type: ignore[assignment, unused-ignore]
    return sorted(key for key in keys if not key.startswith(b"celery-argsize"))


def own_connections() -> int:
    return len([one for one in psutil.Process().net_connections("tcp") if one.raddr])


def test_a_sane_worker_makes_no_alarm_and_nothing_stays_behind(scene: Scene, redis_server: RedisServer) -> None:
    options = ("-c", "2", "-n", "one@%h")
    with running(Worker(scene.folder, scene.env(), *options)), redis_server.client() as client:
        scene.send("task_0", 1)
        wait_until(scene.oracle, what="the task")
        scene.producer.send_task("task_1", ("not for the doctor",), countdown=300, ignore_result=True)
        before = kombu_keys(client), own_connections()
        facts = facts_of(scene.producer)
        said = run(sys.executable, "-m", "celery", "-A", "workload", "argsize", "doctor", "--json", env=scene.env())
        wait_until(lambda: (kombu_keys(client), own_connections()) == before, timeout=5, what="a Redis as it was")
    found = {check.id: verdicts(facts, check.id) for check in worker_checks.CHECKS}
    assert all(verdict == "ok" for each in found.values() for verdict in each.values()), found
    (one,) = facts.workers.get().nodes
    assert (one.name, one.pool, one.concurrency, one.queues) == (node("one"), "prefork", 2, ("celery",))
    assert one.totals == {"task_0": 1}
    assert one.longest_active == 0
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
    beats = judged(facts, "workers.heartbeats")[""]
    assert beats.verdict == "ok"
    assert f"from {node('two')}" in beats.figure


@pytest.mark.slow
def test_a_stopped_worker_is_named_and_a_busy_solo_one_is_not_accused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "STARTING_SECONDS", 0)
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
    assert verdicts(facts, "workers.answering") == {f"pid {solo.process.pid}": "unknown"}
    silent = judged(facts, "workers.silent")
    assert silent[f"pid {frozen.process.pid}"].verdict == "fail"
    assert silent[f"pid {frozen.process.pid}"].fix == f"kill -CONT {frozen.process.pid}"
    assert silent[f"pid {solo.process.pid}"].verdict == "unknown"


@pytest.mark.slow
def test_children_that_were_killed_are_told_from_those_that_were_recycled(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_checks, "REPLACED_SECONDS", 1.0)
    limited = ("-c", "1", "-Q", "b", "--max-memory-per-child", "20000", "-n", "two@%h")
    with (
        running(Worker(scene.folder, scene.env(), "-c", "2", "-n", "one@%h")) as plain,
        running(Worker(scene.folder, scene.env(), *limited)) as recycling,
    ):
        started, first = time.time(), {child.pid for child in pool_of(recycling)}
        wait_until(lambda: time.time() > started + 4, what="children of some age")
        assert set(verdicts(facts_of(scene.producer, 4), "workers.restarts").values()) == {"ok"}
        scene.send("killed")
        scene.producer.send_task("task_0", queue="b", ignore_result=True)
        wait_until(lambda: max(child.create_time() for child in pool_of(plain)) > started + 3, what="another child")
        wait_until(lambda: {child.pid for child in pool_of(recycling)}.isdisjoint(first), what="a recycled child")
        scene.producer.conf.worker_max_memory_per_child = None
        facts = facts_of(scene.producer, 4)
        scene.producer.conf.worker_max_memory_per_child = 20000  # as the second one was told
        memory = judged(facts, "workers.memory")
        scene.producer.conf.worker_max_memory_per_child = None
    found = judged(facts, "workers.restarts")
    assert found[node("one")].verdict == "warn"
    assert found[node("one")].figure == "1 of 2 children started later"
    assert found[node("two")].verdict == "ok"
    assert found[node("two")].figure == "1 of 1 children started later"
    assert memory[node("two")].verdict == "warn"
    assert memory[node("two")].figure.endswith("the limit is 20 MiB")


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
        ("requirepass", "verysecret", "wants a password"),
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
            assert len(count_queues(connection, names)[0]) == 2
    with connection_to(app, 2) as connection:
        # more than AMQP has channels: none of them is used up
        counted, left = count_queues(connection, [*names, *(f"none_{number}" for number in range(2100))])
        assert counted == {}
        assert (len(left), {*left.values()}) == (102, {"only 2,000 queues are counted"})
        assert len(count_queues(connection, names, until=0)[1]) == 2
