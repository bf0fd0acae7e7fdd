"""Measures the arguments of a task where it runs, counts them in shared memory, and logs a large one.

The task waits for it. So: no network, no lock, bounded
work, and no exception gets out.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from operator import le
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.errors import ArgsizeError
from celery_argsize.failure_log import FailureLog
from celery_argsize.figures.counters import OTHER, exemplars
from celery_argsize.figures.layout import AT_ONCE, ERRORS, LARGE_PART, NEW_MAXIMUM, Changes
from celery_argsize.figures.origins import SEEN, sightings_of
from celery_argsize.measuring.measurement import (
    ID_BYTES,
    NAME_BYTES,
    ORIGIN_BYTES,
    PARTS,
    Measurement,
    clean,
    measure_part,
)
from celery_argsize.worker.large_task_log import LargeTaskLog
from celery_argsize.worker.region import RESETS, UNSETTLED
from celery_argsize.worker.soft_limit import SoftLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from celery_argsize.figures.counters import Rules
    from celery_argsize.measuring.measurement import Part
    from celery_argsize.settings import Settings
    from celery_argsize.worker.notes import LocalNotes, NoteWriter
    from celery_argsize.worker.region import Region
    from celery_argsize.worker.shared_counters import SharedCounters

_LARGE: Final = LARGE_PART | LARGE_PART << 8
_AT_ONCE: Final = AT_ONCE | AT_ONCE << 8
_NEW_MAXIMA: Final = NEW_MAXIMUM | NEW_MAXIMUM << 8

#: Seconds between two runs of a task that are told of, if nothing is new about the second.
AGAIN: Final = 1.0
#: Seconds until a run is told of that is the largest since then, but not since the last reset. The worker may not have
#: heard of a reset.
RECORD_AGAIN: Final = 60.0
#: Most things of one kind that a process remembers having told.
_MOST: Final = 4096
_NO_RECORD: Final = ((0, 0), 0, 0.0)

_NO_REGION: Final = (
    "no room is left in the shared memory of the worker, as its pool has many more processes than it was started "
    "with; restart it with a higher --concurrency"
)


def measure_celery_task_size(
    task: Any, task_id: str | None = None, args: Any = None, kwargs: Any = None
) -> Measurement:
    """Measure the arguments of one run of *task*. A ``task_prerun`` receiver passes on its arguments.

    What is not given comes from ``task.request``. A part
    without JSON form has no size.
    """
    request = task.request
    args = request.args if args is None else args
    kwargs = request.kwargs if kwargs is None else kwargs
    return _run(task, task_id, (request, args, kwargs))


def _parts(request: Any, args: Any, kwargs: Any) -> tuple[Part, Part]:
    # Eager runs, protocol 1 and other languages send no reprs.
    return (
        measure_part(args, getattr(request, "argsrepr", None)),
        measure_part(kwargs, getattr(request, "kwargsrepr", None)),
    )


def _run(
    task: Any, task_id: str | None, came: tuple[Any, Any, Any], parts: tuple[Part, Part] | None = None
) -> Measurement:
    """The measurement of a run. *came*: its request, args and kwargs. *parts*: if these are measured already."""
    request = came[0]
    name, task_id = clean(task.name, NAME_BYTES), clean(task_id or request.id or "", ID_BYTES)
    return Measurement(name, task_id, *(parts or _parts(*came)), time.time(), _host(request.origin))


def request_of(task: Any) -> Any:
    """``task.request`` in 2,400 instructions. The property takes 7,800, a fifth of what a small task would cost."""
    try:
        local = task.request_stack._local  # noqa: SLF001 - see celery.utils.threads.LocalStack
        return local.__storage__[local.__ident_func__()]["stack"][-1]
    except (AttributeError, LookupError):  # nothing runs, or Celery keeps it elsewhere
        return task.request


def _host(origin: object) -> str:
    return clean(str(origin or "").rpartition("@")[2], ORIGIN_BYTES)


class Recorder:
    """The ``task_prerun`` receiver of one app."""

    def __init__(
        self, app: Celery, settings: Settings, rules: Rules, counters: SharedCounters, notes: LocalNotes | NoteWriter
    ) -> None:
        self._app = app
        self._tasks = app.tasks
        self._include_eager = settings.include_eager
        self._rules = rules
        self._log = LargeTaskLog() if settings.log_large_tasks else None
        self._counters = counters
        self._check_from = 0.0  # monotonic seconds
        self._told = _Told(notes, rules)
        self._soft_limit = SoftLimit(Recorder.on_task_prerun.__code__)
        self._failures = FailureLog("a task could not be measured (it ran all the same)")
        self._no_region = FailureLog("runs of this process are sent as notes, which may be lost")

    def on_task_prerun(
        self, task: Any = None, task_id: str | None = None, args: Any = None, kwargs: Any = None, **_: Any
    ) -> None:
        """Measure and count one task run. Receives ``celery.signals.task_prerun``."""
        counted = False
        try:
            name, request = task.name, request_of(task)
            # Looking it up takes less time than asking for task.app.
            is_others = self._tasks.get(name) is not task and task.app is not self._app
            if is_others or (request.is_eager and not self._include_eager):
                return
            if not self._soft_limit.watched:
                self._soft_limit.watch()
            now = time.monotonic()
            region = self._counters.own
            if region is None or now >= self._check_from:
                self._check_from = now + AGAIN
                region = self._counters.region()
            if region is None:
                self._send(measure_celery_task_size(task, task_id, args, kwargs))
                return
            argsrepr, kwargsrepr = getattr(request, "argsrepr", None), getattr(request, "kwargsrepr", None)
            tell, parts = region.count(name, args, argsrepr, kwargs, kwargsrepr), None
            if tell == UNSETTLED:
                parts = _parts(request, args, kwargs)
                tell = self._count(region, name, *parts)
            counted = True
            if tell & _NEW_MAXIMA and self._told.knows(name, region, now):
                tell &= ~_NEW_MAXIMA
            if tell:
                self._tell(region, name, tell, partial(_run, task, task_id, (request, args, kwargs), parts))
            else:
                self._told.tell_host(request.origin, now)
        except Exception as exc:  # noqa: BLE001 - none may reach the task
            if not counted:
                self._count_error(task)
            with suppress(Exception):
                self._failures.report(exc)

    def _tell(self, region: Region, name: str, tell: int, measurement: Callable[[], Measurement]) -> None:
        """Send a note about a counted run and log it, as far as *tell* and what was told before ask for it."""
        if len(name) > NAME_BYTES:
            name = clean(name, NAME_BYTES)
        is_due = self._told.is_due(name, tell)
        log = self._log if tell & _LARGE and self._log is not None and self._log.has_token(name) else None
        if not is_due and log is None:
            return
        run = measurement()
        if is_due:
            self._told.tell(run, tell, region)
        if log is not None:
            amqp = self._app.amqp
            log.write(run, (amqp.argsrepr_maxsize, amqp.kwargsrepr_maxsize))

    def after_fork(self) -> None:
        """In a forked child: count in a region of its own."""
        self._counters.after_fork()

    def add(self, measurement: Measurement) -> None:
        """Count *measurement*, which a caller made, as a run in this process."""
        region = self._counters.region()
        if region is None:
            self._send(measurement)
        else:
            task, _, args, kwargs, *_ = measurement
            self._tell(region, task, self._count(region, task, args, kwargs), lambda: measurement)

    def _count(self, region: Region, name: str, args: Part, kwargs: Part) -> int:
        """Count a run. Returns what there is to tell about it."""
        return region.update(name, self._rules.layout.changes(args, kwargs))

    def _send(self, measurement: Measurement) -> None:
        """Send the figures of a run, as this process has no room in shared memory."""
        self._no_region.report(ArgsizeError(_NO_REGION))
        layout = self._rules.layout
        self._told.send_counts(measurement, *layout.named(layout.changes(measurement.args, measurement.kwargs)))

    def _count_error(self, task: Any) -> None:
        name = OTHER
        with suppress(Exception):
            name = clean(task.name, NAME_BYTES)
        with suppress(Exception):
            region = self._counters.region()
            if region is not None:
                region.update(name, Changes({ERRORS: 1}, {}))


class _Told:
    """Sends notes, and remembers when, so that it does not with each run."""

    def __init__(self, notes: LocalNotes | NoteWriter, rules: Rules) -> None:
        self._notes = notes
        self._rules = rules
        #: By task: kinds of runs that were told of, and until when. By origin: until when.
        self._tasks: dict[str, tuple[int, float]] = {}
        self._hosts: dict[str, float] = {}
        #: By task: the largest args and kwargs that were told of, after how many resets, and until when that counts.
        self._records: dict[str, tuple[tuple[int, ...], int, float]] = {}

    def knows(self, task: str, region: Region, now: float) -> bool:
        """Whether the maxima of this epoch are surely no larger than what was told since the last reset."""
        known, resets, until = self._records.get(task, _NO_RECORD)
        if resets != region.words[RESETS] or now >= until:
            return False
        largest = region.largest(task)
        return any(largest) and all(map(le, largest, known))

    def _new_records(self, run: Measurement, tell: int, region: Region) -> dict[str, int]:
        """The sizes of *run* that are larger than what was told of. Remembers them."""
        now, at = time.monotonic(), region.words[RESETS]
        known, resets, until = self._records.get(run.task, _NO_RECORD)
        if resets != at or now >= until:
            known, until = (0, 0), now + RECORD_AGAIN
        sizes = [0 if part.size is None else part.size.chars for part in (run.args, run.kwargs)]
        _remember(self._records, run.task, ((*map(max, sizes, known),), at, until))
        parts = zip(PARTS, sizes, known, (tell, tell >> 8), strict=True)
        return {f"{name}.max_chars": size for name, size, of, bits in parts if bits & NEW_MAXIMUM and size > of}

    def is_due(self, task: str, tell: int) -> bool:
        """Whether to tell about a run of *task*: a new maximum, another kind of run, or none told for a while."""
        now = time.monotonic()
        kinds, until = self._tasks.get(task, (0, 0.0))
        if now >= until:
            kinds, until = 0, now + AGAIN
        elif not tell & ~kinds:
            return False
        _remember(self._tasks, task, (kinds | tell & ~(_NEW_MAXIMA | _AT_ONCE), until))
        return True

    def tell_host(self, origin: object, now: float) -> None:
        """Tell that a message came from the host of *origin*, unless that was told a moment ago."""
        if type(origin) is not str or len(origin) > NAME_BYTES:
            origin = _host(origin)
        if now >= self._hosts.get(origin, 0.0) and origin:
            _remember(self._hosts, origin, now + AGAIN)
            self._notes.send({"host": _host(origin), "sightings": {SEEN: (0, time.time())}})

    def send_counts(self, measurement: Measurement, counts: dict[str, int], maxima: dict[str, int]) -> None:
        """Send the figures of one run, of a process that has no room in shared memory."""
        run = {"task": measurement.task, "id": measurement.task_id, "time": measurement.time}
        self._notes.send(run | {"counts": counts, "maxima": maxima})

    def tell(self, measurement: Measurement, tell: int, region: Region) -> None:
        """Tell about a run that was counted in *region*."""
        self._notes.send(
            {
                "task": measurement.task,
                "id": measurement.task_id,
                "time": measurement.time,
                "host": measurement.origin,
                "maxima": self._new_records(measurement, tell, region),
                "exemplars": exemplars(measurement, self._rules),
                "sightings": sightings_of(measurement),
                "at_once": bool(tell & _AT_ONCE),
            }
        )


def _remember(told: dict[str, Any], key: str, value: object) -> None:
    if len(told) >= _MOST:
        told.clear()
    told[key] = value
