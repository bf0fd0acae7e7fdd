"""What `argsize doctor` says of what real Redis servers hold: each trouble made, and a sane one without any."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
import redis
from support.redis_doctor import SANE, alarms, app_on, looked, only, program, server_with
from support.scene import Scene
from support.servers import RedisServer, Worker, run, running, stop, wait_until

from celery_argsize.doctor.examine import diagnose
from celery_argsize.doctor.facts import Scope
from celery_argsize.doctor.judge.redis import CHECKS
from celery_argsize.doctor.look.redis import SEPARATOR, look_at_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A program that holds connections: so many that wait, that listen, and that have a name.
HOLDER = """
import socket, sys, time
port, waiting, listening, named = map(int, sys.argv[1:])
kinds = ["BRPOP nothing 0"] * waiting + ["SUBSCRIBE news"] * listening + ["CLIENT SETNAME web"] * named
held = []
for line in kinds:
    held.append(socket.create_connection(("127.0.0.1", port)))
    held[-1].sendall(b"PING\\r\\n")
    assert held[-1].recv(99) == b"+PONG\\r\\n"
    held[-1].sendall(line.encode() + b"\\r\\n")
    assert line.startswith("BRPOP") or held[-1].recv(99)
print("ready", flush=True)
time.sleep(120)
"""


@contextmanager
def holding(server: RedisServer, waiting: int, listening: int = 0, named: int = 0) -> Iterator[int]:
    """Another process has so many connections; its pid."""
    with program(HOLDER, *map(str, (server.port, waiting, listening, named))) as process:
        yield process.pid


def test_a_sane_redis_with_a_worker_at_work_has_no_alarm(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server:
        scene = Scene(tmp_path, server.url, server.url)
        with running(Worker(tmp_path, scene.env(), "-c", "2")):
            for number in range(20):
                scene.producer.send_task("task_1", ("x" * number,))
            wait_until(lambda: len(scene.oracle()) == 20, what="the tasks")
            found = looked(app_on(server.url))
            assert alarms(found) == {}
            assert all(len(said) == 1 for said in found.values()), "one server, whatever it is used for"
            assert "for messages, results, figures" in only(found, "clients").subject
            (facts,) = look_at_redis(Scope(app_on(server.url)))
            assert {"waits for messages (a worker)", "listens for results or remote control"} <= {
                one.activity for one in facts.holders
            }
            assert sum(one.clients for one in facts.holders if one.name == "celery-argsize") == 1
            env = scene.env()
            done = run(sys.executable, "-m", "celery", "-A", "workload", "argsize", "doctor", "--json", env=env)
        said = [one for one in json.loads(done.stdout)["checks"] if one["group"] == "redis"]
        assert {one["id"] for one in said} == {check.id for check in CHECKS}
        assert [one for one in said if one["verdict"] != "ok"] == []


def test_looking_writes_nothing_and_reads_no_message(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server, server.client() as client:
        app_on(server.url).send_task("task_1", ("secret",))
        client.config_resetstat()
        keys = client.dbsize()
        looked(app_on(server.url, f"redis://localhost:{server.port}/3"))
        ran = {name.removeprefix("cmdstat_").lower() for name in client.info("commandstats")}
        allowed = "ping info config|get client|list client|setname client|setinfo hello select scan llen"
        allowed += " echo dbsize hlen zcount zrange pttl config|resetstat"
        assert ran - set(allowed.split()) == set()
        assert client.dbsize() == keys


def test_nineteen_clients_of_twenty_are_told_with_who_they_are(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE, "--maxclients", "20") as server, holding(server, 9, 6, 4):
        every = looked(app_on(server.url, f"redis://localhost:{server.port}/3"))
        assert alarms(every).keys() == {"clients", "forecast"}, "one connection was enough to look"
        found = only(every, "clients")
        assert (found.verdict, found.figure) == ("fail", "19 of 20 clients")
        lines = found.fix.splitlines()
        assert [line.split()[0] for line in lines[1:4]] == ["9", "6", "4"], "the most first"
        assert "waits for messages (a worker)" in lines[1]
        assert "listens for results or remote control" in lines[2]
        assert "web" in lines[3]
        assert all("127.0.0.1" in line for line in lines[1:4])
        assert "celery -A proj argsize doctor --apply-pool-shrink" in lines
    with server_with(tmp_path, *SANE, "--maxclients", "20") as server, holding(server, 16):
        assert only(looked(app_on(server.url)), "clients").verdict == "warn"


def test_the_connections_of_the_doctor_itself_are_not_counted(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE, "--maxclients", "20") as server, holding(server, 15):
        diagnosis = diagnose(app_on(f"{server.url}?client_name=mine"), seconds=4)
        (found,) = [one.outcome for one in diagnosis.results if one.check.id == "redis.clients"]
        assert found.figure == "15 of 20 clients", "though the doctor asked for workers at the same time"


def test_a_redis_that_takes_nobody_anymore_is_told_as_such(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE, "--maxclients", "20") as server, holding(server, 19), ExitStack() as stack:
        last = stack.enter_context(server.client())
        wait_until(lambda: last.info("clients")["connected_clients"] == 20, what="the clients")
        found = looked(app_on(server.url))
        clients = only(found, "clients")
        assert clients.verdict == "fail"
        assert "max number of clients reached" in clients.figure
        assert "refused" in clients.reason
        first, second = clients.fix.splitlines()[:2]
        assert first.startswith("# stop a worker"), "whatever is asked takes a connection"
        assert "CONFIG SET maxclients NUMBER" in second, "nobody could ask how many there are"
        assert only(found, "reachable").verdict == "fail"
        assert only(found, "memory").verdict == "unknown"


def test_what_the_configuration_can_open_is_held_against_maxclients(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE, "--maxclients", "20") as server:
        few = only(looked(app_on(server.url, worker_concurrency=16)), "forecast")
        assert few.verdict == "warn"
        assert "of 20 clients (one worker is assumed, with concurrency 16;" in few.figure
        (broker,) = looked(app_on(server.url, "rpc://", worker_concurrency=1))["forecast"]
        assert broker.verdict in {"ok", "warn"}
    with server_with(tmp_path, *SANE) as server:
        app = app_on(server.url, worker_concurrency=64)
        assert only(looked(app), "forecast").verdict == "ok", "of 10,000"
        said = only(looked(app, max_clients=30), "forecast")
        assert said.verdict == "warn"
        assert "of 30 clients" in said.figure


def fill(client: redis.Redis, length: int) -> None:
    """Write until it takes no more."""
    for _ in range(100_000):
        client.lpush("celery", "x" * length)


def test_a_full_redis_that_refuses_writes_is_told(tmp_path: Path) -> None:
    options = (*SANE, "--maxmemory", "2mb", "--maxmemory-policy", "noeviction")
    with server_with(tmp_path, *options) as server, server.client() as client:
        for length in (10_000, 100, 1):
            with pytest.raises(redis.OutOfMemoryError):
                fill(client, length)
        found = looked(app_on(server.url))
        memory = only(found, "memory")
        assert memory.verdict == "fail"
        assert "OOM command not allowed" in memory.reason
        assert "of 2.0 MB (maxmemory)" in memory.figure


def test_an_evicting_policy_endangers_queues_and_figures(tmp_path: Path) -> None:
    options = (*SANE, "--maxmemory", "2mb", "--maxmemory-policy", "allkeys-lru")
    with server_with(tmp_path, *options) as server, server.client() as client:
        assert only(looked(app_on(server.url)), "memory").verdict == "ok"
        for number in range(300):
            client.set(f"cached-{number}", "x" * 10_000)
        found = looked(app_on(server.url))
        assert only(found, "eviction").verdict == "fail"
        assert "CONFIG SET maxmemory-policy noeviction" in only(found, "eviction").fix
        assert only(found, "memory").verdict == "warn"
        assert "threw keys away" in only(found, "memory").reason
        client.config_resetstat()
        assert only(looked(app_on(server.url)), "memory").verdict == "ok", "it is meant to be full"
        client.config_set("maxmemory-policy", "volatile-lru")
        assert only(looked(app_on(server.url)), "eviction").verdict == "ok"
        client.config_set("maxmemory-policy", "allkeys-lru")
        results = looked(app_on("memory://", server.url, argsize_redis_url="redis://127.0.0.1:1"))["eviction"]
        assert [one.verdict for one in results] == ["warn", "unknown"], "only results"


def test_a_redis_that_saves_nothing_is_told_where_it_carries_messages(tmp_path: Path) -> None:
    with server_with(tmp_path) as server, server.client() as client:
        nothing = only(looked(app_on(server.url)), "persistence")
        assert nothing.verdict == "warn"
        assert only(looked(None, redis_url=server.url), "persistence").verdict == "ok", "no messages there"
        client.config_set("appendonly", "yes")
        assert only(looked(app_on(server.url)), "persistence").verdict == "ok"
        client.config_set("appendonly", "no")
        subprocess.run(["/bin/sh", "-c", nothing.fix], check=True, stdout=subprocess.DEVNULL, timeout=30)
        assert only(looked(app_on(server.url)), "persistence").verdict == "ok"


def test_a_redis_that_cannot_save_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with server_with(tmp_path, *SANE, "--dir", str(tmp_path / "data")) as server, server.client() as client:
        shutil.rmtree(tmp_path / "data")
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", what="the failure")
        found = only(looked(app_on(server.url)), "persistence")
        assert (found.verdict, found.figure) == ("fail", "rdb_last_bgsave_status: err")
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            client.set("a", "b")
        for setting in ("stop-writes-on-bgsave-error", "no"), ("save", ""):
            client.config_set(*setting)
            client.set("a", "b")
            assert only(looked(app_on(server.url)), "persistence").verdict == "warn", "it takes writes"


def test_queues_are_counted_with_all_their_priorities(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server, server.client() as client:
        options = {"global_keyprefix": "mine:", "priority_steps": [0, 5], "sep": ":"}
        app = app_on(server.url, broker_transport_options=options, task_default_queue="ingest")
        for priority in (0, 5, 9):
            app.send_task("task_1", priority=priority)
        (facts,) = look_at_redis(Scope(app))
        assert facts.messages.waiting == {"ingest": 3}
        mine = app_on(server.url, task_routes={"task_3": {"queue": "routed"}}, task_default_queue="default")
        mine.send_task("task_3", priority=9)
        (facts,) = look_at_redis(Scope(mine))
        assert facts.messages.waiting == {"default": 0, "routed": 1}
        assert only(looked(mine), "queues").verdict == "ok"
        with client.pipeline() as pipe:
            for _ in range(10_000):
                pipe.lpush(f"routed{SEPARATOR}3", "x")
            pipe.execute()
        found = only(looked(mine), "queues")
        assert (found.verdict, found.subject) == ("warn", "queue routed")
        assert found.figure == "10,001 messages"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # Celery's
def test_results_that_never_expire_are_told_and_the_fix_makes_them_go(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server, server.client() as client:
        database = server.url.replace("/0", "/2")
        good = app_on(server.url, database)
        for number in range(150):
            good.backend.store_result(f"good-{number}", 1, "SUCCESS")
        assert only(looked(good), "results").figure == "0 of 150 results never expire"
        bad = app_on(server.url, database, result_expires=None)
        for number in range(150):
            bad.backend.store_result(f"bad-{number}", 1, "SUCCESS")
        found = only(looked(bad), "results")
        assert (found.verdict, found.figure) == ("warn", "150 of 300 results never expire")
        assert "app.conf.result_expires = 3600" in found.fix
        assert client.dbsize() == 0, "they are in another database, and were looked for there"
        line = found.fix.splitlines()[-1]
        subprocess.run(["/bin/sh", "-c", line], check=True, stdout=subprocess.DEVNULL, timeout=90)
        assert only(looked(bad), "results").figure == "0 of 300 results never expire"
        with redis.Redis.from_url(database) as there:
            left = [there.ttl(f"celery-task-meta-good-{number}") for number in range(150)]
            assert min(left) > 3600, "those that had an expiry keep it"


#: A program that takes a message, and does not acknowledge it.
TAKER = """
import sys, time
from kombu import Connection
connection = Connection(sys.argv[1])
assert connection.channel().basic_get("celery") is not None
print("ready", flush=True)
time.sleep(120)
"""


def test_messages_whose_worker_is_gone_are_told_once_they_are_overdue(tmp_path: Path) -> None:
    with server_with(tmp_path, *SANE) as server, server.client() as client:
        app = app_on(server.url)
        app.send_task("task_1")
        with program(TAKER, server.url) as taker:
            stop(taker, signal.SIGKILL)
        found = only(looked(app), "queues")
        assert found.verdict == "ok"
        assert "; 1 held by workers, the oldest for " in found.figure
        (tag,) = client.zrange("unacked_index", 0, -1)
        client.zadd("unacked_index", {tag: time.time() - 3 * 3600})
        found = only(looked(app), "queues")
        assert (found.verdict, found.figure.partition("; ")[2]) == ("warn", "1 held by workers, the oldest for 3 hours")
