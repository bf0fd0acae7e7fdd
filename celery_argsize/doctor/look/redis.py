"""Looks at the Redis servers, all at the same time: their own figures, and what Celery keeps there.

Nothing is written, and no message or result is read. ``redis_places`` finds the servers.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from redis import exceptions

from celery_argsize.doctor.app import known_queues, transport_options
from celery_argsize.doctor.errors import why_not
from celery_argsize.doctor.facts import Unavailable
from celery_argsize.doctor.look.host import own_ends
from celery_argsize.doctor.look.redis_places import places_of
from celery_argsize.doctor.redis_facts import NO_ANSWER, NO_RIGHT, RESULTS, Holders, Queues, Results, ServerFacts
from celery_argsize.errors import ConfigError
from celery_argsize.stores.connection import TIMEOUT, connect, disconnect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery_argsize.doctor.facts import Scope
    from celery_argsize.doctor.redis_facts import Place

#: Name of the doctor's connection in CLIENT LIST.
CLIENT_NAME: Final = "celery-argsize-doctor"

#: PINGs at most, and the seconds that they may take where a Redis is far away.
PINGS: Final = 9
PINGING: Final = 1.5

#: What a server is asked for: fields of ``ServerFacts``.
LOOKS: Final = ("pings", "info", "config", "holders", "messages", "results")

#: The settings of Redis that are read.
CONFIG: Final = ("save", "maxclients", "stop-writes-on-bgsave-error")

CLUSTER: Final = "it is a Redis Cluster: give one of its nodes, as --redis-url redis://NODE:PORT"
NO_TIME: Final = "there was no time left to look at that"

#: How kombu's Redis transport names things; most of it can be set in ``broker_transport_options``.
SEPARATOR: Final = "\x06\x16"
STEPS: Final = (0, 3, 6, 9)
#: Seconds until another worker gets a message that is not acknowledged, by default.
VISIBILITY: Final = 3600

#: One SCAN looks at this many keys, and there are this many of them, for these seconds at most.
SCANNED: Final = 1000
SCANS: Final = 20
SCANNING: Final = 2.0

#: Results whose expiry is asked for.
SAMPLE: Final = 2000


def look_at_redis(where: Scope) -> tuple[ServerFacts, ...]:
    """Look at each Redis of *where*, as each user that reaches it.

    Raises:
        Unavailable: nobody said which Redis, or the app cannot be loaded.
    """
    deadline = time.monotonic() + where.seconds * 0.9
    try:
        places = places_of(where)
    except ConfigError as exc:
        raise Unavailable(str(exc)) from None
    looks: dict[str, _Look] = {}
    for place in places:
        look = _Look(where, place, deadline)
        first = looks.setdefault(look.login, look)
        first.add(places=(*first.facts.places, place))
    threads = [threading.Thread(target=look.run, daemon=True) for look in looks.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return tuple(look.facts for look in looks.values())


class _Look:
    """A look at one server. ``facts`` is what was found so far, and can be read at any time."""

    def __init__(self, where: Scope, place: Place, deadline: float) -> None:
        missed = dict.fromkeys(LOOKS, NO_TIME)
        self.facts = ServerFacts(places=(), missed=missed, max_clients=where.max_clients)
        self.login = f"{place.role}: {place.error}"
        """Equal for all places that are reached in the same way, whatever their database."""
        self._app, self._deadline = where.app, deadline
        self._client: Any = None
        seconds = min(TIMEOUT, where.seconds / 4)
        options = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "client_name": None}
        settings = replace(place.settings, redis_options={**place.settings.redis_options, **options})
        try:
            self._client = None if place.error else connect(settings)
        except ConfigError as exc:
            self.add(error=str(exc))
        else:
            self.add(error=place.error or NO_ANSWER)
        if pool := getattr(self._client, "connection_pool", None):
            kwargs = pool.connection_kwargs
            kwargs |= options  # whatever the URL says
            who = [kwargs[name] for name in kwargs if name in {"username", "password"} or name[:3] == "ssl"]
            self.login = f"{place.address} {pool.connection_class} {who}"

    def add(self, **facts: Any) -> None:
        """Add fields of ``ServerFacts`` to what was found."""
        self.facts = replace(self.facts, **facts)

    def run(self) -> None:
        """Look at all that there is time for."""
        if self._client is None:
            return
        self.add(error=_greet(self._client))
        if not hasattr(self._client, "connection_pool"):
            self.add(missed=dict.fromkeys(LOOKS, CLUSTER))
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
            "config": lambda: {name: value for each in CONFIG for name, value in client.config_get(each).items()},
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
            except exceptions.NoPermissionError:
                missed[name] = NO_RIGHT
            except exceptions.ResponseError as exc:
                missed[name] = why_not(exc)
            except (exceptions.RedisError, OSError) as exc:  # nor would it answer the next one
                deadline = 0.0
                missed |= {other: why_not(exc) for other, why in missed.items() if why == NO_TIME}
            except Exception as exc:  # noqa: BLE001 - settings of others, or a server of another kind
                missed[name] = f"looking at that failed with {type(exc).__name__}, see settings.values"
            self.add(missed=missed)


def _greet(client: Any) -> str:
    """Connect. Why that failed; empty if it did not."""
    try:
        # a Redis that cannot save refuses a PING, and a client for clusters has no ECHO
        client.echo("") if hasattr(client, "connection_pool") else client.smembers(CLIENT_NAME)
    except exceptions.NoPermissionError as exc:
        # that it may not ask is an answer, but not that it may not go to its database
        return why_not(exc) if "'select'" in str(exc) else ""
    except (exceptions.RedisError, OSError) as exc:
        return why_not(exc)
    return ""


def _ping(client: Any, deadline: float) -> tuple[float, ...]:
    """Seconds that each PING took; a quarter of the time that is left at most."""
    times: list[float] = []
    start = time.monotonic()
    while len(times) < PINGS and sum(times) < min(PINGING, (deadline - start) / 4):
        began = time.perf_counter()
        client.ping()
        times.append(time.perf_counter() - began)
    return (*times,)


def _holders(client: Any) -> tuple[Holders, ...]:
    """Who is connected, the most alike first; without this process, where it can be told."""
    with suppress(exceptions.ResponseError):  # it may not, or there is no such command
        client.client_setname(CLIENT_NAME)
    ours = own_ends()
    others = [
        (line.get("name", ""), line["addr"].rpartition(":")[0], _does(line))
        for line in client.client_list()
        if line["addr"] not in ours and line.get("name") != CLIENT_NAME and line.get("cmd") != "client|list"
    ]
    return tuple(Holders(count, *group) for group, count in Counter(others).most_common())


def _does(line: dict[str, str]) -> str:
    """What the client of a *line* of CLIENT LIST does."""
    command = line.get("cmd", "").lower()
    if any(int(line.get(name, 0)) for name in ("sub", "psub", "ssub")):
        return "listens for results or remote control"
    if command == "brpop":
        return "waits for messages (a worker)"
    return f"idle, last command {command}" if command not in {"", "null"} else "has sent nothing yet"


def _queues(client: Any, database: int, app: Any) -> Queues:
    options = transport_options(app)
    prefix, separator = options.get("global_keyprefix") or "", options.get("sep", SEPARATOR)
    client.select(database)
    ends = [f"{separator}{step}" if step else "" for step in options.get("priority_steps") or STEPS]
    names = sorted(known_queues(app))
    lengths = iter(_each(client, "llen", [f"{prefix}{name}{end}" for name in names for end in ends]))
    waiting = {name: sum(next(lengths) for _ in ends) for name in names}
    return Queues(waiting, *_unacked(client, prefix, options))


def _unacked(client: Any, prefix: str, options: Mapping[str, Any]) -> tuple[int, float, int, float]:
    """The fields of ``Queues`` about messages that workers hold."""
    index = prefix + options.get("unacked_index_key", "unacked_index")
    visibility = float(options.get("visibility_timeout", VISIBILITY))
    now = time.time()
    pipe = client.pipeline(transaction=False)
    pipe.zrange(index, 0, 0, withscores=True)
    pipe.hlen(prefix + options.get("unacked_key", "unacked"))
    pipe.zcount(index, "-inf", now - visibility)
    first, held, overdue = pipe.execute()
    return held, max(0.0, now - first[0][1]) if first else 0.0, overdue, visibility


def _results(client: Any, database: int, deadline: float) -> Results:
    """How many results never expire, in a sample of them."""
    client.select(database)
    end = min(deadline, time.monotonic() + SCANNING)
    cursor, keys = 0, []
    for _ in range(SCANS):
        cursor, page = client.scan(cursor, match=f"*{RESULTS}*", count=SCANNED)
        keys += page
        if not cursor or time.monotonic() > end:
            break
    left = _each(client, "pttl", keys[:SAMPLE])
    gone = left.count(-2)
    return Results(len(left) - gone, left.count(-1), not cursor and len(keys) <= SAMPLE)


def _each(client: Any, command: str, keys: list[Any]) -> list[Any]:
    """The answers of *command* to each of *keys*; 0 where one is of another type."""
    pipe = client.pipeline(transaction=False)
    for key in keys:
        getattr(pipe, command)(key)
    answers: list[Any] = pipe.execute(raise_on_error=False) if keys else []
    for answer in answers:
        if isinstance(answer, exceptions.NoPermissionError):
            raise answer
    return [0 if isinstance(answer, Exception) else answer for answer in answers]
