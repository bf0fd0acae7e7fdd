"""Real workers and commands whose Redis is not a plain one on localhost: TLS, a socket file, sentinels, a cluster."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.redis_kinds import Authority, Cluster, Sentinels, TlsServer, started
from support.scene import Scene, figures
from support.servers import ROOT, RedisServer, Worker, run, running, wait_until

import celery_argsize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    folder = tmp_path_factory.mktemp("tls")
    server = TlsServer(folder, Authority(folder))
    with started(server):
        yield server


def ours(server: RedisServer) -> int:
    with server.client() as client:
        return sum(one["name"] == "celery-argsize" for one in client.client_list())


def report(env: dict[str, str]) -> Any:
    done = run(sys.executable, "-m", "celery", "-A", "workload", "argsize", "report", "--json", env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_worker_writes_to_a_cluster_over_one_connection(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    cluster = Cluster(tmp_path / "cluster")
    env = scene.env({"redis_url": cluster.url, "flush_interval": 0.1})
    with started(cluster), running(Worker(scene.folder, env, "-c", "4")):
        for number in range(200):
            scene.send(f"task_{number % 10}", "x" * number)
        wait_until(lambda: len(scene.oracle()) == 200, what="the tasks")
        wait_until(lambda: report(env)["total_tasks"] == 200, what="the figures")
        assert cluster.clients("celery-argsize") == 1, "whatever the concurrency"
        assert figures(celery_argsize.get_size_summary(redis_url=cluster.url)) == scene.truth()
        assert celery_argsize.get_size_summary(redis_url=cluster.url, app_name="workload").total_tasks == 200
        run(sys.executable, "-m", "celery", "-A", "workload", "argsize", "reset", "--yes", env=env)
        assert celery_argsize.get_size_summary(redis_url=cluster.url).total_tasks == 0


@pytest.mark.slow
def test_a_worker_whose_broker_is_behind_sentinels_needs_no_setting(tmp_path: Path) -> None:
    servers = Sentinels(tmp_path)
    with started(servers):
        broker = servers.url.partition("?")[0]
        options = {"broker_transport_options": {"master_name": servers.NAME}}
        scene = Scene(tmp_path, broker, None)
        scene.producer.conf.update(options)
        env = scene.env({"flush_interval": 0.1}, options)
        with running(Worker(tmp_path, env, "-c", "2")):
            for number in range(50):
                scene.send("task_0", "x" * number)
            wait_until(lambda: len(scene.oracle()) == 50, what="the tasks")
            wait_until(lambda: report(env)["total_tasks"] == 50, what="the figures")
            assert ours(servers.first) == 1
        found = celery_argsize.get_size_summary(redis_url=servers.url)
        assert figures(found) == scene.truth()
        scene.producer.close()


@pytest.mark.slow
def test_a_worker_and_the_script_take_the_variables_of_a_host_with_tls(tls: TlsServer, amqp_scene: Scene) -> None:
    host = {
        "REDIS_URL": tls.url.replace("rediss", "redis"),
        "REQUIRE_REDIS_SSL": "true",
        "CELERY_ARGSIZE_REDIS_SSL_CA_CERTS": str(tls.authority.ca_file),
    }
    env = {**amqp_scene.env({"flush_interval": 0.1}), **host}
    with running(Worker(amqp_scene.folder, env, "-c", "2")) as worker:
        for number in range(50):
            amqp_scene.send("task_0", "x" * number)
        wait_until(lambda: len(amqp_scene.oracle()) == 50, what="the tasks")
        wait_until(lambda: report(env)["total_tasks"] == 50, what="the figures")
        assert ours(tls) == 1
        log = worker.stop()
    assert "ERROR" not in log
    script = run(sys.executable, str(ROOT / "scripts" / "check_celery_metrics.py"), "--json", env=env)
    assert json.loads(script.stdout)["total_tasks"] == 50, script.stderr


@pytest.mark.slow
def test_a_worker_that_cannot_check_the_certificate_says_so_and_works(tls: TlsServer, scene: Scene) -> None:
    with running(Worker(scene.folder, scene.env({"redis_url": tls.url}), "-c", "1")) as worker:
        scene.send("task_0", "x")
        wait_until(scene.oracle, what="the task")
        wait_until(lambda: "set redis_ssl_ca_certs to its CA" in worker.log, what="the reason in the log")


@pytest.mark.slow
def test_a_socket_file_as_broker_and_for_the_figures(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--unixsocket", str(tmp_path / "r.sock"))
    scene = Scene(tmp_path, f"redis+socket://{tmp_path / 'r.sock'}?virtual_host=2", None)
    with started(server):
        with running(Worker(tmp_path, scene.env({"flush_interval": 0.1}), "-c", "1")):
            scene.send("task_0", "x")
            wait_until(scene.oracle, what="the task")
            wait_until(lambda: ours(server) == 1, what="our connection")
        assert celery_argsize.get_size_summary(redis_url=f"unix://{tmp_path / 'r.sock'}?db=2").total_tasks == 1
        scene.producer.close()
