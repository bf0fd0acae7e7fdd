"""Runs the checks of `argsize doctor` on Redis for tests, and servers and programs to check."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from celery import Celery

from celery_argsize.doctor.examine import judge, look_around
from celery_argsize.doctor.facts import Scope
from celery_argsize.doctor.judge.redis import CHECKS
from celery_argsize.doctor.look.redis import look_at_redis
from support.redis_kinds import started
from support.servers import RedisServer, stop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery_argsize.doctor.checks import Outcome

#: Options as in redis.conf, which saves. The servers of other tests do not save.
SANE = ("--save", "3600", "1", "300", "100", "60", "10000")


def looked(
    app: Celery | None, *, seconds: float = 8, max_clients: int | None = None, **given: str
) -> dict[str, list[Outcome]]:
    """The outcomes of each check on Redis: name of the check, without ``redis.`` → outcomes."""
    facts = look_around(Scope(app, given, seconds, max_clients), {"redis": look_at_redis})
    outcomes: dict[str, list[Outcome]] = {check.id.removeprefix("redis."): [] for check in CHECKS}
    for result in judge(facts, CHECKS):
        outcomes[result.check.id.removeprefix("redis.")].append(result.outcome)
    return outcomes


def only(outcomes: dict[str, list[Outcome]], check: str) -> Outcome:
    """The one outcome of *check*."""
    (outcome,) = outcomes[check]
    return outcome


def alarms(outcomes: dict[str, list[Outcome]]) -> dict[str, str]:
    """Check → why it is not ok."""
    return {check: one.reason for check, several in outcomes.items() for one in several if one.verdict != "ok"}


def app_on(url: str, backend: str | None = None, **conf: Any) -> Celery:
    app = Celery("workload", broker=url, backend=backend or url)
    app.conf.update(conf)
    return app


@contextmanager
def server_with(folder: Path, *options: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, *options)
    with started(server):
        yield server


@contextmanager
def program(text: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run the Python code *text* with *words* as its arguments, from when it has printed "ready"."""
    process = subprocess.Popen([sys.executable, "-c", text, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as out:
        try:
            assert out.readline() == "ready\n"
            yield process
        finally:
            stop(process)


@contextmanager
def holding_up(port: int, word: str, seconds: float) -> Iterator[int]:
    """A port that leads to *port*. Requests with *word* in them arrive *seconds* late. If it is empty, all do."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket, late: str | None) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(1 << 20):
                time.sleep(seconds if late is not None and late.encode() in data else 0)
                target.sendall(data)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                for ends in ((client, server, word), (server, client, None)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()
