"""Runs a whole Celery cluster on a Redis of its own, to count connections: workers, Beat and producers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import redis
from celery import Celery

from support.servers import APPS, RedisServer, stop, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self


class Cluster:
    """Processes of apps/connected.py and their Redis. As a context manager, it stops all of them at the end."""

    def __init__(self, folder: Path, conf: dict[str, Any] | None = None, max_clients: int = 10_000) -> None:
        self.folder = folder
        self.redis = RedisServer(folder, "--maxclients", str(max_clients))
        self.conf = conf or {}
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.redis.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:  # stop all at the same time, as a worker waits for its tasks
            if process.poll() is None:
                process.terminate()
        try:
            for process in self.processes:
                _end(process)
        finally:
            self.redis.stop()

    def app(self, **conf: Any) -> Celery:
        """An app for the test's own process, to send tasks and ask workers."""
        made = Celery("connected", broker=self.redis.url, backend=self.redis.url, set_as_current=False)
        made.conf.update({**self.conf, **conf})
        return made

    def start(self, name: str, *command: str, ready: Path | None = None) -> subprocess.Popen[bytes]:
        env = {
            **os.environ,
            "TEST_BROKER": self.redis.url,
            "TEST_CONF": json.dumps(self.conf),
            "C_FORCE_ROOT": "1",
            **({"TEST_READY": str(ready)} if ready else {}),
        }
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([sys.executable, *command], cwd=APPS, env=env, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def worker(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        ready = self.folder / f"{name}.ready"
        process = self.start(
            name, "-m", "celery", "-A", "connected", "worker", "-n", f"{name}@host", "-l", "INFO", *options, ready=ready
        )
        wait_until(lambda: ready.exists() or process.poll() is not None, what=name)
        if process.poll() is not None:
            pytest.fail(f"{name} ended:\n{self.log(name)}")
        return process

    def beat(self) -> None:
        schedule = str(self.folder / "schedule")
        self.start("beat", "-m", "celery", "-A", "connected", "beat", "-s", schedule, "--pidfile=")

    def clients(self) -> int:
        """Number of clients of the Redis, without the one that counts."""
        with self.redis.client() as client:
            return len(client.client_list()) - 1

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def logs(self) -> str:
        return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in self.folder.glob("*.log"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop *process* and its children. A worker that gets a second signal drops its tasks."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    with suppress(subprocess.TimeoutExpired):  # then stop() has killed it
        stop(process, timeout=5)
    for child in children:
        if child.is_running():
            child.kill()


class Sampler(threading.Thread):
    """Counts the clients of a Redis, without itself, again and again while a ``with`` block runs.

    ``most`` is the largest number so far.
    """

    def __init__(self, server: RedisServer) -> None:
        super().__init__(daemon=True)
        self._client = server.client(max_connections=1)
        self._stopped = threading.Event()
        self.most = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self._stopped.is_set():
                self.most = max(self.most, len(self._client.client_list()) - 1)
                time.sleep(0.005)
        except redis.RedisError as exc:
            self.error = exc

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.join()
        self._client.close()
        if self.error is not None:
            raise self.error
