"""How many Redis connections an app's configuration can open: read, not measured.

``model`` counts them, and finds settings that fit.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import celery

from celery_argsize import settings as config
from celery_argsize.connections import model
from celery_argsize.errors import ConfigError
from celery_argsize.redis_url import each_of_messages, of_results, parse_redis_url, safe_url, server_address
from celery_argsize.words import counted, shorten, table
from celery_argsize.worker.monitor import installed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from celery import Celery

#: Celery's own scheduler. Another one may have a schedule outside the configuration.
FILE_SCHEDULER: Final = "celery.beat:PersistentScheduler"
#: The first version of Celery whose threads can share a Redis result backend.
SHAREABLE: Final = (5, 7)


@dataclass(frozen=True, slots=True)
class ConnectionBudget:
    """The most Redis connections that a configuration can open, and whether they fit."""

    max_clients: int
    """Clients that each Redis takes."""
    reserve: int
    """Clients to keep free, for a person's ``redis-cli``."""
    setup: model.Setup
    items: tuple[model.ConnectionItem, ...]
    settings: Mapping[str, int] | None
    """Setting → value with which all fits; ``None``: no settings fit."""
    largest_concurrency: int
    """The largest concurrency with which all can fit; 0: none."""
    notes: tuple[str, ...]
    """What cannot work, however many clients the Redis takes."""

    @property
    def servers(self) -> dict[str, int | None]:
        """Redis (``host:port``) → its connections at most; ``None``: any number."""
        return model.totals(self.items)

    @property
    def at_most(self) -> int | None:
        """Connections of the fullest Redis at most; ``None``: any number."""
        counts = self.servers.values()
        return None if None in counts else max(filter(None, counts), default=0)

    @property
    def fits(self) -> bool:
        """Whether each Redis has room for its connections and the reserve."""
        return self.at_most is not None and self.at_most + self.reserve <= self.max_clients

    def to_json(self) -> dict[str, Any]:
        """As JSON-able data."""
        setup = self.setup
        return {
            "max_clients": self.max_clients,
            "reserve": self.reserve,
            "at_most": self.at_most,
            "fits": self.fits,
            "servers": self.servers,
            "workers": setup.workers,
            "pool": setup.pool,
            "concurrency": setup.concurrency,
            "items": [{**asdict(item), "most": item.most} for item in self.items],
            "settings": self.settings and _settings_json(self.settings),
            "largest_concurrency": self.largest_concurrency,
            "notes": [*self.notes],
        }

    def __str__(self) -> str:
        setup = self.setup
        workers = f"{counted(setup.workers, 'worker')} ({setup.pool}, concurrency {setup.concurrency})"
        rows = [_row(item) for item in self.items]
        lines = [f"Redis connections at most, for {workers}:", ""]
        lines += table(rows, right=False) if rows else ["  none: nothing here uses a Redis"]
        lines += ["", *(self._verdict(server, count) for server, count in self.servers.items())]
        lines += [f"Note: {note}." for note in self.notes]
        if self.settings:
            largest = f"the largest concurrency that does is {self.largest_concurrency}"
            lines += ["", f"Settings that fit ({largest}):"]
            lines += [f"  {line}" for line in model.lines_of(self.settings)]
        elif rows:
            lines += ["", "No settings fit: docs/connections.md says what makes room."]
        return "\n".join(lines)

    def _verdict(self, server: str, count: int | None) -> str:
        clients = f"({self.max_clients} clients, {self.reserve} of them kept free)"
        if count is None:
            return f"{server}: unbounded {clients}: does not fit"
        over = count + self.reserve - self.max_clients
        verdict = f"{over} too many" if over > 0 else "fits"
        return f"{server}: {count} at most {clients}: {verdict}"


