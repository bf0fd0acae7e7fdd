"""The figures of one process in its own memory: for workers without a Redis, and for their tests."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from celery_argsize.figures.counters import Figures, Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.figures.origins import Sighting
    from celery_argsize.settings import Settings
    from celery_argsize.stores.base import Batch


class MemoryStore:
    """Keeps the figures until the process ends. The lock is between the flusher's thread and readers, never a task."""

    where = "the memory of this process"
    shared = False

    def __init__(self, settings: Settings) -> None:
        self._app = settings.app_name
        self._book = Tally(settings.max_task_names)
        self._lock = threading.Lock()
        self._seen: dict[str, int] = {}
        self._since: float | None = None
        self._updated: float | None = None

    def apply(self, batch: Batch, failed: int = 0) -> None:  # noqa: ARG002 - it never fails
        """Add *batch*, unless it was added before."""
        with self._lock:
            if self._seen.get(batch.writer, 0) >= batch.sequence:
                return
            self._seen[batch.writer] = batch.sequence
            self._updated = time.time()
            self._since = self._since or self._updated
            self._book.merge(batch.tasks.items())
            self._book.origins.merge(batch.origins)

    def read(self, fields: tuple[str, ...] = ()) -> Figures:  # noqa: ARG002 - all are at hand
        """All figures."""
        with self._lock:
            tasks = {name: stats.copy() for name, stats in self._book.tasks.items()}
            return Figures(self._app, tasks, self._since, self._updated)

    def read_origins(self) -> Mapping[str, Mapping[str, Sighting]]:
        """What was seen of the hosts that messages come from."""
        with self._lock:
            return {host: dict(sightings) for host, sightings in self._book.origins.hosts.items()}

    def reset(self, task: str | None = None) -> int:
        """Forget the figures of *task*, or all; how many tasks had any."""
        with self._lock:
            before = len(self._book.tasks)
            self._book.clear(task)
            if task is None:
                self._since = time.time()
            return before - len(self._book.tasks)

    def close(self) -> None:
        """Nothing to give back."""
