"""The app of the workers that ``worker`` starts: without a monitor, with this package, or with OpenTelemetry.

Each child notes how many tasks it has run, and when the last one ended, in a file that is mapped into memory: that
costs less than a microsecond, the same for all, and asks nothing of Redis.
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

#: What a child notes: runs, and the time of the last one (monotonic, which all processes share).
NOTE: Final = struct.Struct("=qd")
#: Task names.
NAMES: Final = [f"catalog.task_{number}" for number in range(10)]

app: Final = Celery("benchmark", broker=os.environ.get("BENCH_BROKER"))
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)


class Notes:
    """One process's place in the file."""

    def __init__(self) -> None:
        with Path(os.environ["BENCH_NOTES"]).open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.at = 0
        self.runs = 0

    def take_place(self, **_: Any) -> None:
        """In a child: the place after those of the children before it."""
        child: Any = current_process()
        self.at = child.index * NOTE.size


def task(*_: Any, **__: Any) -> None:
    """A short task: nothing but the note."""
    notes.runs += 1
    NOTE.pack_into(notes.memory, notes.at, notes.runs, time.monotonic())


def tell_ready(**_: Any) -> None:
    """Say that the worker consumes."""
    Path(os.environ["BENCH_READY"]).touch()


def with_empty() -> None:
    """A receiver of ``task_prerun`` that does nothing: the least that any of them costs."""
    signals.task_prerun.connect(lambda **_: None, weak=False)


def with_argsize() -> None:
    """This package, with its defaults: figures go to the broker's Redis."""
    import celery_argsize  # noqa: PLC0415 - a worker has what it uses, and no more

    celery_argsize.install(app)


def with_otel() -> None:
    """OpenTelemetry's tracing of Celery, as its documentation has it, with an exporter that throws spans away."""
    import nowhere  # noqa: PLC0415

    signals.worker_process_init.connect(nowhere.instrument, weak=False)


for name in NAMES:
    app.task(name=name)(task)
if "BENCH_NOTES" in os.environ:  # a worker: who publishes has none
    notes: Final = Notes()
    signals.worker_process_init.connect(notes.take_place, weak=False)
    signals.worker_ready.connect(tell_ready, weak=False)
    monitors = {"plain": lambda: None, "empty": with_empty, "argsize": with_argsize, "otel": with_otel}
    monitors[os.environ["BENCH_MONITOR"]]()