def _settings_json(settings: Mapping[str, int]) -> dict[str, Any]:
    get = settings.get
    return {
        "worker_concurrency": get("worker_concurrency"),
        "broker_pool_limit": get("broker_pool_limit"),
        "broker_transport_options": {"max_connections": get("max_connections")},
        "redis_max_connections": get("redis_max_connections"),
        "result_backend_thread_safe": bool(get("result_backend_thread_safe")),
        "lines": model.lines_of(settings),
    }


def _row(item: model.ConnectionItem) -> tuple[str, ...]:
    product = ("unbounded", "", "")
    if item.each is not None:
        product = (f"{item.each}", f"x {item.times}", f"= {item.most}")
    return item.who, item.what, *product, item.server


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
    """How many Redis connections *app*'s configuration can open at most.

    Args:
        app: with the configuration.
        max_clients: clients that each Redis takes.
        workers: number of workers.
        concurrency: tasks at once in each worker, with ``--autoscale`` its maximum. By default
            ``worker_concurrency``, or the number of CPUs.
        pool: prefork, solo, threads, eventlet or gevent; by default ``worker_pool``.
        producers: processes that send tasks, such as those of a web server.
        threads: threads or greenlets that send, in each producer.
        beat: whether Beat runs; ``"auto"``: if there is a schedule or another scheduler.
        inspectors: people who run ``celery inspect`` or ``celery argsize doctor`` at once.
        gossip: ``False`` if all workers run with ``--without-gossip``.
        control: whether tasks and producers send remote control, such as ``revoke``.
        reserve: clients to keep free.

    Raises:
        ConfigError: an argument or a setting cannot work.
    """
    conf: Any = app.conf
    scheduled = bool(conf.beat_schedule or conf.beat_scheduler != FILE_SCHEDULER)
    if concurrency is None:
        concurrency = _checked("worker_concurrency", conf.worker_concurrency or os.cpu_count() or 1, 1)
    size = _checked("concurrency", concurrency, 1)
    pool = _pool("pool", pool) if pool else _pool("worker_pool", conf.worker_pool or "prefork")
    setup = model.Setup(
        workers=_checked("workers", workers, 1),
        concurrency=1 if pool == "solo" else size,
        pool=pool,
        producers=_checked("producers", producers, 0),
        threads=_checked("threads", threads, 1),
        inspectors=_checked("inspectors", inspectors, 0),
        beat=scheduled if beat == "auto" else bool(beat),
        beat_enable_remote_control=bool(conf.get("beat_enable_remote_control")),
        gossip=gossip,
        worker_enable_remote_control=bool(conf.worker_enable_remote_control),
        control=control,
        broadcasts=_broadcasts(conf),
        broker_pool_limit=_checked("broker_pool_limit", conf.broker_pool_limit or 0, 0),
        result_backend_thread_safe=bool(conf.get("result_backend_thread_safe")),
        shareable=celery.VERSION[:2] >= SHAREABLE,
        read=_broker(app, "broker_read_url"),
        write=_broker(app, "broker_write_url"),
        result=_server("result_backend", of_results(app)[0]),
        ours=_server("redis_url", _our_url(app)),
    )
    options = conf.broker_transport_options or {}
    channel = options.get("max_connections", 10)  # kombu's own default
    ceilings = (
        ('broker_transport_options["max_connections"]', channel, setup.read and setup.channel_most),
        ("redis_max_connections", conf.get("redis_max_connections"), setup.result and setup.backend_most),
    )
    too_low = [
        f'{name} is {ceiling}, but {needed} may be needed at once: more fail with "Too many connections"'
        for name, ceiling, needed in ceilings
        if 0 < _checked(name, ceiling or 0, 0) < int(needed or 0)
    ]
    room = _checked("max_clients", max_clients, 1) - _checked("reserve", reserve, 0)
    return ConnectionBudget(
        max_clients=max_clients,
        reserve=reserve,
        setup=setup,
        items=model.items_of(setup),
        settings=model.fitting(setup, room),
        largest_concurrency=model.largest_concurrency(setup, room),
        notes=(*too_low, *_notes(setup)),
    )


