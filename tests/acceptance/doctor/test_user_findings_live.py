"""What a new user of `argsize doctor` ran into, made real: what hangs does hang, and each broken broker says why."""

from __future__ import annotations

import ssl
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from support.beats import beat, look_at_our_host
from support.judging import judged
from support.redis_kinds import Authority, TlsServer, started
from support.servers import RedisServer, Worker, run, running, wait_until

from celery_argsize.doctor.facts import Facts, LookResult, Scope
from celery_argsize.doctor.look.workers import look_at_workers

if TYPE_CHECKING:
    from pathlib import Path

    from support.scene import Scene
    from support.servers import RabbitServer

    from celery_argsize.doctor.checks import Outcome

NONE: LookResult[Any] = LookResult(why_not="not asked")


def facts_of(app: Celery, seconds: float = 6) -> Facts:
    app.finalize()
    where = Scope(app, {}, seconds)
    return Facts(where, NONE, LookResult(look_at_workers(where)), NONE, LookResult(look_at_our_host(where)))


@pytest.mark.slow
def test_what_a_pool_of_one_and_a_limit_in_bytes_really_do(scene: Scene) -> None:
    command = (sys.executable, "-m", "celery", "-A", "workload", "inspect", "ping")
    options = ("-c", "1", "-n", "one@%h", "--max-memory-per-child", "524288000")
    with running(Worker(scene.folder, scene.env(), *options)):
        said = run(*command, env=scene.env(conf={"broker_pool_limit": 2}))
        assert "pong" in said.stdout
        with pytest.raises(subprocess.TimeoutExpired):
            run(*command, env=scene.env(conf={"broker_pool_limit": 1}), timeout=6)
        scene.producer.conf.broker_pool_limit = 1
        facts = facts_of(scene.producer)
    assert judged(facts, "settings.broker_pool_limit")[""].verdict == "warn"
    (one,) = facts.workers.get().nodes
    found = judged(facts, "settings.max_memory")
    assert (found[one.name].verdict, found[""].verdict) == ("fail", "ok")
    assert "--max-memory-per-child 512000" in found[one.name].fix


@pytest.mark.slow
def test_a_young_solo_worker_in_a_task_is_seen(scene: Scene) -> None:
    with running(Worker(scene.folder, scene.env(conf={"worker_pool": "solo"}), "-n", "two@%h")) as solo:
        scene.producer.send_task("slow", (6,), ignore_result=True)
        wait_until(scene.oracle, what="the slow task")
        facts = facts_of(scene.producer, 4)
    (found,) = judged(facts, "workers.answering").values()
    assert (found.verdict, found.subject) == ("unknown", f"pid {solo.process.pid}")


@pytest.mark.slow
def test_a_beat_at_another_database_of_the_same_redis_is_none_of_ours(scene: Scene, tmp_path: Path) -> None:
    scene.producer.conf.beat_schedule = {"tomorrow": {"task": "task_2", "schedule": 86400.0}}
    once = {"beat_schedule": {"now": {"task": "task_0", "schedule": 1.0}}}  # so that the test sees it send
    staging = {**scene.env(conf=once), "TEST_BROKER": scene.broker[:-1] + "5", "TEST_BACKEND": scene.broker[:-1] + "6"}
    with (
        running(Worker(scene.folder, scene.env(), "-c", "1", "-n", "one@%h")),
        beat(tmp_path / "first", scene.env(conf=once)) as first,
        beat(tmp_path / "staging", staging),
    ):
        alone = judged(facts_of(scene.producer), "beat.single")[""]
        with beat(tmp_path / "second", scene.env(conf=once)) as second:
            two = judged(facts_of(scene.producer), "beat.single")[""]
    assert (alone.verdict, alone.figure) == ("ok", f"pid {first.pid}")
    assert two.verdict == "fail"
    assert all(str(process.pid) in two.figure for process in (first, second))


# --- brokers that cannot be used


def unreachable(url: str, **conf: Any) -> Outcome:
    app = Celery("workload", broker=url, set_as_current=False)
    app.conf.update(conf)
    where = Scope(app, {}, 5)
    found = judged(Facts(where, workers=LookResult(look_at_workers(where))), "broker.reachable")
    (outcome,) = found.values()
    assert outcome.verdict == "fail"
    assert "verysecret" not in repr(outcome)
    return outcome


