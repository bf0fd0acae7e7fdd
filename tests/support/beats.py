"""Real Beats for tests, and what the doctor sees of this machine without the processes of other tests."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil

from celery_argsize.doctor.look.host import look_at_host
from support.servers import APPS, stop, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery_argsize.doctor.facts import HostFacts, Scope


@contextmanager
def beat(folder: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A Beat with a schedule file of its own. It has sent something, so that it is connected."""
    folder.mkdir()
    log = folder / "beat.log"
    command = [sys.executable, "-m", "celery", "-A", "workload", "beat", "-s", str(folder / "schedule"), "-l", "DEBUG"]
    with log.open("wb") as file:
        process = subprocess.Popen([*command, "--pidfile="], cwd=APPS, stdout=file, stderr=subprocess.STDOUT, env=env)
    try:
        wait_until(lambda: b" sent. id->" in log.read_bytes(), what="a Beat that has sent")
        yield process
    finally:
        stop(process)


def look_at_our_host(where: Scope) -> HostFacts:
    """What the doctor sees of this machine, without the Celery processes of others."""
    host = look_at_host(where)
    ours = {child.pid for child in psutil.Process().children(recursive=True)}
    return replace(host, processes=tuple(process for process in host.processes if process.pid in ours))
