"""Metrics as a person gets them: of the cluster, from the exporter, and of one worker, from its own port."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.scene import figures
from support.servers import APPS, BIN, RedisServer, Worker, free_port, missing, run, running, stop, wait_until

import celery_argsize
from celery_argsize.prometheus.server import MetricsServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.scene import Scene

SENT = {"task_1": 3, "task_2": 5}


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - our own
        return str(answer.read().decode())


def scrape(url: str) -> dict[tuple[str, str, str], float]:
    """Samples by name, task and part; of the histograms, count and sum."""
    return {
        (sample.name, sample.labels.get("task", ""), sample.labels.get("part", "")): sample.value
        for family in text_string_to_metric_families(read(url))
        for sample in family.samples
        if "le" not in sample.labels
    }


def sizes(scraped: dict[tuple[str, str, str], float]) -> dict[str, tuple[int, int, int]]:
    """By task: runs, and the sums of args and kwargs."""
    name = "celery_task_args_size_bytes"
    return {
        task: (
            int(count),
            int(scraped[f"{name}_sum", task, "args"]),
            int(scraped[f"{name}_sum", task, "kwargs"]),
        )
        for (metric, task, part), count in scraped.items()
        if (metric, part) == (f"{name}_count", "args")
    }


def truth(scene: Scene) -> dict[str, tuple[int, int, int]]:
    return {name: (count, args, kwargs) for name, (count, args, _, kwargs, _) in scene.truth().items()}


def send(scene: Scene) -> None:
    for name, count in SENT.items():
        for number in range(count):
            scene.send(name, "x" * 500 * number, key=number)


def all_ran(scene: Scene, number: int = sum(SENT.values())) -> None:
    wait_until(lambda: len(scene.oracle()) == number, what=f"{number} runs")


@contextmanager
def exporting(scene: Scene, *words: str, module: str | None = "workload") -> Iterator[tuple[str, Any]]:
    """The exporter as a process of its own: where its metrics are, and the process."""
    app = ["-A", module] if module else []
    process = subprocess.Popen(
        [str(BIN / "celery"), *app, "argsize", "exporter", "--port", "0", *words],
        cwd=APPS,
        env=scene.env(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert line.startswith("Serving metrics at "), line + process.stderr.read()
        yield line.split()[-1], process
    finally:
        stop(process)
        process.stderr.close()


@pytest.mark.slow
@pytest.mark.smoke
def test_the_exporter_serves_what_all_workers_measured(scene: Scene) -> None:
    with (
        exporting(scene) as (url, exporter),
        running(Worker(scene.folder, scene.env({"flush_interval": 0.1}), "-c", "2")),
    ):
        assert sizes(scrape(url)) == {}
        send(scene)
        all_ran(scene)
        wait_until(lambda: sizes(scrape(url)) == truth(scene), what="all of them")
        assert read(url.replace("/metrics", "/-/healthy")) == "OK\n"
        exporter.send_signal(signal.SIGTERM)
        assert exporter.wait(30) == 0


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_0_when_it_is_told_to(scene: Scene, sig: signal.Signals) -> None:
    with exporting(scene, "--redis-url", scene.broker, module=None) as (url, exporter):
        assert scrape(url)["celery_task_args_up", "", ""] == 1
        exporter.send_signal(sig)
        assert exporter.wait(30) == 0
        assert exporter.stderr.read() == ""


def test_a_redis_that_is_away_does_not_keep_it_from_starting(scene: Scene) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    with exporting(scene, "--redis-url", nowhere, module=None) as (url, exporter):
        assert scrape(url) == {("celery_task_args_up", "", ""): 0}
        assert "cannot read from Redis" in exporter.stderr.readline()


@pytest.mark.slow
def test_what_keeps_it_from_serving_is_said(scene: Scene, tmp_path: Path) -> None:
    with exporting(scene) as (url, _):
        port = url.split(":")[2].partition("/")[0]
        taken = run(str(BIN / "celery"), "-A", "workload", "argsize", "exporter", "--port", port, env=scene.env())
    assert (taken.returncode, taken.stdout) == (2, "")
    assert f"port {port}" in taken.stderr
    missing = str(tmp_path / "none.pem")
    for words, said in (
        (["--certfile", missing], missing),
        (["--client-cafile", missing], "needs a certfile"),
        (["--port", "65536"], "65536"),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
    ):
        refused = run(str(BIN / "celery"), "-A", "workload", "argsize", "exporter", *words, env=scene.env())
        assert (refused.returncode, refused.stdout) == (2, ""), words
        assert said in refused.stderr
        assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_it_is_mounted_in_a_registry_of_the_users_in_one_line(scene: Scene) -> None:
    with running(Worker(scene.folder, scene.env({"flush_interval": 0.1}), "-c", "1")):
        send(scene)
        all_ran(scene)
        wait_until(lambda: sum(n for n, *_ in sizes_in_registry(scene).values()) == 8, what="all of them")
    assert sizes_in_registry(scene) == truth(scene)


def sizes_in_registry(scene: Scene) -> dict[str, tuple[int, int, int]]:
    said = run(
        sys.executable,
        "-c",
        "from workload import app\n"
        "from prometheus_client import REGISTRY, start_http_server\n"
        "from celery_argsize import collector\n"
        "REGISTRY.register(collector(app))\n"
        "import json, urllib.request\n"
        "server, _ = start_http_server(0, '127.0.0.1')\n"
        "print(urllib.request.urlopen(f'http://127.0.0.1:{server.server_port}').read().decode())\n",
        env=scene.env(),
    )
    assert said.returncode == 0, said.stderr
    name = "celery_task_args_size_bytes"
    found = {
        (sample.name, sample.labels["task"], sample.labels["part"]): sample.value
        for family in text_string_to_metric_families(said.stdout)
        for sample in family.samples
        if sample.name in {f"{name}_count", f"{name}_sum"}
    }
    return sizes(found)


# -- of one worker -------------------------------------------------------------------------------------------------


def own(scene: Scene, port: int, *options: str, **settings: Any) -> Worker:
    settings = {"flush_interval": 0.1, "prometheus_port": port, **settings}
    return Worker(scene.folder, scene.env(settings), *options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pool", [pytest.param("prefork", marks=pytest.mark.smoke), "solo", "threads", "gevent", "eventlet"]
)
def test_a_worker_serves_its_own_figures_on_one_port(scene: Scene, pool: str) -> None:
    if pool in {"gevent", "eventlet"} and find_spec(pool) is None:  # not imported here: they mind forks
        missing(pool)
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    with running(own(scene, port, "-c", "2", "-P", pool)) as worker:
        send(scene)
        all_ran(scene)
        wait_until(lambda: sizes(scrape(url)) == truth(scene), what="all of them")
        main = psutil.Process(worker.process.pid)
        listening = [
            process.pid
            for process in (main, *main.children(recursive=True))
            if any(held.status == "LISTEN" and held.laddr.port == port for held in process.net_connections("tcp"))
        ]
        assert listening == [worker.process.pid], "no child holds the port"
        worker.stop()
    with pytest.raises(OSError, match="refused"):
        scrape(url)


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["solo", "threads", "gevent", "eventlet"])
def test_a_client_that_says_nothing_keeps_no_task_waiting(scene: Scene, pool: str) -> None:
    if pool in {"gevent", "eventlet"} and find_spec(pool) is None:
        missing(pool)
    port = free_port()
    with running(own(scene, port, "-c", "2", "-P", pool)) as worker:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(MetricsServer.MAX_CONNECTIONS + 4)]
        for client in silent:
            client.sendall(b"GET ")
        for number in range(1, 4):
            began = time.monotonic()
            scene.send("task_1", number)
            all_ran(scene, number)
            assert time.monotonic() - began < MetricsServer.TIMEOUT / 2
        wait_until(lambda: sizes(scrape(f"http://127.0.0.1:{port}/metrics")) == truth(scene), what="all of them")
        began = time.monotonic()
        worker.stop()
        assert time.monotonic() - began < MetricsServer.TIMEOUT
        for client in silent:
            client.close()


@pytest.mark.slow
def test_children_come_and_go_while_it_is_scraped(scene: Scene) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    with running(own(scene, port, "-c", "2", "--max-tasks-per-child", "1")) as worker:
        for number in range(30):
            scene.send("task_1", "x" * number)
        wait_until(lambda: scrape(url) and len(scene.oracle()) == 30, what="30 runs")
        wait_until(lambda: sizes(scrape(url)) == truth(scene), what="all of them")
        assert worker.process.poll() is None


def test_a_worker_s_own_figures_need_no_redis(amqp_scene: Scene) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    with running(own(amqp_scene, port, "-c", "2")):
        send(amqp_scene)
        all_ran(amqp_scene)
        wait_until(lambda: sizes(scrape(url)) == truth(amqp_scene), what="all of them")
        scraped = scrape(url)
        assert scraped["celery_task_args_up", "", ""] == 1
        assert scraped["celery_task_args_broker_limit_bytes", "", ""] == 16 * 2**20 - 4096


@pytest.mark.slow
def test_a_worker_whose_port_is_taken_runs_without(scene: Scene) -> None:
    with exporting(scene) as (url, _):
        port = int(url.split(":")[2].partition("/")[0])
        with running(own(scene, port, "-c", "1")) as worker:
            send(scene)
            all_ran(scene)
            wait_until(lambda: sizes(scrape(url)) == truth(scene), what="all of them")
            log = worker.stop()
    said = [line for line in log.splitlines() if "argsize_prometheus_port" in line]
    assert len(said) == 1
    assert f"port {port}" in said[0]
    assert "Traceback" not in log


@pytest.mark.slow
def test_what_could_not_be_written_shows_and_is_written_once_it_can_be(scene: Scene, tmp_path: Path) -> None:
    """The figures are in a Redis of their own, which goes away for a while."""
    redis = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always").start()
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    failures = ("celery_task_args_flush_failures_total", "", "")
    flushed = ("celery_task_args_last_flush_timestamp_seconds", "", "")
    try:
        with running(own(scene, port, "-c", "2", redis_url=redis.url)):
            send(scene)
            wait_until(lambda: flushed in scrape(url) and sizes(scrape(url)) == truth(scene), what="the first runs")
            assert scrape(url)[failures] == 0
            before = scrape(url)[flushed]
            redis.stop()
            send(scene)
            wait_until(lambda: scrape(url)[failures] >= 2, what="two attempts")
            all_ran(scene, 16)
            wait_until(lambda: sizes(scrape(url)) == truth(scene), what="its own figures, which go on")
            assert scrape(url)[flushed] == before
            redis.start()
            wait_until(lambda: scrape(url)[flushed] > before, what="a flush")
            failed = scrape(url)[failures]
            with exporting(scene, "--redis-url", redis.url, module=None) as (central, _):
                assert scrape(central)[failures] == failed
                assert sizes(scrape(central)) == truth(scene)
    finally:
        redis.stop()


# -- celery inspect ------------------------------------------------------------------------------------------------


def inspect(scene: Scene, *words: str) -> subprocess.CompletedProcess[str]:
    return run(str(BIN / "celery"), "-A", "workload", "inspect", "argsize", "-t", "5", *words, env=scene.env())


@pytest.mark.smoke
def test_inspect_shows_what_each_worker_measured_itself(scene: Scene) -> None:
    with running(Worker(scene.folder, scene.env({"flush_interval": 0.1}), "-c", "2")):
        send(scene)
        all_ran(scene)
        wait_until(
            lambda: figures(celery_argsize.get_size_summary(redis_url=scene.broker)) == scene.truth(), what="all"
        )
        said = inspect(scene, "--json")
        assert said.returncode == 0, said.stderr
        (answer,) = json.loads(said.stdout).values()
        assert {name: task["count"] for name, task in answer["tasks"].items()} == SENT
        found = {name: (task["max_args_size"], task["max_kwargs_size"]) for name, task in answer["tasks"].items()}
        assert found == {name: (args, kwargs) for name, (_, _, args, _, kwargs) in scene.truth().items()}
        assert (answer["app"], answer["total_tasks"], answer["errors"], answer["waiting"]) == ("workload", 8, 0, 0)
        assert (answer["flush_failures"], answer["last_flush"] > 1e9) == (0, True)
        text = inspect(scene)
        assert text.returncode == 0
        assert "tested@host: OK" in text.stdout
        assert '"task_1": {' in text.stdout


@pytest.mark.slow
def test_inspect_says_where_nothing_is_measured(scene: Scene) -> None:
    with running(Worker(scene.folder, scene.env({"enabled": False}), "-c", "1")):
        said = inspect(scene)
    assert "celery_argsize does not measure in this worker" in said.stdout
