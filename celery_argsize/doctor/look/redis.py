"""Looks at each Redis of an app: the server itself, and what Celery keeps in it.

Writes nothing, and reads no message or result.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from redis import exceptions

from celery_argsize.api.location import locate
from celery_argsize.doctor.app import VISIBILITY_TIMEOUTS, known_queues, transport_options
from celery_argsize.doctor.errors import why_not
from celery_argsize.doctor.facts import Scope, Unavailable
from celery_argsize.doctor.look.host import own_connections
from celery_argsize.doctor.redis_facts import (
    NO_ANSWER,
    NO_RIGHT,
    RESULTS,
    Holders,
    Place,
    Queues,
    Results,
    Role,
    ServerFacts,
)
from celery_argsize.errors import ConfigError
from celery_argsize.redis_url import cert_reqs, each_of_messages, of_results, parse_redis_url, safe_url
from celery_argsize.settings import Settings
from celery_argsize.stores.connection import TIMEOUT, connect, disconnect

if TYPE_CHECKING:
    from collections.abc import Callable

#: Name of the doctor's connection in CLIENT LIST.
CLIENT_NAME: Final = "celery-argsize-doctor"

#: PINGs at most, and their seconds in all.
PINGS: Final = 9
PING_SECONDS: Final = 1.5

#: kombu's ``sep`` and ``priority_steps`` by default.
SEPARATOR: Final = "\x06\x16"
PRIORITY_STEPS: Final = (0, 3, 6, 9)

#: SCANs at most, the keys of each, and their seconds in all.
SCANS: Final = 20
SCAN_KEYS: Final = 1000
SCAN_SECONDS: Final = 2.0

#: Results at most in the sample.
SAMPLE: Final = 2000

#: Fields of ``ServerFacts`` that the server's replies fill.
FIELDS: Final = ("pings", "info", "config", "holders", "messages", "results")

CLUSTER: Final = "it is a Redis Cluster: give one of its nodes, as --redis-url redis://NODE:PORT"
NO_TIME: Final = "there was no time left to look at that"


def look_at_redis(where: Scope) -> tuple[ServerFacts, ...]:
    """Look at all Redis servers at once; raises ``Unavailable`` if none is known."""
    deadline = time.monotonic() + where.seconds * 0.9
    try:
        places = places_of(where)
    except ConfigError as exc:
        raise Unavailable(str(exc)) from None
    looks: dict[str, _Look] = {}
    for place in places:
        look = _Look(where, place, deadline)
        look = looks.setdefault(look.login, look)
        look.add(places=(*look.facts.places, place))
    threads = [threading.Thread(target=look.run, daemon=True) for look in looks.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return tuple(look.facts for look in looks.values())


def places_of(where: Scope) -> list[Place]:
    """Each Redis in each role. Without an app, raises ``ConfigError`` if none is known."""
    if where.app is None:
        return _figures_places(where)
    by_role: dict[Role, Callable[[Scope], list[Place]]] = {
        "messages": _messages_places,
        "results": _results_places,
        "figures": _figures_places,
    }
    places = []
    for role, places_in_role in by_role.items():
        try:
            places += places_in_role(where)
        except ConfigError as exc:
            places.append(Place(role, Settings(), error=str(exc)))
    return places


def _figures_places(where: Scope) -> list[Place]:
    settings = locate(where.app, **where.given).settings
    if settings.redis_url is None:
        return []
    default = settings.redis_ssl_cert_reqs or settings.redis_options.get("ssl_cert_reqs", "required")
    return [Place("figures", settings, _certificates(settings.redis_url, {}, default))]


def _messages_places(where: Scope) -> list[Place]:
    app: Any = where.app
    use_ssl, places = app.conf.get("broker_use_ssl"), {}
    for setting in ("broker_write_url", "broker_read_url"):
        for url, options in each_of_messages(app, setting):
            # for rediss:// alone, kombu checks no certificate
            default = "required" if use_ssl or "ssl_" in url.partition("?")[2] else "none"
            places[safe_url(url)] = _place("messages", url, options, default)
    return [*places.values()]


def _results_places(where: Scope) -> list[Place]:
    url, options = of_results(where.app)
    return [_place("results", url, options, "required")] if url else []


def _place(role: Role, url: str, options: dict[str, Any], default: str) -> Place:
    try:
        certificates = _certificates(url, options, default)
    except ConfigError as exc:
        return Place(role, Settings(redis_url=url), error=f"its URL cannot work: {exc}")
    tls = {"ssl_cert_reqs": certificates} if certificates else {}
    return Place(role, Settings(redis_url=url, redis_options={**options, **tls}), certificates)


def _certificates(url: str, options: dict[str, Any], default: str) -> str:
    """``Place.certificates`` by URL and options; *default* if neither has ``ssl_cert_reqs``."""
    place = parse_redis_url(url)
    given = {**options, **dict(parse_qsl(urlsplit(place.urls[0]).query))}
    try:
        return cert_reqs(given.get("ssl_cert_reqs", default)) if place.tls else ""
    except ValueError:
        return "none"  # what kombu makes of a word that it does not know


class _Look:
    """Looks at one server. ``facts`` grows meanwhile and can be read at any time."""

    def __init__(self, where: Scope, place: Place, deadline: float) -> None:
        missed = dict.fromkeys(FIELDS, NO_TIME)
        self.facts = ServerFacts(places=(), missed=missed, max_clients_option=where.max_clients)
        self.login = f"{place.role}: {place.error}"
        """Places with an equal login (server, user, TLS) share one look."""
        self._app, self._deadline = where.app, deadline
        self._client: Any = None
        seconds = min(TIMEOUT, where.seconds / 4)
        options = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "client_name": None}
        settings = replace(place.settings, redis_options={**place.settings.redis_options, **options})
        try:
            self._client = None if place.error else connect(settings)
            self.add(error=place.error or NO_ANSWER)
        except ConfigError as exc:
            self.add(error=str(exc))
        if pool := getattr(self._client, "connection_pool", None):
            kwargs = pool.connection_kwargs
            kwargs |= options  # the URL may have others
            user = [kwargs[name] for name in kwargs if name in {"username", "password"} or name[:3] == "ssl"]
            self.login = f"{place.address} {pool.connection_class} {user}"

    def add(self, **facts: Any) -> None:
        """Add fields of ``ServerFacts``."""
        self.facts = replace(self.facts, **facts)

    def run(self) -> None:
        """Look at all that there is time for."""
        if self._client is None:
            return
        self.add(error=_greet(self._client))
        if not hasattr(self._client, "connection_pool"):
            self.add(missed=dict.fromkeys(FIELDS, CLUSTER))
        elif not self.facts.error:
            self._ask(self._client)
        with suppress(exceptions.RedisError, OSError):
            disconnect(self._client)

    def _ask(self, client: Any) -> None:
        databases = {place.role: place.database for place in self.facts.places}
        deadline = self._deadline
        looks: dict[str, Callable[[], Any]] = {
            "pings": lambda: _ping(client, deadline),
            "info": client.info,
            "config": lambda: client.config_get("save") | client.config_get("stop-writes-on-bgsave-error"),
            "holders": lambda: _holders(client),
        }
        if "messages" in databases:
            looks["messages"] = lambda: _queues(client, databases["messages"], self._app)
        if "results" in databases:
            looks["results"] = lambda: _results(client, databases["results"], deadline)
        for name, look in looks.items():
            if time.monotonic() > deadline:
                return
            missed = {**self.facts.missed}
            try:
                self.add(**{name: look()})
                del missed[name]
            except exceptions.ResponseError as exc:
                denied = isinstance(exc, exceptions.NoPermissionError)
                missed[name] = NO_RIGHT if denied else why_not(exc)
            except (exceptions.RedisError, OSError) as exc:  # the rest would fail too
                self.add(missed=dict.fromkeys(missed, why_not(exc)))
                return
            except Exception as exc:  # noqa: BLE001 - a wrong setting, or no real Redis
                missed[name] = f"looking at that failed with {type(exc).__name__}, see settings.values"
            self.add(missed=missed)


def _greet(client: Any) -> str:
    """Connect. Returns why that failed; empty if it did not."""
    try:
        # a Redis that cannot save refuses PING; a client for clusters has no ECHO
        client.echo("") if hasattr(client, "connection_pool") else client.smembers(CLIENT_NAME)
    except (exceptions.RedisError, OSError) as exc:
        # without the right to ECHO it is connected, without that to SELECT it is not
        denied = isinstance(exc, exceptions.NoPermissionError) and "'select'" not in str(exc)
        return "" if denied else why_not(exc)
    return ""


def _ping(client: Any, deadline: float) -> tuple[float, ...]:
    """Seconds that each PING took. Together, at most a quarter of the time that is left."""
    times: list[float] = []
    most = min(PING_SECONDS, (deadline - time.monotonic()) / 4)
    while len(times) < PINGS and sum(times) < most:
        began = time.perf_counter()
        client.ping()
        times.append(time.perf_counter() - began)
    return tuple(times)


def _holders(client: Any) -> tuple[Holders, ...]:
    """Clients in groups, the largest first, without those of this process."""
    with suppress(exceptions.ResponseError):  # no right to it, or no such command
        client.client_setname(CLIENT_NAME)
    # other looks connect and disconnect meanwhile: theirs are gone, or seen in between
    earlier = {line["id"] for line in client.client_list()}
    ours = own_connections()
    others = [
        (line.get("name", ""), line["addr"].rpartition(":")[0], _activity(line))
        for line in client.client_list()
        if line["id"] in earlier and (line["addr"], line.get("laddr")) not in ours
        if line.get("name") != CLIENT_NAME and line.get("cmd") != "client|list"
    ]
    return tuple(Holders(count, *group) for group, count in Counter(others).most_common())


def _activity(line: dict[str, str]) -> str:
    """What a client does, by CLIENT LIST."""
    command = line.get("cmd", "").lower()
    if any(int(line.get(name, 0)) for name in ("sub", "psub")):
        return "listens for results or remote control"
    if command == "brpop":
        return "waits for messages (a worker)"
    return f"idle, last command {command}" if command not in {"", "null"} else "has sent nothing yet"


def _queues(client: Any, database: int, app: Any) -> Queues:
    options = transport_options(app)
    prefix, separator = options.get("global_keyprefix") or "", options.get("sep", SEPARATOR)
    client.select(database)
    steps = options.get("priority_steps") or PRIORITY_STEPS
    suffixes = [f"{separator}{step}" if step else "" for step in steps]  # a key for each
    names = sorted(known_queues(app))
    keys = [f"{prefix}{name}{suffix}" for name in names for suffix in suffixes]
    lengths = iter(_replies(client, "llen", keys))
    waiting = {name: sum(next(lengths) for _ in suffixes) for name in names}
    # a sorted set: held messages by the time at which a worker took them
    index = prefix + options.get("unacked_index_key", "unacked_index")
    visibility = float(options.get("visibility_timeout", VISIBILITY_TIMEOUTS["redis"]))
    now = time.time()
    pipe = client.pipeline(transaction=False)
    pipe.zrange(index, 0, 0, withscores=True)
    pipe.hlen(prefix + options.get("unacked_key", "unacked"))
    pipe.zcount(index, "-inf", now - visibility)
    first, held, overdue = pipe.execute()
    oldest = max(0.0, now - first[0][1]) if first else 0.0
    return Queues(waiting, held, oldest, overdue, visibility)


def _results(client: Any, database: int, deadline: float) -> Results:
    client.select(database)
    deadline = min(deadline, time.monotonic() + SCAN_SECONDS)
    cursor, keys = 0, []
    for _ in range(SCANS):
        cursor, page = client.scan(cursor, match=f"*{RESULTS}*", count=SCAN_KEYS)
        keys += page
        if not cursor or time.monotonic() > deadline:
            break
    expiries = _replies(client, "pttl", keys[:SAMPLE])  # -1: never, -2: it is gone
    return Results(len(expiries) - expiries.count(-2), expiries.count(-1), not cursor and len(keys) <= SAMPLE)


def _replies(client: Any, command: str, keys: list[Any]) -> list[Any]:
    """The reply to *command* for each of *keys*; 0 for a key of another type."""
    pipe = client.pipeline(transaction=False)
    for key in keys:
        getattr(pipe, command)(key)
    replies: list[Any] = pipe.execute(raise_on_error=False)
    for reply in replies:
        if isinstance(reply, exceptions.NoPermissionError):
            raise reply
    return [0 if isinstance(reply, Exception) else reply for reply in replies]
