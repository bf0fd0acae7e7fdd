"""Measures the arguments of a task where it runs, hands the result over, and logs a large one.

The task waits for it. So: no network, no lock, bounded
work, and no exception gets out.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.failure_log import FailureLog, logger
from celery_argsize.figures.counters import OTHER, TaskStats
from celery_argsize.measuring.cuts import CUTS, levels_of, read_header
from celery_argsize.measuring.json_size import EMPTY, measure_part, measure_small
from celery_argsize.measuring.measurement import ID_BYTES, NAME_BYTES, ORIGIN_BYTES, clean, is_large, named
from celery_argsize.measuring.repr_shape import measure_shape
from celery_argsize.worker.large_task_log import LargeTaskLog
from celery_argsize.worker.soft_limit import SoftLimit

if TYPE_CHECKING:
    from celery import Celery

    from celery_argsize.measuring.measurement import Measurement, Plain, PlainPart
    from celery_argsize.settings import Settings
    from celery_argsize.worker.handoff import LocalHandoff, PipeWriter

#: The levels of uncut reprs are sampled, for ``argsize verify``: those of one
#: part in ``8 + len(repr) // 256``.
SAMPLED: Final = 8
SAMPLED_CHARS: Final = 256
_runs: Final = count()


def measure_celery_task_size(
    task: Any, task_id: str | None = None, args: Any = None, kwargs: Any = None
) -> Measurement:
    """Measure the arguments of one run of *task*. A ``task_prerun`` receiver passes on its arguments.

    What is not given comes from ``task.request``. A part
    without JSON form has no size.
    """
    return named(_measure(task, task.request, task_id, args, kwargs))


def _measure(task: Any, request: Any, task_id: str | None, args: Any, kwargs: Any) -> Plain:
    name, origin = task.name, request.origin
    clean_name = _cached_clean if type(name) is str and len(name) <= NAME_BYTES else clean
    clean_host = _cached_host if type(origin) is str and len(origin) <= NAME_BYTES else _host
    # Eager runs, protocol 1 and other languages send no reprs.
    return (
        clean_name(name, NAME_BYTES),
        clean(task_id or request.id or "", ID_BYTES),
        _part(request.args if args is None else args, getattr(request, "argsrepr", None)),
        _part(request.kwargs if kwargs is None else kwargs, getattr(request, "kwargsrepr", None)),
        time.time(),
        clean_host(origin),
    )


#: Reprs of an empty part, by its type. Most runs have an empty part.
_EMPTY_REPRS: Final[dict[type, tuple[str, ...]]] = {tuple: ("()", "[]"), list: ("()", "[]"), dict: ("{}",)}
_EMPTY: Final[PlainPart] = (EMPTY, "intact", 2, 0, 0, None)


def _part(value: Any, header: Any) -> PlainPart:
    """The measurement of args or kwargs. *header* is their repr in the message."""
    if header in _EMPTY_REPRS.get(type(value), ()) and not value:
        return _EMPTY
    verdict, shown, limit = read_header(header, value)
    if verdict == "intact" and type(value) in _EMPTY_REPRS:  # no bigger than its repr
        levels = 0 if next(_runs) % (SAMPLED + len(header) // SAMPLED_CHARS) else levels_of(value)
        return measure_small(value), verdict, len(header), levels, 0, None
    chars = len(header) if isinstance(header, str) else 0
    if verdict not in CUTS:
        return measure_part(value), verdict, chars, 0, 0, None
    size, shape = measure_shape(value, header) or (None, None)
    return size and (*size,), verdict, chars, shown, limit, shape and (*shape,)  # marshal takes no named tuples


def _host(origin: object) -> str:
    return clean(str(origin or "").rpartition("@")[2], ORIGIN_BYTES)


#: Only short texts are cached, which bounds the memory.
_cached_clean: Final = lru_cache(maxsize=256)(clean)
_cached_host: Final = lru_cache(maxsize=256)(_host)


class Recorder:
    """The ``task_prerun`` receiver of one app."""

    def __init__(self, app: Celery, settings: Settings, handoff: LocalHandoff | PipeWriter) -> None:
        self._app = app
        self._include_eager = settings.include_eager
        self._large_chars = settings.large_task_chars
        self._log = LargeTaskLog() if settings.log_large_tasks else None
        self.handoff = handoff
        self._soft_limit = SoftLimit(Recorder.on_task_prerun.__code__)
        self._failures = FailureLog("a task could not be measured (it ran all the same)")

    def on_task_prerun(
        self, task: Any = None, task_id: str | None = None, args: Any = None, kwargs: Any = None, **_: Any
    ) -> None:
        """Measure and hand over one task run. Receives ``celery.signals.task_prerun``."""
        counted = False
        try:
            request = task.request
            if task.app is not self._app or (request.is_eager and not self._include_eager):
                return
            if not self._soft_limit.watched:
                self._soft_limit.watch()
            measurement = _measure(task, request, task_id, args, kwargs)
            self.handoff.put(measurement)
            counted = True
            if self._log is not None and is_large(measurement, self._large_chars):
                amqp = self._app.amqp
                self._log.write(named(measurement), (amqp.argsrepr_maxsize, amqp.kwargsrepr_maxsize))
        except Exception as exc:  # noqa: BLE001 - none may reach the task
            if not counted:
                self._count_error(task)
            with suppress(Exception):
                self._failures.report(exc)

    def _count_error(self, task: Any) -> None:
        name = OTHER
        with suppress(Exception):
            name = clean(task.name, NAME_BYTES)
        with suppress(Exception):
            self.handoff.add(name, TaskStats({"errors": 1}))

    def on_child_exit(self, **_: Any) -> None:
        """Hand over what is left. Receives ``celery.signals.worker_process_shutdown``."""
        text = "celery_argsize: the main process took nothing for a second; the figures of %d task runs are lost"
        with self._failures.caught():
            if lost := self.handoff.linger(1.0):
                logger.error(text, lost)
