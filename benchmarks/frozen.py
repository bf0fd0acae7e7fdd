"""Measures whether tasks get slower while the Redis with the figures is frozen.

    python benchmarks/frozen.py [SECONDS]

Two workers run the same stream of tasks, each of which sleeps for 20 ms. Each worker keeps its figures in a
redis-server of its own, and one of these servers is stopped (SIGSTOP) the whole time. The latency of a task is measured
in its process, from before our handler until after the body. The program prints the median and the 99th percentile of
both workers, and the ratio of the latter. The target is at most 1.05.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

from celery import Celery, signals

import celery_argsize

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / folder) for folder in ("tests", "scripts")]

from support.servers import RedisServer, stop, wait_until  # noqa: E402 - the folder tests is on sys.path only from here on

#: The highest p99 with a frozen Redis, as a multiple of the p99 without.
TARGET = 1.05
#: Seconds that a task sleeps.
BODY = 0.02

app = Celery("frozen", broker=os.environ.get("FROZEN_BROKER", "memory://"))
app.conf.update(broker_connection_retry_on_startup=True, task_ignore_result=True)
begun: dict[str, float] = {}


@signals.task_prerun.connect(weak=False)
def before(task_id: str, **_: Any) -> None:
    """Note when a task begins. This receiver is connected before all others."""
    begun[task_id] = time.perf_counter()


@signals.task_postrun.connect(weak=False)
def after(task_id: str, **_: Any) -> None:
    """Append the latency of the task to this process's file."""
    with (Path(os.environ["FROZEN_OUT"]) / str(os.getpid())).open("a") as file:
        file.write(f"{time.perf_counter() - begun.pop(task_id)}\n")


@app.task(name="sleeper")
def sleeper(*_: Any) -> None:
    """Sleep for a while."""
    time.sleep(BODY)


if "FROZEN_FIGURES" in os.environ:
    celery_argsize.install(app, redis_url=os.environ["FROZEN_FIGURES"], shutdown_timeout=1)


class Side:
    """One of the two workers, with its queue and the redis-server that holds its figures."""

    def __init__(self, kind: str, folder: Path, queue: str, server: RedisServer) -> None:
        self.kind, self.server = kind, server
        self.folder = folder / f"latencies-{kind}"
        self.folder.mkdir()
        self.producer = Celery("frozen", broker=queue)
        command = [sys.executable, "-m", "celery", "-A", "frozen", "worker", "-c", "2", "-l", "ERROR"]
        env = {"FROZEN_BROKER": queue, "FROZEN_OUT": str(self.folder), "FROZEN_FIGURES": server.url}
        self.worker = subprocess.Popen(  # noqa: S603 - our own command
            [*command, "-n", f"{kind}@host"], cwd=HERE, env={**os.environ, **env, "C_FORCE_ROOT": "1"}
        )

    def send(self) -> None:
        """Send one task."""
        self.producer.send_task("sleeper", ["x" * 500], ignore_result=True)

    def latencies(self) -> list[float]:
        """The latencies that the worker's children noted, in seconds."""
        return [float(line) for file in self.folder.iterdir() for line in file.read_text().split()]

    def wait(self, tasks: int) -> None:
        """Wait until the worker has run so many *tasks*."""
        wait_until(lambda: len(self.latencies()) >= tasks, timeout=60, what=f"{tasks} tasks")

    def figures(self) -> dict[str, float]:
        """Number of tasks, and the median and p99 of their latency in milliseconds."""
        cuts = quantiles(self.latencies(), n=100)
        return {
            "tasks": len(self.latencies()),
            "median ms": round(cuts[49] * 1e3, 3),
            "p99 ms": round(cuts[98] * 1e3, 3),
        }


def run(folder: Path, servers: list[RedisServer], seconds: float) -> list[Side]:
    """Run both workers for *seconds*, with the second one's Redis frozen."""
    queues = [servers[0].url[:-1] + str(number) for number in range(2)]
    pairs = zip(("running", "frozen"), queues, servers[1:], strict=True)
    sides = [Side(kind, folder, queue, server) for kind, queue, server in pairs]
    try:
        for side in sides:
            side.send()
            side.wait(1)
        os.kill(servers[2].pid, signal.SIGSTOP)
        end, sent = time.monotonic() + seconds, 1
        while time.monotonic() < end:
            for side in sides:
                side.send()
            sent += 1
            time.sleep(BODY)
        for side in sides:
            side.wait(sent)
        os.kill(servers[2].pid, signal.SIGCONT)
    finally:
        for side in sides:
            stop(side.worker)
    return sides


def main() -> int:
    """Run both workers, print the figures, and return the exit code: 1 if the target is missed."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30
    servers: list[RedisServer] = []
    with tempfile.TemporaryDirectory() as name:
        try:
            for kind in ("queues", "running", "frozen"):
                (folder := Path(name, kind)).mkdir()
                servers.append(RedisServer(folder).start())
            sides = run(Path(name), servers, seconds)
        finally:
            for server in servers:
                server.stop()
        figures = {side.kind: side.figures() for side in sides}
    ratio = figures["frozen"]["p99 ms"] / figures["running"]["p99 ms"]
    print(json.dumps(figures, indent=2))
    print(f"p99 with Redis frozen for {seconds:g} s / p99 without: {ratio:.3f}; target at most {TARGET}")
    return 0 if ratio <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
