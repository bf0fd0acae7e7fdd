"""The functions that people call from any process: read the figures, add to them. ``reset`` has the one that forgets.

Each finds its store in the same way: a ``redis_url`` that was given, else the *app* that was given, else the one app
that ``install`` was called for in this process, else ``CELERY_ARGSIZE_REDIS_URL``. Unlike what runs beside tasks, these
wait for Redis and raise.
"""

from __future__ import annotations

import os
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Final

from celery_argsize.api.location import Reader, locate, open_store
from celery_argsize.figures.counters import Tally, rules_of
from celery_argsize.figures.summary import Summary, summarize
from celery_argsize.measuring.measurement import fit
from celery_argsize.stores.base import Batch, writer_name

if TYPE_CHECKING:
    from celery import Celery

    from celery_argsize.measuring.measurement import Measurement
    from celery_argsize.stores.base import Store

#: Seconds to wait for the worker in this process to write what it has.
FLUSH_TIMEOUT: Final = 1.0


def get_size_summary(
    app: Celery | None = None,
    *,
    redis_url: str | None = None,
    key_prefix: str | None = None,
    app_name: str | None = None,
) -> Summary:
    """What was measured so far, by all workers.

    With a *redis_url* and no *app_name*, the figures of all apps under *key_prefix* are added up.

    Raises:
        ConfigError: it is not clear where to look.
        StoreError: Redis could not be read.
    """
    location = locate(app, redis_url=redis_url, key_prefix=key_prefix, app_name=app_name)
    if location.monitor is not None and location.monitor.flusher is not None:
        location.monitor.flusher.flush(FLUSH_TIMEOUT)
    with closing(Reader(location)) as reader:
        return summarize(*reader.read_each())


def update_size_metrics(
    measurement: Measurement,
    app: Celery | None = None,
    *,
    redis_url: str | None = None,
    key_prefix: str | None = None,
    app_name: str | None = None,
) -> None:
    """Add one measurement to the figures.

    Where tasks run, it is handed over as theirs are, without waiting; elsewhere it is written at once.

    Raises:
        ConfigError: it is not clear where to write.
        StoreError: Redis could not be written.
    """
    location = locate(app, redis_url=redis_url, key_prefix=key_prefix, app_name=app_name)
    measurement = fit(measurement)
    if location.monitor is not None and location.monitor.put(measurement):
        return
    settings = location.settings
    tally = Tally(1)
    tally.add(measurement, rules_of(settings))
    with open_store(location, write=True) as store:
        _writer.write(store, tally)


class _Writer:
    """This process as a writer of single measurements: one name, a rising sequence, one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._name = ""
        self._sequence = 0

    def write(self, store: Store, tally: Tally) -> None:
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._name, self._sequence = os.getpid(), writer_name(""), 0
            self._sequence += 1
            store.apply(Batch(self._name, self._sequence, tally.tasks, tally.origins.take()))


_writer: Final = _Writer()
