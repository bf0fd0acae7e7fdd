"""What each Redis server says of itself; nothing is judged here.

Which servers there are is the business of ``redis_places``; what Celery keeps in them, of ``redis_contents``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from redis import exceptions

from celery_argsize.doctor.checks import NotKnown
from celery_argsize.doctor.redis_contents import Contents, results_in, unacked_in, waiting_in
from celery_argsize.doctor.redis_holders import holders_in
from celery_argsize.doctor.redis_places import ROLES, places_of
from celery_argsize.errors import ConfigError
from celery_argsize.redis_url import parse_redis_url
from celery_argsize.stores.connection import TIMEOUT, connect, disconnect, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery_argsize.doctor.facts import Where
    from celery_argsize.doctor.redis_holders import Holders
    from celery_argsize.doctor.redis_places import Place, Role

__all__ = ["CLIENT_NAME", "ServerFacts", "look_at_redis"]

#: Name of the doctor's connection in CLIENT LIST.
CLIENT_NAME: Final = "celery-argsize-doctor"

#: How many PINGs: enough for a median, few enough for a far Redis.
PINGS: Final = 9

#: All that a server is asked for.
LOOKS: Final = ("info", "pings", "config", "clients", "queues", "unacked", "results")

CLUSTER: Final = "it is a Redis Cluster; each of its nodes can be looked at with --redis-url redis://NODE:PORT"
UNREACHABLE: Final = "it could not be reached"
NO_TIME: Final = "there was no time left to look at that"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One Redis server."""

    url: str
    """Without its secrets."""
    places: tuple[Place, ...]
    """Each role it has, with its URL."""
    errors: Mapping[Role, str] = field(default_factory=dict)
    """Why it could not be reached with the settings of a role."""
    missed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """What could not be looked at (``info``, ``config``, ``clients``, …) → why, and what would allow it."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """``INFO``, flat."""
    config: Mapping[str, str] = field(default_factory=dict)
    """``save`` and ``maxclients``, as ``CONFIG GET`` has them."""
    pings: tuple[float, ...] = ()
    """Seconds that each PING took."""
    holders: tuple[Holders, ...] = ()
    """Who is connected, but for ourselves; the most first."""
    public: bool | None = None
    """Whether its address is one of the public Internet; ``None``: not known."""
    contents: Contents = field(default_factory=Contents)
    told: int | None = None
    """How many clients it takes, as a person said: a hosted one may take fewer than its configuration has."""

    @property
    def roles(self) -> frozenset[Role]:
        """What it is used for."""
        return frozenset(place.role for place in self.places)

    @property
    def address(self) -> str:
        """Its host and port, its socket file, or its sentinels: as ``ConnectionBudget.servers`` has them."""
        return self.places[0].address

    @property
    def error(self) -> str:
        """Why it could not be reached at all; empty if it was, in any role."""
        return "" if self.roles - set(self.errors) else next(iter(self.errors.values()), "")

    @property
    def full(self) -> bool:
        """Whether it has no place for another client."""
        return "no place for another client" in self.error

    @property
    def maxclients(self) -> int | None:
        """How many clients it takes."""
        said = self.told or self.info.get("maxclients") or self.config.get("maxclients")
        return int(said) if said else None

    @property
    def queues(self) -> Mapping[str, int]:
        """Queue → messages that wait in it, those of all priorities; where it carries messages."""
        return self.contents.queues

    @property
    def subject(self) -> str:
        """What to call it."""
        roles = sorted(self.roles, key=ROLES.index)
        return f"{re.sub(r'/[0-9]*$', '', self.url)} for {', '.join(roles)}"

    def need(self, *looks: str) -> None:
        """Do nothing if each of *looks* was done.

        Raises:
            NotKnown: one was not.
        """
        for look in looks:
            if look in self.missed:
                raise NotKnown(self.missed[look][0])
        if self.error:
            raise NotKnown(UNREACHABLE)

    def database(self, role: Role) -> int:
        """The number of the database that *role* uses."""
        return next(place.database for place in self.places if place.role == role)


def look_at_redis(where: Where) -> tuple[ServerFacts, ...]:
    """Look at each Redis that *where* means, all at the same time.

    Raises:
        NotKnown: nobody said which Redis.
    """
    try:
        places = places_of(where)
    except ConfigError as exc:
        raise NotKnown(str(exc)) from None
    groups: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        groups[place.error or place.address].append(place)
    until = time.monotonic() + where.seconds * 0.9
    found: dict[int, ServerFacts] = {}

    def look(number: int, group: list[Place]) -> None:
        try:
            found[number] = _Look(where, group, until).facts()
        except Exception as exc:  # noqa: BLE001 - one server never hides the others
            found[number] = _unseen(group, f"looking failed with {type(exc).__name__}")

    threads = [threading.Thread(target=look, args=item, daemon=True) for item in enumerate(groups.values())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return tuple(
        found.get(number) or _unseen(group, "no answer in time") for number, group in enumerate(groups.values())
    )


def _unseen(group: list[Place], why: str) -> ServerFacts:
    return ServerFacts(url=group[0].url, places=(*group,), errors={one.role: why for one in group})


class _Look:
    """One look at one server, over one connection at a time."""

    def __init__(self, where: Where, places: list[Place], until: float) -> None:
        self._app, self._told = where.app, where.max_clients
        self._times = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), min(TIMEOUT, where.seconds / 4))
        self._until = until
        self._places = places
        self._missed: dict[str, tuple[str, str]] = {}
        self._errors: dict[Role, str] = {}
        self._over = ""

    def facts(self) -> ServerFacts:
        """All that could be found out."""
        url = self._places[0].url
        client = self._reach()
        facts: dict[str, Any] = {}
        if client is not None:
            try:
                facts = self._ask(client)
            finally:
                with suppress(exceptions.RedisError, OSError):
                    disconnect(client)
        return ServerFacts(
            url=url,
            places=(*self._places,),
            errors=self._errors,
            missed=self._missed,
            public=None if self._places[0].error else _is_public(self._places[0]),
            told=self._told,
            **facts,
        )

    def _reach(self) -> Any:
        """A client that is connected, with the settings of the first role that get there; those of each are tried."""
        reached: Any = None
        tried: list[tuple[dict[str, Any], str]] = []
        for place in self._places:
            if place.error:
                self._errors[place.role] = place.error
                continue
            try:
                options = {**place.settings.redis_options, **self._times}
                client: Any = connect(replace(place.settings, redis_options=options))
            except ConfigError as exc:
                self._errors[place.role] = str(exc)
                continue
            same = _same(client)
            error = next((said for known, said in tried if known == same), None)
            if error is None:
                error = self._greet(client, place)
                tried.append((same, error))
                if error or reached is not None:
                    disconnect(client)
                else:
                    reached = client
            if error:
                self._errors[place.role] = error
        return reached

    def _greet(self, client: Any, place: Place) -> str:
        """Connect; what went wrong, if anything did."""
        pool = getattr(client, "connection_pool", None)
        if pool is not None:
            pool.connection_kwargs |= {**self._times, "client_name": CLIENT_NAME}  # whatever the URL says
        try:
            # A Redis that cannot save refuses a PING. A cluster's client has nothing but what the store needs.
            client.echo(CLIENT_NAME) if pool is not None else client.smembers(f"{place.settings.key_prefix}:apps")
        except exceptions.NoPermissionError:
            pass  # which is an answer
        except (exceptions.RedisError, OSError) as exc:
            return explain("reach", place.url, exc)
        return ""

    def _ask(self, client: Any) -> dict[str, Any]:
        if getattr(client, "connection_pool", None) is None:
            self._missed = dict.fromkeys(LOOKS, (CLUSTER, ""))
            return {}
        return {
            "info": self._try("info", "+info", client.info, {}),
            "pings": self._try("pings", "+ping", lambda: _ping(client, self._until), ()),
            "config": self._try("config", "+config|get", lambda: _config(client), {}),
            "holders": self._try("clients", "+client|list", lambda: holders_in(client, CLIENT_NAME), ()),
            "contents": self._contents(client),
        }

    def _contents(self, client: Any) -> Contents:
        """What Celery keeps there; where it keeps all in one database, that is the one we are in."""
        of = {place.role: place.database for place in self._places}
        select = "+select " if len({*of.values()}) > 1 else ""
        databases = {role: number if select else None for role, number in of.items()}
        contents = Contents()
        if "messages" in of and self._app is not None:
            database, app = databases["messages"], self._app
            rights = f"{select}+scan +smembers +llen +memory|usage ~*"
            found = self._try("queues", rights, lambda: waiting_in(client, database, app, self._until), ({}, {}))
            rights = f"{select}+hlen +zcount +zrange ~*"
            unacked = self._try("unacked", rights, lambda: unacked_in(client, database, app), None)
            contents = Contents(found[0], found[1], unacked)
        if "results" in of:
            number, rights = databases["results"], f"{select}+scan +pttl ~*"
            results = self._try("results", rights, lambda: results_in(client, number, self._until), None)
            contents = contents._replace(results=results)
        return contents

    def _try(self, what: str, rights: str, look: Callable[[], Any], instead: Any) -> Any:
        over = self._over or (NO_TIME if time.monotonic() > self._until else "")
        if over:
            self._missed[what] = over, ""
            return instead
        try:
            return look()
        except exceptions.NoPermissionError:
            self._missed[what] = f"its user lacks a right ({rights})", f"ACL SETUSER NAME {rights}"
        except exceptions.ResponseError as exc:
            unknown = "unknown command" in str(exc).lower()  # as where a host took CONFIG away
            why = "this server has no such command" if unknown else explain("ask", self._places[0].url, exc)
            self._missed[what] = f"{why} ({rights})" if unknown else why, ""
        except (exceptions.RedisError, OSError) as exc:  # such as no answer: the next one would not come either
            self._over = explain("ask", self._places[0].url, exc)
            self._missed[what] = self._over, ""
        return instead


def _same(client: Any) -> dict[str, Any]:
    """What makes one role's connection to a server another than the next one's: who it is, and its TLS."""
    pool = getattr(client, "connection_pool", None)
    options = getattr(pool, "connection_kwargs", {})
    kept = {name: value for name, value in options.items() if name in {"username", "password"} or name[:3] == "ssl"}
    return {**kept, "class": getattr(pool, "connection_class", None)}


def _ping(client: Any, until: float) -> tuple[float, ...]:
    took: list[float] = []
    while len(took) < PINGS and (not took or time.monotonic() < until):
        began = time.perf_counter()
        client.ping()
        took.append(time.perf_counter() - began)
    return tuple(took)


def _config(client: Any) -> dict[str, str]:
    return {**client.config_get("save"), **client.config_get("maxclients")}


def _is_public(place: Place) -> bool | None:
    """Whether its host's addresses, as seen from here, are of the public Internet."""
    found = parse_redis_url(place.settings.redis_url or "")
    host = urlsplit(found.urls[0]).hostname
    if found.urls[0].startswith("unix:") or not host:
        return False
    try:
        known = {str(one[4][0]).partition("%")[0] for one in socket.getaddrinfo(host, None)}
    except OSError:
        return None
    return any(ipaddress.ip_address(one).is_global for one in known)
