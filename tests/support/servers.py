"""Runs real servers and workers as processes for tests, and waits for them with a deadline."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest
import redis
import redis_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

APPS = Path(__file__).parent / "apps"
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


T = TypeVar("T")


def missing(what: str) -> None:
    """Skip the test, as the program *what* is missing. In CI, fail instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed, and CI must have it")
    pytest.skip(f"{what} is not installed")


def wait_until(condition: Callable[[], Any], *, timeout: float = 60, what: str = "it") -> Any:
    """Poll *condition* until its result is true, and return the result. Fail after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {timeout} s")
        time.sleep(0.02)
    return result


def wait_until_steady(look: Callable[[], T], *, seconds: float, what: str = "it") -> T:
    """Poll *look* until its result has not changed for *seconds*, and return the result."""
    seen, since = look(), time.monotonic()

    def is_steady() -> bool:
        nonlocal seen, since
        if (now := look()) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since >= seconds

    wait_until(is_steady, what=f"{what} that stays the same")
    return seen


#: Systems give ports above these to clients. A server could not start where a client of another test has its port.
_PORTS: Final = range(11_000, 21_000)


def free_port() -> int:
    """A free port. The port 10,000 above it is free too, for the bus of a cluster node."""
    for _ in range(200):
        port = SystemRandom().choice(_PORTS)  # hypothesis seeds the others: all test processes would choose alike
        with suppress(OSError):
            for number in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
            return port
    pytest.fail("no two free ports with 10,000 between them")


def stop(process: subprocess.Popen[Any], sig: int = signal.SIGTERM, timeout: float = 60) -> int:
    """Send *sig* to *process*, and return its exit code. If it takes longer than *timeout*, kill it and raise.

    The time-out is long, because a child of billiard may wait 30 s for a parent that no longer reads its results.
    """
    if process.poll() is None:
        process.send_signal(sig)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
        raise


def redis_binary() -> str:
    program = redis_server.find()
    if program is None:
        missing("redis-server")
    return str(program)


class RedisServer:
    """A redis-server on a free port, with its files in *folder*."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.folder = folder
        self.options = options
        self.password: str | None = None
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *more: str, ready: bool = True) -> RedisServer:
        """Start it with *more* options. With *ready*, wait until it answers."""
        command = [redis_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self.options, *more]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        if ready:
            wait_until(self._answers, what="redis-server")
        return self

    def _answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            pytest.fail(f"redis-server ended:\n{(self.folder / 'redis.log').read_text()}")
        try:
            with self.client(password=self.password, protocol=2) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    @property
    def pid(self) -> int:
        """The pid of the running server."""
        if self.process is None:
            message = "this redis-server does not run"
            raise RuntimeError(message)
        return self.process.pid

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis.from_url(self.url, **options)

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process, signal.SIGKILL)
            self.process = None


class Worker:
    """A ``celery worker`` process with an app of tests/support/apps, named by *module*."""

    def __init__(self, folder: Path, env: dict[str, str], *options: str, module: str = "workload") -> None:
        stamp = time.monotonic_ns()
        self.log_file = folder / f"worker-{stamp}.log"
        self.ready_file = folder / f"ready-{stamp}"
        command = [sys.executable, "-m", "celery", "-A", module, "worker", "--without-gossip", "--without-mingle"]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "-n", "tested@host", *options],
                cwd=APPS,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**env, "TEST_READY": str(self.ready_file)},
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def wait_ready(self) -> Worker:
        def ready() -> bool:
            if self.process.poll() is not None:
                pytest.fail(f"the worker ended with {self.process.returncode}:\n{self.log}")
            return self.ready_file.exists()

        wait_until(ready, what="the worker")
        return self

    def stop(self, sig: int = signal.SIGTERM) -> str:
        stop(self.process, sig)
        return self.log


@contextmanager
def running(worker: Worker) -> Iterator[Worker]:
    """Wait until *worker* is ready, and stop it at the end of the ``with`` block."""
    try:
        yield worker.wait_ready()
    finally:
        if worker.process.poll() is None:
            stop(worker.process)


def run(
    *command: str, env: dict[str, str] | None = None, timeout: float = 60, text_in: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=env, cwd=APPS, input=text_in, capture_output=True, text=True, timeout=timeout, check=False
    )


def compact(value: Any) -> str:
    """The JSON whose length is the size, by definition. It shares no code with what is tested."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class RabbitServer:
    """A RabbitMQ node with an epmd, ports and folders of its own."""

    HOME = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.epmd_port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> RabbitServer:
        if not self.HOME.exists() or shutil.which("epmd") is None:
            missing("rabbitmq-server")
        env = {
            **os.environ,
            "HOME": str(self.folder),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        (self.folder / "plugins").write_text("[].\n")
        for command in (["epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1"], [str(self.HOME)]):
            with (self.folder / "rabbit.log").open("ab") as log:
                self.processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
        wait_until(self._answers, timeout=90, what="rabbitmq-server")
        return self

    def _answers(self) -> bool:
        from kombu import Connection

        if self.processes[-1].poll() is not None:
            pytest.fail(f"rabbitmq-server ended:\n{(self.folder / 'rabbit.log').read_text()}")
        try:
            with Connection(self.url, connect_timeout=1) as connection:
                connection.connect()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        for process in reversed(self.processes):
            stop(process, signal.SIGTERM)
