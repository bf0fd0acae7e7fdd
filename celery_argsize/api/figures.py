"""The public functions that read figures and add to them. They wait for Redis."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Final

from celery_argsize.api.location import Reader, locate, open_store
from celery_argsize.figures.counters import Tally, rules_of
from celery_argsize.figures.summary import Summary, summarize
from celery_argsize.measuring.measurement import fit
from celery_argsize.stores.base import Batch, writer_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery
    from typing_extensions import Unpack

    from celery_argsize.api.location import Where
    from celery_argsize.measuring.measurement import Measurement

#: Seconds to wait for the worker in this process to write its figures.
FLUSH_TIMEOUT: Final = 1.0

_lock: Final = threading.Lock()


def get_size_summary(app: Celery | None = None, **where: Unpack[Where]) -> Summary:
    """What all workers measured so far.

    *where*: ``redis_url``, ``key_prefix``, ``app_name``. With a ``redis_url`` and no
    ``app_name``, the figures of all apps under the prefix are added up.

    Raises:
        ConfigError: it is not clear where to look.
        StoreError: Redis could not be read.
    """
    location = locate(app, **where)
    if location.flusher:
        location.flusher.flush(FLUSH_TIMEOUT)
    with closing(Reader(location)) as reader:
        return summarize(*reader.read_each())


def update_size_metrics(measurement: Measurement, app: Celery | None = None, **where: Unpack[Where]) -> None:
    """Add *measurement* to the figures.

    A worker counts it like those of its tasks, without waiting; any other process
    writes it at once. *where*: ``redis_url``, ``key_prefix``, ``app_name``.

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
    # A store takes the batches of a writer in the order of their numbers only.
    with closing(open_store(location, write=True)) as store, _lock:
        name, numbers = _writer(os.getpid())
        store.apply(Batch(name, next(numbers), tally.tasks, tally.origins.take()))


@cache
def _writer(_pid: int) -> tuple[str, Iterator[int]]:
    """The name under which this process writes, and the numbers of its batches."""
    return writer_name(""), count(1)
