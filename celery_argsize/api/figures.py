"""The public functions that read the figures and add to them. They wait for Redis, and raise if it cannot be used."""

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
    from typing_extensions import Unpack

    from celery_argsize.api.location import Where
    from celery_argsize.measuring.measurement import Measurement
    from celery_argsize.stores.base import Store

#: Seconds to wait for the worker in this process to write what it has.
FLUSH_TIMEOUT: Final = 1.0


def get_size_summary(app: Celery | None = None, **where: Unpack[Where]) -> Summary:
    """What all workers measured so far.

    *where* takes ``redis_url``, ``key_prefix`` and ``app_name``. With a ``redis_url`` and no ``app_name``, those of
    all apps under the prefix are added up.

    Raises:
        ConfigError: it is not clear where to look.
        StoreError: Redis could not be read.
    """
    location = locate(app, **where)
    if location.monitor is not None and location.monitor.flusher is not None:
        location.monitor.flusher.flush(FLUSH_TIMEOUT)
    with closing(Reader(location)) as reader:
        return summarize(*reader.read_each())


def update_size_metrics(measurement: Measurement, app: Celery | None = None, **where: Unpack[Where]) -> None:
    """Add *measurement* to the figures.

    In a worker it is counted as those of tasks are, without waiting; elsewhere it is written at once.
    *where* takes ``redis_url``, ``key_prefix`` and ``app_name``.

    Raises:
        ConfigError: it is not clear where to write.
        StoreError: Redis could not be written.
    """
    location = locate(app, **where)
    measurement = fit(measurement)
    if location.monitor is not None and location.monitor.put(measurement):
        return
    tally = Tally(1)
    tally.add(measurement, rules_of(location.settings))
    with closing(open_store(location, write=True)) as store:
        _writer.write(store, tally)


class _Writer:
    """This process, as a store knows it: a name, and numbered batches, one at a time."""

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
