"""Where a task runs: measure it, log it if it is large, hand it over. The only code of ours that a task waits for.

No network, no lock, bounded work, and no exception gets out. What happens to a measurement after ``put`` is
``flusher``'s business.
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
    from collections.abc import Mapping

    from celery import Celery

    from celery_argsize.measuring.measurement import Measurement, Plain, PlainPart
    from celery_argsize.settings import Settings
    from celery_argsize.worker.handoff import Handoff, PipeWriter

#: Values of intact reprs are looked at for their levels in one run of 8, and in fewer the longer the repr, one more for
#: so many characters: ``argsize verify`` wants to know, and no more.
SAMPLED: Final = 8
SAMPLED_CHARS: Final = 256
_turns: Final = count()


def measure_celery_task_size(
    task: Any,
    task_id: str | None = None,
    args: Any = None,
    kwargs: Any = None,
) -> Measurement:
    """Measure the arguments of one run of *task*; in a ``task_prerun`` handler, pass what the signal brings.

    What is not given is taken from ``task.request``, and so are the ``argsrepr`` and ``kwargsrepr`` that came with
    the message. Never raises for what the arguments are: an unmeasurable part has the size ``None``.
    """
    return named(_measure(task, task.request, task_id, args, kwargs))


def _measure(task: Any, request: Any, task_id: str | None, args: Any, kwargs: Any) -> Plain:
    """As above; plain tuples, as making others would take longer than all the rest."""
    # A request has no such attributes where the message had no such headers (eager, protocol 1, other languages).
    name, origin = task.name, request.origin
    return (
        _known_name(name) if type(name) is str and len(name) <= NAME_BYTES else clean(name, NAME_BYTES),
        clean(task_id or request.id or "", ID_BYTES),
        _part(request.args if args is None else args, getattr(request, "argsrepr", None)),
        _part(request.kwargs if kwargs is None else kwargs, getattr(request, "kwargsrepr", None)),
        time.time(),
        _known_host(origin) if type(origin) is str and len(origin) <= NAME_BYTES else _host(origin),
    )


#: Most runs have a part without anything in it: its reprs, by type, and what it comes to.
_EMPTY_REPRS: Final[Mapping[type, tuple[str, ...]]] = {tuple: ("()", "[]"), list: ("()", "[]"), dict: ("{}",)}
_EMPTY: Final[PlainPart] = (EMPTY, "intact", 2, 0, 0, None)


def _part(value: Any, header: Any) -> PlainPart:
    """One part: its repr is looked at first, as only that of a cut one has to be worked out."""
    if header in _EMPTY_REPRS.get(type(value), ()) and not value:
        return _EMPTY
    verdict, shown, limit = read_header(header, value)
    if verdict == "intact" and type(value) in _EMPTY_REPRS:  # so it is no bigger than its repr
        levels = 0 if next(_turns) % (SAMPLED + len(header) // SAMPLED_CHARS) else levels_of(value)
        return measure_small(value), verdict, len(header), levels, 0, None
    chars = len(header) if isinstance(header, str) else 0
    if verdict not in CUTS:
        return measure_part(value), verdict, chars, 0, 0, None
    size, shape = measure_shape(value, header) or (None, None)
    return size and (size[0], size[1]), verdict, chars, shown, limit, shape and (*shape,)


@lru_cache(maxsize=256)
def _known_name(name: str) -> str:
    return clean(name, NAME_BYTES)


def _host(origin: object) -> str:
    return clean(str(origin or "").rpartition("@")[2], ORIGIN_BYTES)


#: What is remembered is short, whoever sends it.
_known_host: Final = lru_cache(maxsize=256)(_host)


class Recorder:
    """The ``task_prerun`` receiver of one app."""

    def __init__(self, app: Celery, settings: Settings, handoff: Handoff | PipeWriter) -> None:
        self._app = app
        self._include_eager = settings.include_eager
        self._large_chars = settings.large_task_chars
        self._log = LargeTaskLog() if settings.log_large_tasks else None
        self._handoff = handoff
        self._soft_limit = SoftLimit(Recorder.on_task_prerun.__code__)
        self._failures = FailureLog("a task could not be measured (it ran all the same)")

    def on_task_prerun(
        self, task: Any = None, task_id: str | None = None, args: Any = None, kwargs: Any = None, **_: Any
    ) -> None:
        """Measure and hand over one task run. Signature of ``celery.signals.task_prerun``."""
        counted = False
        try:
            request = task.request
            if task.app is not self._app or (request.is_eager and not self._include_eager):
                return
            if not self._soft_limit.watched:
                self._soft_limit.watch()
            measurement = _measure(task, request, task_id, args, kwargs)
            self._handoff.put(measurement)
            counted = True
            if self._log is not None and is_large(measurement, self._large_chars):
                amqp = self._app.amqp
                self._log.write(named(measurement), (amqp.argsrepr_maxsize, amqp.kwargsrepr_maxsize))
        except Exception as exc:  # noqa: BLE001 - nothing of ours may reach the task
            if not counted:
                self._miss(task)
            with suppress(Exception):
                self._failures.report(exc)

    def _miss(self, task: Any) -> None:
        """Count a run that could not be measured, by its task's name if that can be had."""
        name = OTHER
        with suppress(Exception):
            name = clean(task.name, NAME_BYTES)
        with suppress(Exception):
            self._handoff.add(name, TaskStats({"errors": 1}))

    def on_child_exit(self, **_: Any) -> None:
        """Hand over what a full pipe kept back. Signature of ``celery.signals.worker_process_shutdown``."""
        try:
            dropped = self._handoff.linger(1.0)
        except Exception as exc:  # noqa: BLE001 - the child must end as it would
            self._failures.report(exc)
            return
        if dropped:
            logger.error(
                "celery_argsize: the main process took nothing for a second, as this child ended; the figures of %d "
                "task runs are lost",
                dropped,
            )
