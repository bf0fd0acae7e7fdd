"""Keeps a worker from writing exemplars more often than anybody looks at them.

Pure. Each second, each bucket that large tasks fell in has a new one. To write them all would make a flush cost Redis
twice as much; Prometheus looks every ten seconds or more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.stats import TaskStats

__all__ = ["Thinning"]


class Thinning:
    """Of each task and bucket: an exemplar is written if the one before is old enough. So rare ones always are."""

    #: Seconds between two exemplars of a bucket.
    EVERY: Final = 10.0

    def __init__(self, max_names: int) -> None:
        self._max_names = max_names
        self._written: dict[str, dict[str, float]] = {}

    def thin(self, tasks: Mapping[str, TaskStats]) -> None:
        """Take from *tasks*, which are about to be written, the exemplars that come too soon."""
        for name, stats in tasks.items():
            if stats.exemplars and (name in self._written or len(self._written) < self._max_names):
                written = self._written.setdefault(name, {})
                due = {
                    field: seen
                    for field, seen in stats.exemplars.items()
                    if field not in written or seen.time >= written[field] + self.EVERY
                }
                written.update({field: seen.time for field, seen in due.items()})
                stats.exemplars = due

    def forget(self, task: str | None = None) -> None:
        """As nothing was written of *task*, or of any: after a reset."""
        if task is None:
            self._written.clear()
        else:
            self._written.pop(task, None)
