"""How many Redis connections a configuration can open, the settings that fit, and settings out of the environment.

Pure: an app's configuration is read, and nothing is connected to. What opens connections is in ``connection_model``,
what fits in ``connection_fit``, and the words in ``connection_text``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import celery

from celery_argsize import settings as config
from celery_argsize.connections.fit import (
    LEAST,
    FittingSettings,
    fitting,
    largest_concurrency,
    needed,
    needed_for_results,
    remedies,
)
from celery_argsize.connections.model import GREEN, POOLS, SHARED, ConnectionItem, Setup, items_of, pool_name, totals
from celery_argsize.errors import ConfigError
from celery_argsize.redis_url import is_redis_url, parse_redis_url, safe_url
from celery_argsize.words import cut, pad, width
from celery_argsize.worker.monitor import installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

    from celery_argsize.connections.model import ConnectionItem

#: What the variables of ``connection_settings`` stand for when they are unset.
DEFAULT_POOL_LIMIT: Final = 8
DEFAULT_CAP: Final = 20

#: Celery's own scheduler. Another one, such as that of django-celery-beat, keeps its schedule elsewhere.
FILE_SCHEDULER: Final = "celery.beat:PersistentScheduler"

#: The first Celery whose Redis result backend threads can share (its ResultConsumer has a lock): with those before,
#: threads that wait for results at the same time read each other's replies, and fail with "Protocol Error".
SHAREABLE: Final = (5, 7)


@dataclass(frozen=True, slots=True)
class ConnectionBudget:
    """How many Redis connections a configuration can open at most, and whether they fit."""

    max_clients: int
    """How many clients each Redis takes."""
    reserve: int
    """How many of them are kept free, for a person's ``redis-cli``."""
    setup: Setup
    """What was counted."""
    items: tuple[ConnectionItem, ...]
    """What opens connections."""
    settings: FittingSettings | None
    """Settings that fit; ``None``: none do."""
    largest_concurrency: int
    """The largest concurrency that fits, with the settings that need the fewest connections; 0: none does."""
    notes: tuple[str, ...]
    """What cannot work, or what is not counted."""

    @property
    def servers(self) -> dict[str, int | None]:
        """By Redis, ``host:port``: how many connections at most; ``None``: nothing bounds them."""
        return totals(self.items)

    @property
    def at_most(self) -> int | None:
        """How many connections the fullest Redis gets at most; ``None``: nothing bounds them."""
        counts = self.servers.values()
        return None if None in counts else max(filter(None, counts), default=0)

    @property
    def fits(self) -> bool:
        """Whether each Redis has room for all of them, and for the reserve."""
        return self.at_most is not None and self.at_most + self.reserve <= self.max_clients

    def to_json(self) -> dict[str, Any]:
        """This budget as JSON-able data."""
        return {
            "max_clients": self.max_clients,
            "reserve": self.reserve,
            "at_most": self.at_most,
            "fits": self.fits,
            "servers": self.servers,
            "workers": self.setup.workers,
            "pool": self.setup.pool,
            "concurrency": self.setup.concurrency,
            "items": [item.to_json() for item in self.items],
            "settings": self.settings and self.settings.to_json(),
            "largest_concurrency": self.largest_concurrency,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        return budget_text(self)


def connection_budget(  # noqa: PLR0913 - each is one number of the cluster's shape
    app: Celery,
    max_clients: int = 30,
    workers: int = 1,
    concurrency: int | None = None,
    *,
    pool: str | None = None,
    producers: int = 1,
    threads: int = 1,
    beat: bool | str = "auto",
    inspectors: int = 1,
    gossip: bool = True,
    control: bool = False,
    reserve: int = 1,
) -> ConnectionBudget:
    """How many Redis connections *app*'s configuration can open at most. Nothing is connected to.

    Args:
        app: whose configuration counts. It is not changed.
        max_clients: how many clients the Redis takes; if there are several, each of them.
        workers: how many ``celery worker`` run.
        concurrency: tasks at once in each worker; ``worker_concurrency``, else the number of CPUs, if not given.
            With ``--autoscale``, its maximum.
        pool: ``--pool``: prefork, solo, threads, eventlet or gevent; ``worker_pool`` if not given.
        producers: processes that send tasks, such as those of a web server.
        threads: threads, or greenlets, that send in each of them.
        beat: whether Beat runs; ``"auto"``: if there is a ``beat_schedule`` or a ``beat_scheduler``.
        inspectors: how many people run ``celery inspect`` or ``celery argsize doctor`` at once.
        gossip: ``False`` if all workers run with ``--without-gossip``.
        control: whether tasks and producers send remote control too, such as ``revoke``.
        reserve: how many clients to keep free.

    Raises:
        ConfigError: a number, a pool, a URL or options that cannot be.
    """
    setup = Setup(
        workers=_checked("workers", workers, 1),
        concurrency=_concurrency(app, concurrency),
        pool=_pool(app, pool),
        producers=_checked("producers", producers, 0),
        threads=_checked("threads", threads, 1),
        inspectors=_checked("inspectors", inspectors, 0),
        beat=_beat(app, beat),
        beat_control=bool(app.conf.get("beat_enable_remote_control")),
        gossip=gossip,
        worker_control=bool(app.conf.worker_enable_remote_control),
        control=control,
        broadcasts=_broadcasts(app),
        pool_limit=_checked("broker_pool_limit", app.conf.broker_pool_limit or 0, 0),
        thread_safe=bool(app.conf.get("result_backend_thread_safe")),
        shareable=celery.VERSION[:2] >= SHAREABLE,
        **_places(app),
    )
    if setup.pool == "solo":
        setup = replace(setup, concurrency=1)
    room = _checked("max_clients", max_clients, 1) - _checked("reserve", reserve, 0)
    return ConnectionBudget(
        max_clients=max_clients,
        reserve=reserve,
        setup=setup,
        items=items_of(setup),
        settings=fitting(setup, room),
        largest_concurrency=largest_concurrency(setup, room),
        notes=tuple(_notes(app, setup)),
    )


def _checked(name: str, value: object, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        message = f"{name} = {value!r} cannot work; allowed: a whole number, {low} or more"
        raise ConfigError(message)
    return value


def _concurrency(app: Celery, concurrency: int | None) -> int:
    if concurrency is None:
        return _checked("worker_concurrency", app.conf.worker_concurrency or os.cpu_count() or 1, 1)
    return _checked("concurrency", concurrency, 1)


def _pool(app: Celery, pool: str | None) -> str:
    name = str(pool or app.conf.worker_pool or "prefork")
    short = pool_name(name)
    if short not in POOLS:
        message = f"{'pool' if pool else 'worker_pool'} = {name!r} is not known; allowed: {', '.join(POOLS)}"
        raise ConfigError(message)
    return short


def _beat(app: Celery, beat: bool | str) -> bool:  # noqa: FBT001 - the public argument
    if beat == "auto":
        return bool(app.conf.beat_schedule) or app.conf.beat_scheduler != FILE_SCHEDULER
    if not isinstance(beat, bool):
        message = f"beat = {beat!r} cannot work; allowed: True, False or 'auto'"
        raise ConfigError(message)
    return beat


def _broadcasts(app: Celery) -> bool:
    queues: Any = app.conf.task_queues or ()
    queues = queues.values() if hasattr(queues, "values") else queues
    exchanges = (getattr(queue, "exchange", None) for queue in queues)
    return any(getattr(exchange, "type", None) == "fanout" for exchange in exchanges)


def _places(app: Celery) -> dict[str, Any]:
    """The Redis of each use, and whether producers of *app* have one of ours."""
    for name in ("broker_transport_options", "result_backend_transport_options"):
        _options(app, name)
    monitor = installed(app)
    ours = config.resolve({}, app) if monitor is None else monitor.settings
    result = app.conf.result_backend
    if result == "redis":  # without a URL: made of the redis_* settings
        result = f"redis://{app.conf.get('redis_host') or 'localhost'}:{app.conf.get('redis_port') or 6379}"
    return {
        "read": _server("broker_read_url", app.conf.broker_read_url),
        "write": _server("broker_write_url", app.conf.broker_write_url),
        "result": _server("result_backend", result),
        "ours": _server("redis_url", ours.redis_url) if ours.enabled else None,
        "eager": ours.enabled and ours.include_eager,
    }


def _options(app: Celery, name: str) -> Mapping[str, Any]:
    options = app.conf.get(name) or {}
    if not isinstance(options, Mapping):
        message = f"{name} cannot work; allowed: a dict"  # what it is may be secret
        raise ConfigError(message)
    return options


def _server(name: str, url: object) -> str | None:
    try:
        return server_of(url)
    except ConfigError as exc:
        message = f"{name} = {_shown(url)} cannot work: {exc}"
        raise ConfigError(message) from None


def server_of(url: object) -> str | None:
    """Which Redis *url* leads to: ``host:port``, the path of a socket, or its sentinels; ``None`` if to none.

    The same for each database of a server, and for each name of this machine: what ``ConnectionBudget.servers`` has. Of
    several brokers, the first counts.

    Raises:
        ConfigError: it cannot work; the message has no part of it that may be secret.
    """
    if not is_redis_url(next(iter(_each(url)), None)):
        return None
    shown = _shown(url)
    several = shown.partition("://")[0].endswith(("sentinel", "cluster"))
    place = parse_redis_url(shown if several else shown.partition(";")[0])
    names = ",".join(sorted(map(_host, place.urls)))
    return f"sentinels {names}" if place.kind == "sentinel" else names


def _each(url: object) -> list[Any]:
    return [url] if isinstance(url, str) else list(url) if isinstance(url, (list, tuple)) else []


def _shown(url: object) -> str:
    return ";".join(map(safe_url, _each(url)))


def _host(url: str) -> str:
    """``host:port``, or the path of a socket; the names of this machine are one."""
    parts = urlsplit(url)
    return f"127.0.0.1:{parts.port}" if parts.hostname in {"localhost", "::1"} else parts.netloc or parts.path


def _notes(app: Celery, setup: Setup) -> Iterator[str]:
    """What the numbers alone do not say."""
    of_channels = _options(app, "broker_transport_options").get("max_connections", 10)  # 10: kombu's own
    ceilings = (
        ('broker_transport_options["max_connections"]', of_channels, setup.read, needed(setup)),
        ("redis_max_connections", app.conf.get("redis_max_connections"), setup.result, needed_for_results(setup)),
    )
    for name, given, server, wanted in ceilings:
        if server and given and _checked(name, given, 1) < wanted:
            yield f'{name} is {given}, but {wanted} may be needed at once: more fail with "Too many connections"'
    if setup.write and setup.pool_limit == 1:
        yield "broker_pool_limit is 1, but inspect and revoke take two connections: they would wait for ever"
    if setup.thread_safe and not setup.shareable and setup.result and (setup.pool in SHARED or setup.threads > 1):
        yield "result_backend_thread_safe needs Celery 5.7 where threads or greenlets wait for results at the same time"
    if setup.pool in GREEN and setup.result and not setup.thread_safe:
        yield (
            "result_backend_thread_safe is off: each greenlet opens connections for results of its own, which stay "
            "until Python collects them, and nothing bounds how many that are"
        )


def connection_settings(
    environ: Mapping[str, str] | None = None, *, base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Celery settings out of the environment, for ``app.conf.update(connection_settings())``.

    ``CELERY_POOL_LIMIT`` (8 if unset) becomes ``broker_pool_limit``. ``CELERY_MAX_CONNECTIONS`` becomes
    ``broker_transport_options["max_connections"]``, and ``CELERY_RESULT_MAX_CONNECTIONS`` ``redis_max_connections``;
    unset, they are what the cap allows. ``CELERY_POOL_LIMIT_CAP`` (20 if unset) is the most for all three.

    None of the three comes out below 2, and a 1 is taken as 2: with 1, remote control waits for ever, and a task that
    waits for a result fails with "Too many connections". Greenlets share pools: with eventlet or gevent, allow 2 more
    than the concurrency for all. An empty variable is an unset one.

    Args:
        environ: where the variables are; ``os.environ`` if not given.
        base: the app's ``broker_transport_options``, as ``app.conf.update`` replaces them as a whole. What is returned
            has them in it: ``app.conf.update(connection_settings(base=app.conf.broker_transport_options))``.

    Raises:
        ConfigError: a variable is not a whole number, 1 or more.
    """
    environ = os.environ if environ is None else environ
    cap = _from(environ, "CELERY_POOL_LIMIT_CAP", DEFAULT_CAP)
    return {
        "broker_pool_limit": min(_from(environ, "CELERY_POOL_LIMIT", DEFAULT_POOL_LIMIT), cap),
        "broker_transport_options": {
            **(base or {}),
            "max_connections": min(_from(environ, "CELERY_MAX_CONNECTIONS", cap), cap),
        },
        "redis_max_connections": min(_from(environ, "CELERY_RESULT_MAX_CONNECTIONS", cap), cap),
    }


def _from(environ: Mapping[str, str], name: str, default: int) -> int:
    text = str(environ.get(name, "")).strip()
    if not text:  # compose files pass on variables that nobody set
        return default
    try:
        number = int(text) if text.isascii() and text.isdecimal() else 0
    except ValueError:  # thousands of digits
        number = 0
    if number < 1:
        message = f"{name} = {cut(text, 40)!r} cannot work; allowed: a whole number, 1 or more"
        raise ConfigError(message)
    return max(number, LEAST)


def budget_text(budget: ConnectionBudget) -> str:
    """What is counted, the verdict for each Redis, and what to paste."""
    setup = budget.setup
    workers = f"{setup.workers} worker{'s' if setup.workers > 1 else ''}"
    lines = [f"Redis connections at most, for {workers} ({setup.pool}, concurrency {setup.concurrency}):", ""]
    lines += _table(budget.items) or ["  none: nothing here uses a Redis"]
    lines += ["", *(_verdict(server, count, budget) for server, count in budget.servers.items())]
    lines += [f"Note: {note}." for note in budget.notes]
    return "\n".join([*lines, *_what_fits(budget)])


def _table(items: tuple[ConnectionItem, ...]) -> list[str]:
    rows = [(item.who, item.what, *_numbers(item), item.server) for item in items]
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    numbers = (False, False, True, True, True, False)
    lines = (
        "  ".join(pad(cell, places, right=right) for cell, places, right in zip(row, widths, numbers, strict=True))
        for row in rows
    )
    return [f"  {line}".rstrip() for line in lines]


def _numbers(item: ConnectionItem) -> tuple[str, str, str]:
    return ("unbounded", "", "") if item.each is None else (f"{item.each}", f"x {item.times}", f"= {item.most}")


def _verdict(server: str, count: int | None, budget: ConnectionBudget) -> str:
    takes = f"{budget.max_clients} clients, {budget.reserve} of them kept free"
    if count is None:
        return f"{server}: unbounded ({takes}): does not fit"
    over = count + budget.reserve - budget.max_clients
    return f"{server}: {count} at most ({takes}): " + (f"{over} too many" if over > 0 else "fits")


def _what_fits(budget: ConnectionBudget) -> Iterator[str]:
    if not budget.items:
        return
    yield ""
    if budget.settings is None:
        yield "Nothing fits, not even concurrency 1. What would, each by itself:"
        yield from (f"  {text}" for text in remedies(budget.setup, budget.max_clients, budget.reserve))
        return
    yield f"Settings that fit (the largest concurrency that does is {budget.largest_concurrency}):"
    yield from (f"  {line}" for line in budget.settings.lines)
