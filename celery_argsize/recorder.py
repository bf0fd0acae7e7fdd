"""Where a task runs: measure it, log it if it is large, hand it over. The only code of ours that a task waits for.

No network, no lock, bounded work, and no exception gets out. What happens to a measurement after ``put`` is
``flusher``'s business.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.large_log import LargeTaskLog
from celery_argsize.measure import measure_part
from celery_argsize.shape import measure_shape
from celery_argsize.soft_limit import SoftLimit
from celery_argsize.stats import DEFAULT_LEVELS, OTHER, Measurement, Part, TaskStats
from celery_argsize.trouble import Trouble, logger
from celery_argsize.truncation import CUTS, read_header, shown_levels

if TYPE_CHECKING:
    from celery import Celery

    from celery_argsize.config import Settings
    from celery_argsize.handoff import Handoff, PipeWriter

__all__ = ["Recorder", "measure_celery_task_size"]

#: UTF-8 bytes of a task name, of a task id and of a host that are kept: a message to the main process stays under
#: PIPE_BUF.
NAME_BYTES: Final = 160
ID_BYTES: Final = 64
ORIGIN_BYTES: Final = 64

#: Intact reprs are looked at for their levels in one run of these: ``argsize verify`` wants to know, and no more.
SAMPLED: Final = 8
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
    request = task.request
    args = request.args if args is None else args
    kwargs = request.kwargs if kwargs is None else kwargs
    # A request has no such attributes where the message had no such headers (eager, protocol 1, other languages).
    return Measurement(
        clean(task.name, NAME_BYTES),
        clean(task_id or request.id or "", ID_BYTES),
        _part(args, getattr(request, "argsrepr", None)),
        _part(kwargs, getattr(request, "kwargsrepr", None)),
        time.time(),
        clean(str(request.origin or "").rpartition("@")[2], ORIGIN_BYTES),
    )


def _part(value: Any, header: Any) -> Part:
    """One part: its repr is looked at first, as only that of a cut one has to be worked out."""
    reading = read_header(header, value)
    chars = len(header) if isinstance(header, str) else 0
    if reading.verdict not in CUTS:
        levels = _sampled_levels(header) if reading.verdict == "intact" else 0
        return Part(measure_part(value), reading.verdict, chars, levels)
    size, shape = measure_shape(value, header) or (None, None)
    return Part(size, reading.verdict, chars, reading.levels, reading.limit, shape)


def _sampled_levels(header: str) -> int:
    """Levels that *header* shows, in one run of ``SAMPLED``, and if there may be more than Celery's default."""
    if next(_turns) % SAMPLED or sum(map(header.count, "([{")) <= DEFAULT_LEVELS:
        return 0
    return shown_levels(header)


def clean(name: object, limit: int) -> str:
    """*name* for logs and Redis: printable, at most *limit* UTF-8 bytes, and still not mistaken for another."""
    whole = str(name)
    if whole.isprintable() and len(whole) * 4 <= limit:
        return whole
    text = whole[: limit + 1]  # however long the rest
    if not text.isprintable():
        text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    data = text.encode()
    if len(data) <= limit and len(whole) <= limit:
        return text
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{data[: limit - 16].decode('utf-8', 'ignore')}...{digest}"


def fit(measurement: Measurement) -> Measurement:
    """*measurement* with names of which as much is kept as of those that are measured here."""
    return measurement._replace(
        task=clean(measurement.task, NAME_BYTES),
        task_id=clean(measurement.task_id, ID_BYTES),
        origin=clean(measurement.origin, ORIGIN_BYTES),
    )


class Recorder:
    """The ``task_prerun`` receiver of one app."""

    def __init__(self, app: Celery, settings: Settings, handoff: Handoff | PipeWriter) -> None:
        self._app = app
        self._include_eager = settings.include_eager
        self._large_chars = settings.large_task_chars
        self._log = LargeTaskLog() if settings.log_large_tasks else None
        self._handoff = handoff
        self._soft_limit = SoftLimit(Recorder.on_task_prerun.__code__)
        self._trouble = Trouble("a task could not be measured (it ran all the same)")

    def on_task_prerun(
        self, task: Any = None, task_id: str | None = None, args: Any = None, kwargs: Any = None, **_: Any
    ) -> None:
        """Measure and hand over one task run. Signature of ``celery.signals.task_prerun``."""
        counted = False
        try:
            if task.app is not self._app or (task.request.is_eager and not self._include_eager):
                return
            if not self._soft_limit.watched:
                self._soft_limit.watch()
            measurement = measure_celery_task_size(task, task_id, args, kwargs)
            self._handoff.put(measurement)
            counted = True
            if self._log is not None and measurement.is_large(self._large_chars):
                amqp = self._app.amqp
                self._log.write(measurement, (amqp.argsrepr_maxsize, amqp.kwargsrepr_maxsize))
        except Exception as exc:  # noqa: BLE001 - nothing of ours may reach the task
            if not counted:
                self._miss(task)
            with suppress(Exception):
                self._trouble.report(exc)

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
            self._trouble.report(exc)
            return
        if dropped:
            logger.error(
                "celery_argsize: the main process took nothing for a second, as this child ended; the figures of %d "
                "task runs are lost",
                dropped,
            )
