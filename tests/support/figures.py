"""Writes figures to a Redis as workers do, for tests of the code that reads them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from celery_argsize import Measurement, Part, Size
from celery_argsize.figures.counters import Rules, Tally
from celery_argsize.settings import DEFAULT_BUCKETS, Settings
from celery_argsize.stores.base import Batch
from celery_argsize.stores.redis import RedisStore

if TYPE_CHECKING:
    from celery_argsize.measuring.cuts import Verdict


class Figures:
    """The figures of one app. They are in ``store``."""

    def __init__(self, url: str, app: str = "music") -> None:
        self.url = url
        self.store = RedisStore(Settings(redis_url=url, app_name=app))
        self._sequence = 0

    def add(self, name: str, *sizes: int, kwargs: int = 0, cause: Verdict = "intact") -> None:
        """Add one run of the task *name* for each of *sizes*, the characters of args."""
        parts = [(Part(Size(size, size), cause), Part(Size(kwargs, kwargs), "intact")) for size in sizes]
        self.add_parts(name, *parts)

    def add_parts(self, name: str, *runs: tuple[Part, Part]) -> None:
        """Add one run of the task *name* for each pair of args and kwargs in *runs*."""
        tally = Tally(1000)
        for parts in runs:
            tally.add(Measurement(name, "id", *parts, time.time()), Rules(1024, DEFAULT_BUCKETS))
        self._sequence += 1
        self.store.apply(Batch("the writer", self._sequence, tally.tasks))