@pytest.mark.slow
def test_each_trouble_with_a_redis_has_words_and_a_fix_of_its_own(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    server = RedisServer(folders[0])
    with ExitStack() as stack:
        stack.enter_context(started(server))
        client = stack.enter_context(server.client())
        replica = RedisServer(folders[1], "--replicaof", "127.0.0.1", str(server.port))
        stack.enter_context(started(replica))
        client.execute_command("ACL SETUSER", "some", "on", ">verysecret", "~*", "+ping")
        said = {
            "replica": unreachable(replica.url),
            "tls": unreachable(f"rediss://127.0.0.1:{server.port}/0?ssl_cert_reqs=none"),
            "database": unreachable(f"redis://127.0.0.1:{server.port}/99"),
            "rights": unreachable(f"redis://some:verysecret@127.0.0.1:{server.port}/0"),
        }
        for name, value in (("maxmemory", 1_000_000), ("maxclients", 1)):
            before = client.config_get(name)
            client.config_set(name, value)
            said[name] = unreachable(server.url)
            client.config_set(name, before[name])
        # what the fix says, with the user's own name
        line = said["rights"].fix.partition("ACL SETUSER NAME ")[2].replace("'", "")
        client.execute_command("ACL SETUSER", "some", *line.split())
        app = Celery("workload", broker=f"redis://some:verysecret@127.0.0.1:{server.port}/0", set_as_current=False)
        assert judged(facts_of(app, 4), "broker.reachable")[""].verdict == "ok"
        client.config_set("requirepass", "verysecret")
        said["password"] = unreachable(f"redis://:wrongverysecret@127.0.0.1:{server.port}/0")
    expected = {
        "replica": ("it is a read-only replica", "INFO replication"),
        "tls": ("speaks no TLS", f"'redis://:PASSWORD@127.0.0.1:{server.port}/0"),
        "database": ("no database of that number", "a number below its setting databases"),
        "rights": ("NOPERM", "ACL SETUSER"),
        "maxmemory": ("memory is full", "CONFIG SET maxmemory"),
        "maxclients": ("no room for one more client", "--apply-pool-shrink"),
        "password": ("another user name and password", f"'redis://:PASSWORD@127.0.0.1:{server.port}/0'"),
    }
    for name, (reason, fix) in expected.items():
        assert reason in said[name].reason, name
        assert fix in said[name].fix, name


def test_each_trouble_with_tls_has_words_and_a_fix_of_its_own(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "server").mkdir()
    server = TlsServer(tmp_path / "server", authority, names=("localhost", "other.example"))
    with started(server):
        plain = unreachable(f"redis://localhost:{server.port}/0")
        strange = unreachable(server.url, broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED})
        checked = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": str(authority.ca_file)}
        misnamed = unreachable(
            f"rediss://127.0.0.1:{server.port}/0", broker_use_ssl={**checked, "ssl_check_hostname": True}
        )
    assert "may want TLS" in plain.reason
    assert f"app.conf.broker_url = 'rediss://:PASSWORD@localhost:{server.port}/0'" in plain.fix
    assert "not signed by a CA known here" in strange.reason
    assert 'app.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs"' in strange.fix
    assert "another host name" in misnamed.reason


def test_each_trouble_with_a_rabbitmq_has_words_and_a_fix_of_its_own(rabbit: RabbitServer) -> None:
    login = unreachable(f"amqp://guest:verysecret@127.0.0.1:{rabbit.port}//")
    vhost = unreachable(f"amqp://guest:guest@127.0.0.1:{rabbit.port}/none")
    tls = unreachable(f"amqps://guest:guest@127.0.0.1:{rabbit.port}//")
    assert "user name and password" in login.reason
    assert "rabbitmqctl authenticate_user USER PASSWORD" in login.fix
    assert "vhost" in vhost.reason
    assert "rabbitmqctl add_vhost NAME\n" in vhost.fix
    assert "speaks no TLS" in tls.reason
    assert f"'amqp://USER:PASSWORD@127.0.0.1:{rabbit.port}//'" in tls.fix
