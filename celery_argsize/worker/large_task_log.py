"""Logs large tasks before their body runs, so that one that gets its process killed is in the log.

Each task name has an allowance: a few blocks at once, then a few a minute. The next
block says how many were left out. Forked children share the allowance in memory. It has
no lock, so two children may log one block too many.
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

#: An allowance: how many may be logged, as of when (monotonic seconds), how many were
#: left out.
_SLOT: Final = struct.Struct("<ddQ")


class LargeTaskLog:
    """Made in a worker's main process, used in its children."""

    #: Blocks for one task name at once, and a minute after that.
    BURST: Final = 10
    A_MINUTE: Final = 3
    #: Allowances, 24 bytes each. Names with equal hashes share one.
    SLOTS: Final = 4096

    def __init__(self) -> None:
        self._slots = mmap.mmap(-1, self.SLOTS * _SLOT.size)

    def write(self, measurement: Measurement, limits: tuple[int, int]) -> None:
        """Log *measurement* if its task may be logged now. *limits*: of args and kwargs, in characters."""
        hidden = self._hidden(measurement.task)
        if hidden is not None:
            logger.warning("%s", _text(measurement, limits, hidden), extra=_fields(measurement, limits, hidden))

    def _hidden(self, task: str) -> int | None:
        """How many of *task* were left out before. ``None``: this one is left out too."""
        now = time.monotonic()
        # crc32, as hash() differs between spawned processes
        at = zlib.crc32(task.encode()) % self.SLOTS * _SLOT.size
        left, since, hidden = _SLOT.unpack_from(self._slots, at)
        left = min(self.BURST, left + (now - since) * self.A_MINUTE / 60) if since else self.BURST
        if left < 1:
            _SLOT.pack_into(self._slots, at, left, now, hidden + 1)
            return None
        _SLOT.pack_into(self._slots, at, left - 1, now, 0)
        return int(hidden)


def _text(measurement: Measurement, limits: tuple[int, int], hidden: int) -> str:
    both = f"{limits[0]:,} characters"
    lines = [
        f"Task: {measurement.task}",
        f"ID: {measurement.task_id}",
        f"Args: {_part(measurement.args)}",
        f"Kwargs: {_part(measurement.kwargs)}",
        "Current limit: " + (both if limits[0] == limits[1] else f"{both} (args), {limits[1]:,} characters (kwargs)"),
    ]
    if hidden:
        lines.append(f"{hidden:,} more not shown")
    return "\n".join(f"[CELERY MONITOR] {line}" for line in lines)


def _part(part: Part) -> str:
    mark = f"⚠ TRUNCATED by {CAUSES[part.verdict]}" if part.truncated else "✓"
    return f"not measurable ({mark})" if part.size is None else f"{part.size.chars:,} characters ({mark})"


def _fields(measurement: Measurement, limits: tuple[int, int], hidden: int) -> dict[str, Any]:
    """The figures for JSON logs, prefixed, as a log record has an ``args`` of its own."""
    fields: dict[str, Any] = {
        "argsize_task": measurement.task,
        "argsize_task_id": measurement.task_id,
        "argsize_not_shown": hidden,
    }
    for name, part, limit in zip(("args", "kwargs"), (measurement.args, measurement.kwargs), limits, strict=True):
        fields[f"argsize_{name}_chars"] = part.size and part.size.chars
        fields[f"argsize_{name}_bytes"] = part.size and part.size.bytes
        fields[f"argsize_{name}_truncated"] = part.truncated
        fields[f"argsize_{name}_verdict"] = part.verdict
        fields[f"argsize_{name}_limit"] = limit
    return fields
