"""Logs large tasks before they run, so that a task that kills its process is in the log.

A token bucket limits the records of each task name. Each record says how many
were left out before it. Forked children share the buckets in memory, without a
lock: two children may log one record too many.
"""

from __future__ import annotations

import mmap
import struct
import time
import zlib
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.failure_log import logger
from celery_argsize.measuring.cuts import CAUSES

if TYPE_CHECKING:
    from celery_argsize.measuring.measurement import Measurement, Part

#: A token bucket: tokens, when they were counted (monotonic
#: seconds), records left out.
_BUCKET: Final = struct.Struct("<ddQ")


class LargeTaskLog:
    """Made in a worker's main process, used in its children."""

    #: Most records of a task name at once, and how many more each minute allows.
    BURST: Final = 10
    A_MINUTE: Final = 3
    #: Token buckets, of 24 bytes each. Names with the same hash share a bucket.
    BUCKETS: Final = 4096

    def __init__(self) -> None:
        self._buckets = mmap.mmap(-1, self.BUCKETS * _BUCKET.size)
        #: By task: until when there is no token, and the runs left out meanwhile.
        self._empty: dict[str, list[float]] = {}

    def has_token(self, task: str) -> bool:
        """Whether *task* may have a token. This process remembers when it has none, which takes less time."""
        empty = self._empty.get(task)
        if empty is None or time.monotonic() >= empty[0]:
            return True
        empty[1] += 1
        return False

    def write(self, measurement: Measurement, limits: tuple[int, int]) -> None:
        """Log *measurement*, unless its task has no token. *limits*: of args and kwargs, in characters."""
        hidden = self._hidden(measurement.task)
        if hidden is not None:
            logger.warning("%s", _text(measurement, limits, hidden), extra=_fields(measurement, limits, hidden))

    def _hidden(self, task: str) -> int | None:
        """Take a token. How many records of *task* were left out before; ``None``: leave this one out."""
        now = time.monotonic()
        # hash() would differ between spawned processes.
        at = zlib.crc32(task.encode()) % self.BUCKETS * _BUCKET.size
        tokens, since, hidden = _BUCKET.unpack_from(self._buckets, at)
        tokens = min(self.BURST, tokens + (now - since) * self.A_MINUTE / 60) if since else self.BURST
        hidden += int(self._empty.pop(task, (0, 0))[1])
        if tokens < 1:
            _BUCKET.pack_into(self._buckets, at, tokens, now, hidden + 1)
            if len(self._empty) < self.BUCKETS:
                self._empty[task] = [now + (1 - tokens) / self.A_MINUTE * 60, 0]
            return None
        _BUCKET.pack_into(self._buckets, at, tokens - 1, now, 0)
        return int(hidden)


def _text(measurement: Measurement, limits: tuple[int, int], hidden: int) -> str:
    args_limit, kwargs_limit = (f"{limit:,} characters" for limit in limits)
    shown = args_limit if args_limit == kwargs_limit else f"{args_limit} (args), {kwargs_limit} (kwargs)"
    lines = [
        f"Task: {measurement.task}",
        f"ID: {measurement.task_id}",
        f"Args: {_part(measurement.args)}",
        f"Kwargs: {_part(measurement.kwargs)}",
        f"Current limit: {shown}",
    ]
    if hidden:
        lines.append(f"{hidden:,} more not shown")
    return "\n".join(f"[CELERY MONITOR] {line}" for line in lines)


def _part(part: Part) -> str:
    mark = f"⚠ TRUNCATED by {CAUSES[part.verdict]}" if part.truncated else "✓"
    return f"not measurable ({mark})" if part.size is None else f"{part.size.chars:,} characters ({mark})"


def _fields(measurement: Measurement, limits: tuple[int, int], hidden: int) -> dict[str, Any]:
    """Fields for JSON logs, with a prefix, as a log record has ``args`` of its own."""
    fields: dict[str, Any] = {
        "argsize_task": measurement.task,
        "argsize_task_id": measurement.task_id,
        "argsize_not_shown": hidden,
    }
    for name, part, limit in zip(("args", "kwargs"), (measurement.args, measurement.kwargs), limits, strict=True):
        chars, size = part.size or (None, None)
        values = {"chars": chars, "bytes": size, "truncated": part.truncated, "verdict": part.verdict, "limit": limit}
        fields |= {f"argsize_{name}_{key}": value for key, value in values.items()}
    return fields