def _notes(setup: model.Setup) -> Iterator[str]:
    shared = setup.result_backend_thread_safe
    if setup.write and setup.broker_pool_limit == 1:
        yield "broker_pool_limit is 1, but inspect and revoke take two connections: they would wait for ever"
    if setup.result and shared and not setup.shareable and setup.has_threads:
        yield "result_backend_thread_safe needs Celery 5.7 where several threads or greenlets wait for results"
    if setup.result and not shared and setup.pool in model.GREEN:
        yield (
            "result_backend_thread_safe is off: each greenlet opens connections of its own for results, which stay "
            "until Python collects them; their number has no bound"
        )


def _checked(name: str, value: object, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        message = f"{name} = {value!r} cannot work; allowed: a whole number, {low} or more"
        raise ConfigError(message)
    return value


def _pool(name: str, value: object) -> str:
    pool = model.pool_name(str(value))
    if pool not in model.POOLS:
        message = f"{name} = {value!r} is not known; allowed: {', '.join(model.POOLS)}"
        raise ConfigError(message)
    return pool


def _broadcasts(conf: Any) -> bool:
    queues: Any = conf.task_queues or ()
    queues = queues.values() if isinstance(queues, dict) else queues
    return any(getattr(getattr(queue, "exchange", None), "type", "") == "fanout" for queue in queues)


def _our_url(app: Celery) -> str | None:
    monitor = installed(app)
    settings = monitor.settings if monitor else config.resolve({}, app)
    return settings.redis_url if settings.enabled else None


def _broker(app: Celery, setting: str) -> str | None:
    return _server(setting, next((url for url, _ in each_of_messages(app, setting)), None))


def _server(setting: str, url: str | None) -> str | None:
    try:
        return server_of(url) if url else None
    except ConfigError as exc:
        message = f"{setting} = {safe_url(url)} cannot work: {exc}"
        raise ConfigError(message) from None


def server_of(url: str) -> str:
    """The Redis of *url*: ``host:port``, a socket's path, or ``sentinels`` with each of them.

    Raises:
        ConfigError: the URL cannot work.
    """
    place = parse_redis_url(url)
    names = ",".join(sorted(server_address(urlsplit(part)) for part in place.urls))
    return f"sentinels {names}" if place.kind == "sentinel" else names


def connection_settings(
    environ: Mapping[str, str] | None = None, *, base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Celery settings from the environment, for ``app.conf.update(connection_settings())``.

    ``CELERY_POOL_LIMIT`` (8 by default) gives ``broker_pool_limit``,
    ``CELERY_MAX_CONNECTIONS`` ``broker_transport_options["max_connections"]``,
    and ``CELERY_RESULT_MAX_CONNECTIONS`` ``redis_max_connections``. Each is at
    least 2, which is the least that works, and at most
    ``CELERY_POOL_LIMIT_CAP`` (20 by default).

    Args:
        environ: the variables; by default ``os.environ``.
        base: ``broker_transport_options`` to keep, as ``update`` replaces them all.

    Raises:
        ConfigError: a variable is not a whole number, 1 or more.
    """
    environ = os.environ if environ is None else environ
    cap = _number(environ, "CELERY_POOL_LIMIT_CAP", 20)
    most = min(_number(environ, "CELERY_MAX_CONNECTIONS", cap), cap)
    return {
        "broker_pool_limit": min(_number(environ, "CELERY_POOL_LIMIT", 8), cap),
        "broker_transport_options": {**(base or {}), "max_connections": most},
        "redis_max_connections": min(_number(environ, "CELERY_RESULT_MAX_CONNECTIONS", cap), cap),
    }


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = str(environ.get(name, "")).strip()
    if text and not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        message = f"{name} = {shorten(text, 40)!r} cannot work; allowed: a whole number, 1 or more"
        raise ConfigError(message)
    return max(int(text or default), model.LEAST)
