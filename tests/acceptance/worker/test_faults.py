"""Real workers under load while the Redis with their figures is away, full, frozen or closed to them: nothing is lost.

Tasks come through a Redis of their own, which stays up.
"""

from __future__ import annotations

import random
import secrets
import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support.servers import RedisServer, Worker, free_port, running, wait_until

import celery_argsize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.scene import Scene

NOT_WRITTEN = "figures are not being written"
WRITTEN_AGAIN = "figures are being written again, nothing was lost"


@pytest.fixture
def figures(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server for the figures, not yet started; it keeps them on disk before it answers."""
    (folder := tmp_path / "figures").mkdir()
    server = RedisServer(folder, "--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes")
    yield server
    if server.process is not None:
        server.process.send_signal(signal.SIGCONT)
    server.stop()


@contextmanager
def load(scene: Scene, a_second: int = 100) -> Iterator[None]:
    """Send tasks all the time."""
    over = threading.Event()

    def send() -> None:
        rng = random.Random(1)
        while not over.wait(1 / a_second):
            scene.send(f"task_{rng.randrange(10)}", "x" * rng.randrange(500))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()


def total(server: RedisServer) -> int:
    try:
        return celery_argsize.get_size_summary(redis_url=server.url, app_name="workload").total_tasks
    except celery_argsize.StoreError:
        return -1


def wait_for_all(scene: Scene, server: RedisServer, timeout: float = 40) -> None:
    """Wait until the figures are the oracle's and no task is on its way."""

    def settled() -> bool:
        seen = len(scene.oracle())
        return seen > 0 and total(server) == seen == len(scene.oracle())

    wait_until(settled, timeout=timeout, what=f"the oracle's {len(scene.oracle())} runs in Redis")


def wait_for_line(found: Worker, text: str, since: int = 0) -> None:
    wait_until(lambda: text in found.log[since:], what=f"a line with {text!r}")


def wait_for_runs(scene: Scene, least: int) -> None:
    wait_until(lambda: len(scene.oracle()) >= least, what=f"{least} runs")


def worker(scene: Scene, url: str, *options: str, **settings: Any) -> Worker:
    env = scene.env({"redis_url": url, "flush_interval": 0.2, "log_large_tasks": False, **settings})
    return Worker(scene.folder, env, "-c", "2", "-l", "WARNING", *options)


def test_a_redis_that_is_absent_at_the_start_gets_everything_when_it_arrives(
    scene: Scene, figures: RedisServer
) -> None:
    with running(worker(scene, figures.url)) as found, load(scene):
        wait_for_line(found, NOT_WRITTEN)
        wait_for_runs(scene, 200)
        figures.start()
        wait_for_line(found, WRITTEN_AGAIN)
    with running(worker(scene, figures.url)):
        wait_for_all(scene, figures)
    assert found.log.count(NOT_WRITTEN) == 1
    assert "Traceback" not in found.log


def test_ten_crashes_of_redis_lose_nothing_and_count_nothing_twice(scene: Scene, figures: RedisServer) -> None:
    figures.start()
    rng = random.Random(1)
    with running(worker(scene, figures.url)) as found:
        with load(scene):
            for crash in range(10):
                wait_for_runs(scene, 20 * crash)
                time.sleep(rng.random() * 0.4)  # at any moment of a flush
                figures.stop()
                figures.start()
        wait_for_all(scene, figures)
    assert "Traceback" not in found.log


@pytest.mark.slow
def test_while_redis_is_frozen_children_hand_over_all_they_measure(scene: Scene, figures: RedisServer) -> None:
    """They measure more than the pipe holds. A child that is killed then takes nothing with it."""
    figures.start()
    assert figures.process is not None
    with running(worker(scene, figures.url, include_eager=True)):
        scene.send("task_0")
        wait_until(lambda: total(figures) == 1, what="the connection")
        figures.process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        for _ in range(3):
            scene.send("eager_many", 4000)
        wait_until(lambda: len(scene.oracle()) == 12_004, what="tasks that run while Redis is frozen")
        scene.send("killed")
        scene.send("killed")
        wait_until(lambda: len(scene.oracle()) == 12_006, what="the last tasks of two children")
        assert time.monotonic() - begun < 25
        figures.process.send_signal(signal.SIGCONT)
        wait_for_all(scene, figures)


@pytest.mark.slow
def test_a_shutdown_while_redis_is_frozen_ends_in_time_and_says_what_is_lost(
    scene: Scene, figures: RedisServer
) -> None:
    figures.start()
    assert figures.process is not None
    with running(worker(scene, figures.url, shutdown_timeout=1)) as found:
        scene.send("task_0")
        wait_until(lambda: total(figures) == 1, what="the connection")
        figures.process.send_signal(signal.SIGSTOP)
        for _ in range(50):
            scene.send("task_1", "x")
        wait_until(lambda: len(scene.oracle()) == 51, what="50 tasks")
        begun = time.monotonic()
        log = found.stop()
        assert time.monotonic() - begun < 5
    assert found.process.returncode == 0
    assert "the figures of 50 task runs could not be written within 1 s and are lost" in log
    assert "[WORKER SHUTDOWN] Tasks analyzed: 51" in log


@pytest.mark.slow
def test_a_redis_without_a_free_place_is_asked_once_a_second_at_most(scene: Scene, figures: RedisServer) -> None:
    figures.start()
    with figures.client() as admin:
        admin.config_set("maxclients", 1)
        with running(worker(scene, figures.url)) as found:
            with load(scene):
                wait_for_line(found, NOT_WRITTEN)
                before, begun = admin.info("stats")["rejected_connections"], time.monotonic()
                time.sleep(6)
                attempts = admin.info("stats")["rejected_connections"] - before
                assert 1 <= attempts <= time.monotonic() - begun + 1
                admin.config_set("maxclients", 100)
                wait_for_line(found, WRITTEN_AGAIN)
            wait_for_all(scene, figures)
    assert found.log.count(NOT_WRITTEN) == 1
    assert "it has no place for another client; raise its maxclients" in found.log


USER = ("on", ">sesame", "~*", "+@all")


def full(server: RedisServer) -> None:
    with server.client() as admin:
        admin.config_set("maxmemory", 1)


def read_only(server: RedisServer) -> None:
    with server.client() as admin:
        admin.replicaof("127.0.0.1", str(free_port()))


def loading(server: RedisServer) -> None:
    with server.client() as admin:
        for number in range(300):
            admin.set(f"filler:{number}", secrets.token_bytes(1024))
        admin.bgrewriteaof()
        wait_until(lambda: not admin.info("persistence")["aof_rewrite_in_progress"], what="the rewrite")
    server.stop()
    slowly = ("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024", "--rdbcompression", "no")
    server.start(*slowly, "--user", "worker", *USER, ready=False)


def locked(server: RedisServer) -> None:
    with server.client() as admin:
        admin.execute_command("ACL SETUSER", "worker", "resetpass", ">another")
        admin.execute_command("CLIENT KILL", "USER", "worker")


def forbidden(server: RedisServer) -> None:
    with server.client() as admin:
        admin.execute_command("ACL SETUSER", "worker", "-hincrby")


def healed(server: RedisServer) -> None:
    with server.client() as admin:
        admin.config_set("maxmemory", 0)
        admin.replicaof("NO", "ONE")
        admin.execute_command("ACL SETUSER", "worker", "reset", *USER)


HEALING = [
    (full, "it is out of memory; raise its maxmemory"),
    (read_only, "it is a read-only replica; give the URL of the primary"),
    (loading, "it is still loading its data; this heals by itself"),
    (locked, "it wants a user name and password other than the URL's"),
    (forbidden, "its user may not do this"),
]


@pytest.mark.slow
def test_each_refusal_is_one_line_that_names_the_fix_and_what_it_held_up_arrives(
    scene: Scene, figures: RedisServer
) -> None:
    figures.start()
    healed(figures)
    url = figures.url.replace("://", "://worker:sesame@")
    with running(worker(scene, url)) as found:
        for breaks, fix in HEALING:
            begun = len(found.log)
            breaks(figures)
            with load(scene):
                wait_for_line(found, NOT_WRITTEN, begun)
                if breaks is not loading:
                    healed(figures)
                wait_for_line(found, WRITTEN_AGAIN, begun)
            said = [line for line in found.log[begun:].splitlines() if "celery_argsize" in line]
            assert len(said) == 2, said
            assert fix in said[0]
            wait_for_all(scene, figures)
        log = found.stop()
    assert "Traceback" not in log
    assert "sesame" not in log


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("redis://:sesame@no-such-host.invalid:6379/0", "no-such-host.invalid"),
        ("rediss://:sesame@127.0.0.1:{port}/0", "TLS"),
    ],
)
def test_a_wrong_address_is_one_line_that_names_it_and_costs_no_task(
    scene: Scene, figures: RedisServer, url: str, fix: str
) -> None:
    figures.start()
    with running(worker(scene, url.format(port=figures.port), shutdown_timeout=1)) as found:
        for _ in range(50):
            scene.send("task_0")
        wait_until(lambda: len(scene.oracle()) == 50, what="the tasks")
        wait_for_line(found, NOT_WRITTEN)
        begun = time.monotonic()
        log = found.stop()
        assert time.monotonic() - begun < 8
    (said,) = [line for line in log.splitlines() if NOT_WRITTEN in line]
    assert fix in said
    assert "the figures of 50 task runs could not be written within 1 s and are lost" in log
    assert "Traceback" not in log
    assert "sesame" not in log
