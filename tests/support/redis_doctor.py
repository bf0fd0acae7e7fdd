"""What `argsize doctor` says of Redis, for tests: its look and its checks, without those of other groups."""

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

#: As in redis.conf: with saving, unlike the servers of other tests.
SANE = ("--save", "3600", "1", "300", "100", "60", "10000")


def looked(
    app: Celery | None, *, seconds: float = 8, max_clients: int | None = None, **given: str
) -> dict[str, list[Outcome]]:
    """What each check of Redis says, without those of other groups."""
    facts = look_around(Scope(app, given, seconds, max_clients), {"redis": look_at_redis})
    found: dict[str, list[Outcome]] = {check.id.removeprefix("redis."): [] for check in CHECKS}
    for one in judge(facts, CHECKS):
        found[one.check.id.removeprefix("redis.")].append(one.outcome)
    return found


def only(found: dict[str, list[Outcome]], check: str) -> Outcome:
    (one,) = found[check]
    return one


def alarms(found: dict[str, list[Outcome]]) -> dict[str, str]:
    """What is not well, by check."""
    return {check: one.reason for check, said in found.items() for one in said if one.verdict != "ok"}


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
    """Another process, which has said that it is ready."""
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
    """A port behind which the server is, and each request with that *word* in it takes so long; empty: each."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket, late: str | None) -> None:
        with suppress(OSError), source, target:
            while said := source.recv(1 << 20):
                time.sleep(seconds if late is not None and late.encode() in said else 0)
                target.sendall(said)

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
