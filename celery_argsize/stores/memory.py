"""A store in the memory of one process, for workers without Redis."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from celery_argsize.figures.counters import Figures, Tally

if TYPE_CHECKING:
    from celery_argsize.figures.origins import Sighting
    from celery_argsize.settings import Settings
    from celery_argsize.stores.base import Batch


class MemoryStore:
    """A ``Store`` whose figures are lost when the process ends."""

    where = "the memory of this process"
    shared = False

    def __init__(self, settings: Settings) -> None:
        self._app = settings.app_name
        self._tally = Tally(settings.max_task_names)
        self._lock = threading.Lock()
        self._sequences: dict[str, int] = {}
        self._since: float | None = None
        self._updated: float | None = None

    def apply(self, batch: Batch, failed: int = 0) -> None:  # noqa: ARG002 - writes never fail here
        with self._lock:
            if self._sequences.get(batch.writer, 0) >= batch.sequence:
                return
            self._sequences[batch.writer] = batch.sequence
            self._updated = time.time()
            self._since = self._since or self._updated
            self._tally.merge(batch.tasks.items())
            self._tally.origins.merge(batch.origins)

    def read(self, fields: tuple[str, ...] = ()) -> Figures:  # noqa: ARG002 - gives all fields
        with self._lock:
            return Figures(self._app, self._tally.copy().tasks, self._since, self._updated)

    def read_origins(self) -> dict[str, dict[str, Sighting]]:
        with self._lock:
            return {host: {**sightings} for host, sightings in self._tally.origins.hosts.items()}

    def reset(self, task: str | None = None) -> int:
        with self._lock:
            before = len(self._tally.tasks)
            self._tally.clear(task)
            if task is None:
                self._since = time.time()
            return before - len(self._tally.tasks)

    def close(self) -> None:
        pass
