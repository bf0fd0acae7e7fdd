"""Which store a call means: a Redis that was named, an app's, or the one app's that has the monitor in this process.

Used by what people call (``api``, ``reset``); workers know theirs (``monitor``).
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celery_argsize import settings as config
from celery_argsize.errors import ConfigError, StoreError
from celery_argsize.figures.summary import added_up
from celery_argsize.stores.memory import MemoryStore
from celery_argsize.worker import monitor as monitors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery

    from celery_argsize.figures.counters import Figures
    from celery_argsize.settings import Settings
    from celery_argsize.stores.base import Store
    from celery_argsize.worker.monitor import Monitor


@dataclass(frozen=True, slots=True)
class Location:
    """Where the figures are, and who may be asked about them."""

    settings: Settings
    app: Celery | None = None
    monitor: Monitor | None = None
    all_apps: bool = False
    """No app was named: whatever apps are found under the key prefix."""


def locate(app: Celery | None, **given: str | None) -> Location:
    """What *app*, and the settings *given* (those not ``None``), mean.

    Raises:
        ConfigError: it is not clear which store is meant.
    """
    named = {name: value for name, value in given.items() if value is not None}
    monitor = monitors.installed(app)
    if app is None and monitor is not None and "redis_url" not in named:
        app = monitor.app
    if app is not None:
        overrides = {**(monitor.overrides if monitor else {}), **named}
        return Location(config.resolve(overrides, app), app, monitor if "redis_url" not in named else None)
    settings = config.resolve(named)
    if settings.redis_url is None:
        message = (
            "redis_url is not set and no single app has celery_argsize installed in this process: name an app "
            "(app=, -A) or a Redis (redis_url=, --redis-url), or set CELERY_ARGSIZE_REDIS_URL or REDIS_URL"
        )
        raise ConfigError(message)
    return Location(settings, all_apps=not (named.get("app_name") or os.environ.get("CELERY_ARGSIZE_APP_NAME")))


@contextmanager
def open_store(location: Location, *, write: bool = False) -> Iterator[Store]:
    """The store of *location*, for as long as the block lasts; *write* may make one in this process's memory.

    Raises:
        ConfigError: there is none that this process could see.
        StoreError: it is in another process's memory.
    """
    if location.settings.redis_url is None:
        yield _memory_store(location, write=write)
        return
    from celery_argsize.stores.redis import RedisStore  # noqa: PLC0415 - only who uses Redis pays for the import

    store = RedisStore(location.settings)
    try:
        yield store
    finally:
        store.close()


def _memory_store(location: Location, *, write: bool) -> Store:
    """The store of the worker in this process, or one for what this process itself adds."""
    monitor = location.monitor
    if monitor is not None and monitor.in_child:
        message = (
            "no Redis is configured: the figures are in the memory of the worker's main process, not in its children"
        )
        raise StoreError(message)
    if monitor is not None and monitor.store is None and write:
        monitor.store = MemoryStore(location.settings)
    if monitor is None or monitor.store is None:
        message = (
            "redis_url is not set, and the app uses no Redis that it could be taken from: each worker keeps its "
            "figures in its own memory, and logs them when it stops; set argsize_redis_url to see them from here"
        )
        raise ConfigError(message)
    return monitor.store


def each_app(location: Location) -> list[Location]:
    """*location* for each app that is meant: one, or those found under the key prefix.

    Raises:
        StoreError: Redis could not be read.
    """
    if not location.all_apps:
        return [location]
    from celery_argsize.stores.redis import apps_in  # noqa: PLC0415 - as above

    return [Location(config.with_app(location.settings, name)) for name in apps_in(location.settings)]


class Reader:
    """Reads the figures of *location* again and again, over one connection that stays open; one thread at a time.

    Raises:
        ConfigError: they are in no Redis, and not in this process.
        StoreError: they are in another process's memory.
    """

    def __init__(self, location: Location) -> None:
        self._each: Callable[..., list[Figures]]
        if location.settings.redis_url is None:
            store = _memory_store(location, write=False)
            self.where, self.close = store.where, store.close
            self._each = lambda *_: [store.read()]
            return
        from celery_argsize.stores.redis import AppsStore, RedisStore  # noqa: PLC0415 - as above

        if location.all_apps:
            apps = AppsStore(location.settings)
            self.where, self.close, self._each = apps.where, apps.close, apps.read_each
        else:
            single = RedisStore(location.settings)
            self.where, self.close = single.where, single.close
            self._each = lambda *fields: [single.read(*fields)]

    def read_each(self) -> list[Figures]:
        """All figures of each app that is meant.

        Raises:
            StoreError: they could not be read.
        """
        return self._each()

    def read(self, fields: tuple[str, ...]) -> Figures:
        """Those *fields* of all apps that are meant, added up.

        Raises:
            StoreError: they could not be read.
        """
        found = self._each(fields)
        return found[0] if len(found) == 1 else added_up(found)
