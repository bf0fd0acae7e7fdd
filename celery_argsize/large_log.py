"""The log of large tasks: a few lines a task, before its body runs, so that the one that gets killed is in the log.

Rate-limited per task name: a burst, then a few a minute, with the number that was not shown. No argument value is
logged, only sizes, names and ids.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.trouble import logger

if TYPE_CHECKING:
    from celery_argsize.stats import Measurement, Part

__all__ = ["LargeTaskLog"]


@dataclass(slots=True)
class _Allowance:
    left: float
    at: float
    hidden: int = 0


class LargeTaskLog:
    """Writes large tasks to the log. One per process that runs tasks."""

    #: Tasks of one name that are logged at once.
    BURST: Final = 10
    #: Tasks of one name that are logged a minute after that.
    A_MINUTE: Final = 3

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self._allowances: dict[str, _Allowance] = {}

    def write(self, measurement: Measurement, limits: tuple[int, int]) -> None:
        """Log *measurement*, if its task may be logged now; *limits* are for args and kwargs, in characters."""
        hidden = self._hidden(measurement.task)
        if hidden is not None:
            logger.warning("%s", _text(measurement, limits, hidden), extra=_fields(measurement, limits, hidden))

    def _hidden(self, task: str) -> int | None:
        """How many of *task* were not shown since the last one, or ``None`` if this one is not to be shown either."""
        now = time.monotonic()
        allowance = self._allowances.get(task)
        if allowance is None:
            if len(self._allowances) >= self._max_names:
                self._allowances.clear()
            allowance = self._allowances[task] = _Allowance(self.BURST, now)
        allowance.left = min(self.BURST, allowance.left + (now - allowance.at) * self.A_MINUTE / 60)
        allowance.at = now
        if allowance.left < 1:
            allowance.hidden += 1
            return None
        allowance.left -= 1
        hidden, allowance.hidden = allowance.hidden, 0
        return hidden


def _text(measurement: Measurement, limits: tuple[int, int], hidden: int) -> str:
    lines = [
        f"Task: {measurement.task}",
        f"ID: {measurement.task_id}",
        f"Args: {_part(measurement.args)}",
        f"Kwargs: {_part(measurement.kwargs)}",
        f"Current limit: {limits[0]:,} characters"
        if limits[0] == limits[1]
        else f"Current limit: {limits[0]:,} characters (args), {limits[1]:,} characters (kwargs)",
    ]
    if hidden:
        lines.append(f"{hidden:,} more not shown")
    return "\n".join(f"[CELERY MONITOR] {line}" for line in lines)


def _part(part: Part) -> str:
    mark = "⚠ TRUNCATED" if part.truncated else "✓"
    return f"not measurable ({mark})" if part.size is None else f"{part.size.chars:,} characters ({mark})"


def _fields(measurement: Measurement, limits: tuple[int, int], hidden: int) -> dict[str, Any]:
    """The same figures for JSON logs; prefixed, as a log record has an ``args`` of its own."""
    fields: dict[str, Any] = {
        "argsize_task": measurement.task,
        "argsize_task_id": measurement.task_id,
        "argsize_not_shown": hidden,
    }
    for name, part, limit in zip(("args", "kwargs"), (measurement.args, measurement.kwargs), limits, strict=True):
        fields[f"argsize_{name}_chars"] = part.size and part.size.chars
        fields[f"argsize_{name}_bytes"] = part.size and part.size.bytes
        fields[f"argsize_{name}_truncated"] = part.truncated
        fields[f"argsize_{name}_limit"] = limit
    return fields
