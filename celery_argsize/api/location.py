"""Finds the figures that a call means, and opens them.

The first of these counts: the Redis named in the call, the app named in the call,
the only app in this process with ``install``, the Redis named in the environment.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

from celery_argsize.errors import ConfigError, StoreError
from celery_argsize.figures.summary import added_up
from celery_argsize.settings import resolve
from celery_argsize.stores.fields import ANY
from celery_argsize.stores.memory import MemoryStore
from celery_argsize.worker import monitor as monitors

if TYPE_CHECKING:
    from celery import Celery

    from celery_argsize.figures.counters import Figures
    from celery_argsize.settings import Settings
    from celery_argsize.stores.base import Store
    from celery_argsize.worker.flusher import Flusher
    from celery_argsize.worker.monitor import Monitor


class Where(TypedDict, total=False):
    """Keywords of the public functions: settings for one call."""

    redis_url: str | None
    key_prefix: str | None
    app_name: str | None


@dataclass(frozen=True, slots=True)
class Location:
    """The place of some figures: a Redis, or this process."""

    settings: Settings
    app: Celery | None = None
    monitor: Monitor | None = None
    """The app's monitor in this process."""
    all_apps: bool = False
    """All apps under the key prefix are meant, as none was named."""

    @property
    def flusher(self) -> Flusher | None:
        """Writes the figures of the worker in this process, if there is one."""
        return self.monitor.flusher if self.monitor else None


def locate(app: Celery | None, **where: str | None) -> Location:
    """The figures that *app* and *where* mean. ``None`` in *where* is as if left out.

    Raises:
        ConfigError: it is not clear which figures are meant.
    """
    given = {name: value for name, value in where.items() if value is not None}
    monitor = monitors.installed(app)
    if app is None and monitor is not None and "redis_url" not in given:
        app = monitor.app
    if app is not None:
        overrides = (monitor.overrides if monitor else {}) | given
        return Location(resolve(overrides, app), app, monitor if "redis_url" not in given else None)
    settings = resolve(given)
    if settings.redis_url is None:
        message = (
            "redis_url is not set and no single app has celery_argsize installed here: name an app (app=, -A) "
            "or a Redis (redis_url=, --redis-url), or set CELERY_ARGSIZE_REDIS_URL or REDIS_URL"
        )
        raise ConfigError(message)
    return Location(settings, all_apps=not (given.get("app_name") or os.environ.get("CELERY_ARGSIZE_APP_NAME")))


def open_store(location: Location, *, write: bool = False) -> Store:
    """The store of *location*; close it. *write*: make one in memory if there is none.

    Raises:
        ConfigError: this process can see no store.
        StoreError: the store is in another process's memory.
    """
    if location.settings.redis_url is not None:
        from celery_argsize.stores.redis import AppsStore, RedisStore  # noqa: PLC0415 - slow

        return (AppsStore if location.all_apps else RedisStore)(location.settings)
    monitor = location.monitor
    if monitor is not None and monitor.in_child:
        message = "no Redis is configured: the figures are in the memory of the worker's main process"
        raise StoreError(message)
    if monitor is not None and monitor.store is None and write:
        monitor.store = MemoryStore(location.settings)
    if monitor is None or monitor.store is None:
        message = (
            "redis_url is not set, and the app uses no Redis: each worker keeps its figures in its own memory, and "
            "logs them when it stops; set argsize_redis_url to see them from here"
        )
        raise ConfigError(message)
    return monitor.store


def each_app(location: Location) -> list[Location]:
    """The location of each app that *location* means.

    Raises:
        StoreError: Redis could not be read.
    """
    if not location.all_apps:
        return [location]
    from celery_argsize.stores.redis import apps_in  # noqa: PLC0415 - slow

    return [Location(replace(location.settings, app_name=name)) for name in apps_in(location.settings)]


class Reader:
    """Reads the figures of *location* over one open connection. For one thread at a time.

    Raises:
        ConfigError: the figures are neither in a Redis nor in this process.
        StoreError: they are in another process's memory.
    """

    def __init__(self, location: Location) -> None:
        self._all_apps = location.all_apps
        self._store: Any = open_store(location)
        self.where: str = self._store.where
        self.close = self._store.close

    def read_each(self, fields: tuple[str, ...] = ANY) -> list[Figures]:
        """The figures of each app: at least the counters that begin with one of *fields*.

        Raises:
            StoreError: they could not be read.
        """
        return self._store.read_each(fields) if self._all_apps else [self._store.read(fields)]

    def read(self, fields: tuple[str, ...]) -> Figures:
        """The figures of all apps, added up.

        Raises:
            StoreError: they could not be read.
        """
        figures = self.read_each(fields)
        return figures[0] if len(figures) == 1 else added_up(figures)
