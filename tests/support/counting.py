"""Counts measurements in shared memory and sends their notes, as a worker's processes do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from celery import Celery

from celery_argsize.figures.counters import Tally, rules_of
from celery_argsize.worker.notes import LocalNotes, PipeNotes
from celery_argsize.worker.recorder import Recorder
from celery_argsize.worker.shared_counters import SharedCounters

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_argsize.figures.counters import Rules
    from celery_argsize.measuring.measurement import Measurement
    from celery_argsize.settings import Settings


class Counting:
    """The counters and notes of a worker, and a way to add to them."""

    def __init__(self, settings: Settings, *, children: int = 2) -> None:
        """*children*: as in ``SharedCounters``. 0: notes do not go through a pipe either."""
        self._settings = settings
        self._rules = rules_of(settings)
        self._app = Celery("counting", set_as_current=False)
        self.counters = SharedCounters(self._rules, settings.max_task_names, children)
        self.notes: LocalNotes | PipeNotes = PipeNotes() if children else LocalNotes()

    def put(self, measurement: Measurement) -> None:
        """Count *measurement* as a new process does, which has told nothing yet."""
        recorder = Recorder(self._app, self._settings, self._rules, self.counters, self.notes)
        recorder.add(measurement)


def count(counters: SharedCounters, rules: Rules, measurement: Measurement) -> None:
    """Count *measurement* in the region of this process."""
    region = counters.region()
    assert region is not None
    region.update(measurement.task, rules.layout.changes(measurement.args, measurement.kwargs))


def read(counters: SharedCounters, names: int = 1000) -> Tally:
    """What was counted since the last call, added up."""
    tally = Tally(names)
    tally.merge(counters.differences())
    return tally


def fork(body: Callable[[], None]) -> int:
    """Run *body* in a child, which ends with 1 if that raises. Its process id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    return pid


def end_of(pid: int) -> int:
    """The exit code of child *pid*, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
