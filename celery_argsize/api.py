"""The functions that people call: read the figures, add to them, reset them, from any process.

Each finds its store in the same way: a ``redis_url`` that was given, else the *app* that was given, else the one app
that ``install`` was called for in this process, else ``CELERY_ARGSIZE_REDIS_URL``. Unlike what runs beside tasks, these
wait for Redis and raise.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from celery_argsize import config, monitor as monitors
from celery_argsize.advice import Recommendation, recommend
from celery_argsize.errors import ConfigError, StoreError
from celery_argsize.recorder import NAME_BYTES, clean
from celery_argsize.stats import Book, Rules
from celery_argsize.stores.base import Batch
from celery_argsize.stores.memory import MemoryStore
from celery_argsize.summary import Summary, summarize

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

    from celery_argsize.config import Settings
    from celery_argsize.monitor import Monitor
    from celery_argsize.stats import Figures, Measurement
    from celery_argsize.stores.base import Store

__all__ = [
    "ResetResult",
    "auto_configure_celery_limits",
    "get_size_summary",
    "reset_metrics",
    "update_size_metrics",
]

#: Seconds to wait for workers to answer.
REPLY_TIMEOUT: Final = 1.0
#: Seconds a worker holds back at most, should the release not reach it.
HOLD_SECONDS: Final = 10.0


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
    target = _target(app, redis_url=redis_url, key_prefix=key_prefix, app_name=app_name)
    if target.monitor is not None and target.monitor.flusher is not None:
        target.monitor.flusher.flush(REPLY_TIMEOUT)
    return summarize(*_figures(target))


def auto_configure_celery_limits(
    app: Celery | None = None,
    *,
    redis_url: str | None = None,
    key_prefix: str | None = None,
    app_name: str | None = None,
) -> Recommendation:
    """The limit and tier that the size guide recommends for what was measured; nothing is changed.

    Raises:
        ConfigError: it is not clear where to look.
        StoreError: Redis could not be read.
    """
    return recommend(get_size_summary(app, redis_url=redis_url, key_prefix=key_prefix, app_name=app_name))


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
    target = _target(app, redis_url=redis_url, key_prefix=key_prefix, app_name=app_name)
    if target.monitor is not None and target.monitor.put(measurement):
        return
    settings = target.settings
    book = Book(1)
    book.add(measurement, Rules(settings.large_task_chars, settings.histogram_buckets))
    with _open(target, write=True) as store:
        _writer.write(store, book)


@dataclass(frozen=True, slots=True)
class ResetResult:
    """What a reset did."""

    task: str | None
    """The task that was to be forgotten, or ``None`` for all."""
    forgotten: int | None
    """How many tasks had figures; ``None`` where only the workers know."""
    apps: tuple[str, ...]
    """The apps that were looked at."""
    workers: tuple[str, ...] = ()
    """Live workers that wrote all they had before, so that nothing from before the reset comes back."""
    failed: tuple[str, ...] = ()
    """Live workers that could not: up to one flush interval from before may come back."""
    note: str = ""
    """Why live workers were not asked, where they were not."""

    def __str__(self) -> str:
        apps = f"(app: {', '.join(self.apps) or 'none found'})"
        if self.forgotten == 0:
            lines = [f"There were no figures{f' of {self.task}' if self.task else ''} {apps}."]
        else:
            lines = [f"{f'The figures of {self.task}' if self.task else 'All figures'} were reset {apps}."]
        if self.note:
            lines.append(self.note)
        elif self.workers:
            lines.append(f"Workers that wrote what they had first: {', '.join(self.workers)}.")
        else:
            lines.append("No live worker answered.")
        if self.failed:
            lines.append(
                f"Workers that could not: {', '.join(self.failed)}; up to one flush interval from before may come back."
            )
        return "\n".join(lines)


def reset_metrics(
    app: Celery | None = None,
    *,
    task: str | None = None,
    redis_url: str | None = None,
    key_prefix: str | None = None,
    app_name: str | None = None,
) -> ResetResult:
    """Forget the figures of *task*, or all of them, to start afresh after a change.

    Live workers are asked (through Celery's remote control) to write what they have first, so that nothing from before
    comes back, and nothing measured after is lost. With a *redis_url* alone there is no way to ask them: what is
    stored is forgotten, and the result says so.

    Raises:
        ConfigError: it is not clear what to reset.
        StoreError: Redis could not be written.
    """
    target = _target(app, redis_url=redis_url, key_prefix=key_prefix, app_name=app_name)
    task = None if task is None else clean(task, NAME_BYTES)
    hold = _hold(target)
    try:
        done = {single.settings.app_name: _reset(single, task, hold) for single in _each_app(target)}
    finally:
        _release(target, hold, task)
    counts = [count for count in done.values() if count is not None]
    forgotten = sum(counts) if len(counts) == len(done) else None
    return ResetResult(task, forgotten, tuple(done), hold.written, hold.failed, hold.note)


def _reset(target: _Target, task: str | None, hold: _Hold) -> int | None:
    if target.settings.redis_url is None and hold.written:
        return None  # each worker forgets its own when it is released
    with _open(target) as store:
        return store.reset(task)


# -- which store ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Target:
    settings: Settings
    app: Celery | None = None
    monitor: Monitor | None = None
    all_apps: bool = False
    """No app was named: whatever apps are found under the key prefix."""


def _target(app: Celery | None, **given: str | None) -> _Target:
    named = {name: value for name, value in given.items() if value is not None}
    monitor = monitors.installed(app)
    if "redis_url" in named and app is None:
        settings = config.resolve(named)
        return _Target(settings, all_apps=not (named.get("app_name") or os.environ.get("CELERY_ARGSIZE_APP_NAME")))
    if app is None and monitor is not None:
        app = monitor.app
    if app is not None:
        overrides = {**(monitor.overrides if monitor else {}), **named}
        return _Target(config.resolve(overrides, app), app, monitor if "redis_url" not in named else None)
    settings = config.resolve(named)
    if settings.redis_url is None:
        message = (
            "redis_url is not set and no single app has celery_argsize installed in this process: name an app "
            "(app=, -A) or a Redis (redis_url=, --redis-url), or set CELERY_ARGSIZE_REDIS_URL"
        )
        raise ConfigError(message)
    return _Target(settings, all_apps=not (named.get("app_name") or os.environ.get("CELERY_ARGSIZE_APP_NAME")))


@contextmanager
def _open(target: _Target, *, write: bool = False) -> Iterator[Store]:
    if target.settings.redis_url is None:
        yield _memory_store(target, write=write)
        return
    from celery_argsize.stores.redis import RedisStore  # noqa: PLC0415 - only who uses Redis pays for the import

    store = RedisStore(target.settings)
    try:
        yield store
    finally:
        store.close()


def _memory_store(target: _Target, *, write: bool) -> Store:
    """The store of the worker in this process, or one for what this process itself adds."""
    monitor = target.monitor
    if monitor is not None and monitor.in_child:
        message = (
            "no Redis is configured: the figures are in the memory of the worker's main process, not in its children"
        )
        raise StoreError(message)
    if monitor is not None and monitor.store is None and write:
        monitor.store = MemoryStore(target.settings)
    if monitor is None or monitor.store is None:
        message = (
            "redis_url is not set, and the app uses no Redis that it could be taken from: each worker keeps its "
            "figures in its own memory, and logs them when it stops; set argsize_redis_url to see them from here"
        )
        raise ConfigError(message)
    return monitor.store


def _each_app(target: _Target) -> list[_Target]:
    if not target.all_apps:
        return [target]
    from celery_argsize.stores.redis import apps_in  # noqa: PLC0415 - as above

    return [_Target(config.with_app(target.settings, name)) for name in apps_in(target.settings)]


def _figures(target: _Target) -> list[Figures]:
    found = []
    for single in _each_app(target):
        with _open(single) as store:
            found.append(store.read())
    return found


class _Writer:
    """This process as a writer of single measurements: one name, a rising sequence, one at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._name = ""
        self._sequence = 0

    def write(self, store: Store, book: Book) -> None:
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._name, self._sequence = os.getpid(), monitors.writer_name(""), 0
            self._sequence += 1
            store.apply(Batch(self._name, self._sequence, book.tasks))


_writer: Final = _Writer()


# -- live workers --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Hold:
    """Which live workers wrote what they had and hold back now, which could not, and why none was asked."""

    written: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    """Those of them in other processes, who answered through remote control."""
    note: str = ""


def _hold(target: _Target) -> _Hold:
    """Ask live workers to write and hold back, the one in this process first: its loop may be waiting for us."""
    answers: dict[str, bool] = {}
    answered: tuple[str, ...] = ()
    note = ""
    monitor = target.monitor
    if monitor is not None and monitor.flusher is not None:
        answers[monitor.hostname] = monitor.flusher.flush(REPLY_TIMEOUT, hold=HOLD_SECONDS)
    if target.app is None:
        note = "Live workers were not asked to write what they have first, as only a Redis URL was given."
    else:
        try:
            replies = _broadcast(target, "argsize_hold", {"seconds": HOLD_SECONDS}, reply=True)
        except Exception as exc:  # noqa: BLE001 - each broker library has errors of its own
            note = f"Live workers could not be asked to write what they have first ({type(exc).__name__})."
        else:
            said = {name: answer for reply in replies or [] for name, answer in reply.items()}
            heard = {name: bool(answer["ok"]) for name, answer in said.items() if "ok" in answer}
            answered = tuple(heard.keys() - answers.keys())
            answers.update(heard)
    written = tuple(sorted(name for name, wrote in answers.items() if wrote and name))
    failed = tuple(sorted(name for name, wrote in answers.items() if not wrote))
    return _Hold(written, failed, answered, note)


def _release(target: _Target, hold: _Hold, task: str | None) -> None:
    # Only those that answered: one that hears both late, after a long task, has no cut to forget anything by.
    if hold.answered:
        with suppress(Exception):  # each broker library has errors of its own; a hold ends by itself
            _broadcast(target, "argsize_release", {"task": task}, reply=False, destination=hold.answered)
    if target.monitor is not None and target.monitor.flusher is not None:
        target.monitor.flusher.release(REPLY_TIMEOUT, forget=True, task=task)


def _broadcast(
    target: _Target,
    command: str,
    arguments: dict[str, Any],
    *,
    reply: bool,
    destination: tuple[str, ...] | None = None,
) -> Any:
    assert target.app is not None  # noqa: S101 - for mypy
    with target.app.connection_for_write(connect_timeout=REPLY_TIMEOUT) as connection:
        # Without this, an absent broker would be tried a hundred times.
        connection.ensure_connection(max_retries=1, timeout=round(3 * REPLY_TIMEOUT))
        return target.app.control.broadcast(
            command,
            arguments={**arguments, "base": target.settings.base},
            destination=destination and list(destination),
            reply=reply,
            timeout=REPLY_TIMEOUT,
            connection=connection,
        )
