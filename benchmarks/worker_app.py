"""The Celery app of the workers that ``worker`` starts, with one of four monitors.

Each child notes how many tasks it has run, and when the last one ended, in a file that is mapped into memory. That
takes less than a microsecond, is the same for all workers, and does not involve Redis.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import Any, Final

from billiard import current_process
from celery import Celery, signals

#: A child's note: number of runs, and when the last one ended, by the monotonic clock that all processes share.
NOTE: Final = struct.Struct("=qd")
#: Task names.
NAMES: Final = [f"catalog.task_{number}" for number in range(10)]

app: Final = Celery("benchmark", broker=os.environ.get("BENCH_BROKER"))
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)


class Notes:
    """The place of one child in the file of notes."""

    def __init__(self) -> None:
        with Path(os.environ["BENCH_NOTES"]).open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.at = 0
        self.runs = 0

    def take_place(self, **_: Any) -> None:
        """Called in a child: choose its place by its index in the pool."""
        child: Any = current_process()
        self.at = child.index * NOTE.size


def task(*_: Any, **__: Any) -> None:
    """A task that does nothing but write the note."""
    notes.runs += 1
    NOTE.pack_into(notes.memory, notes.at, notes.runs, time.monotonic())


def tell_ready(**_: Any) -> None:
    """Create the file that says that the worker takes tasks."""
    Path(os.environ["BENCH_READY"]).touch()


def with_empty() -> None:
    """Connect a receiver of ``task_prerun`` that does nothing, the least that any monitor costs."""
    signals.task_prerun.connect(lambda **_: None, weak=False)


def with_argsize() -> None:
    """Install celery_argsize with its defaults. Its figures go to the broker's Redis."""
    import celery_argsize  # noqa: PLC0415 - each kind of worker imports only what it uses

    celery_argsize.install(app)


def with_otel() -> None:
    """Set up OpenTelemetry's tracing in each child, with an exporter that drops all spans."""
    import nowhere  # noqa: PLC0415

    signals.worker_process_init.connect(nowhere.instrument, weak=False)


for name in NAMES:
    app.task(name=name)(task)
if "BENCH_NOTES" in os.environ:  # set in workers only, not in the program that publishes
    notes: Final = Notes()
    signals.worker_process_init.connect(notes.take_place, weak=False)
    signals.worker_ready.connect(tell_ready, weak=False)
    monitors = {"plain": lambda: None, "empty": with_empty, "argsize": with_argsize, "otel": with_otel}
    monitors[os.environ["BENCH_MONITOR"]]()
