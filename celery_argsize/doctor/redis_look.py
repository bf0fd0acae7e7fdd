"""One look at one Redis server, over one connection at a time: what it says of itself, and what Celery keeps there.

What is found may be read at any time, so that a slow server leaves open only what there was no time for.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from redis import exceptions

from celery_argsize.doctor.checks import NotKnown
from celery_argsize.doctor.redis_contents import Contents, results_in, unacked_in, waiting_in
from celery_argsize.doctor.redis_holders import holders_in
from celery_argsize.errors import ConfigError
from celery_argsize.redis_url import parse_redis_url
from celery_argsize.stores.connection import TIMEOUT, connect, disconnect, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery_argsize.doctor.facts import Where
    from celery_argsize.doctor.redis_places import Place, Role

__all__ = ["CLIENT_NAME", "Look"]

#: Name of the doctor's connection in CLIENT LIST.
CLIENT_NAME: Final = "celery-argsize-doctor"

#: How many PINGs: enough for a median. A far Redis gets as many as fit into these seconds, or into a quarter of what
#: there are: the other looks come after them.
PINGS: Final = 9
PINGING: Final = 1.5

#: All that a server is asked for.
LOOKS: Final = ("info", "pings", "config", "clients", "queues", "unacked", "results")

#: What is read of its configuration.
CONFIG: Final = ("save", "maxclients", "stop-writes-on-bgsave-error")

CLUSTER: Final = "it is a Redis Cluster; each of its nodes can be looked at with --redis-url redis://NODE:PORT"
NO_TIME: Final = "there was no time left to look at that"


class Look:
    """A look at one server. ``run`` makes it; the rest is to be read, while that goes on as well."""

    def __init__(self, where: Where, places: list[Place], until: float, before: frozenset[int] | None) -> None:
        self.places = (*places,)
        self.reached: frozenset[Role] = frozenset()
        """The roles with whose settings it can be connected to."""
        self.errors: Mapping[Role, str] = {}
        """Why it could not be reached with the settings of a role."""
        self.missed: Mapping[str, tuple[str, str]] = dict.fromkeys(LOOKS, (NO_TIME, ""))
        """What was not looked at, or not yet → why, and what would allow it."""
        self.found: Mapping[str, Any] = {}
        """Fields of ``ServerFacts``."""
        self._app = where.app
        self._times = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), min(TIMEOUT, where.seconds / 4))
        self._until = until
        self._before = before
        self._over = ""

    def run(self) -> None:
        """Look at all that there is time for."""
        try:
            client = self._reach()
            if not self.places[0].error:
                self.found = {"public": _is_public(self.places[0])}
            if client is None:
                return
            try:
                self._ask(client)
            finally:
                with suppress(exceptions.RedisError, OSError):
                    disconnect(client)
        except Exception as exc:  # noqa: BLE001 - one server never hides the others
            why = f"looking failed with {type(exc).__name__}"
            self.errors = {one.role: why for one in self.places if one.role not in self.reached} | {**self.errors}
            self.missed = dict.fromkeys(self.missed, (why, ""))

    def _reach(self) -> Any:
        """A client that is connected, with the settings of the first role that get there; those of each are tried."""
        reached: Any = None
        tried: list[tuple[dict[str, Any], str]] = []
        for place in self.places:
            if place.error:
                self._failed(place, place.error)
                continue
            try:
                options = {**place.settings.redis_options, **self._times}
                client: Any = connect(replace(place.settings, redis_options=options))
            except ConfigError as exc:
                self._failed(place, str(exc))
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
                self._failed(place, error)
            else:
                self.reached |= {place.role}
        return reached

    def _failed(self, place: Place, why: str) -> None:
        self.errors = {**self.errors, place.role: why}

    def _greet(self, client: Any, place: Place) -> str:
        """Connect; what went wrong, if anything did."""
        pool = getattr(client, "connection_pool", None)
        if pool is not None:  # whatever the URL says; where CLIENT is not allowed, a name would keep it from connecting
            pool.connection_kwargs |= {**self._times, "client_name": None}
        try:
            # A Redis that cannot save refuses a PING. A cluster's client has nothing but what the store needs.
            client.echo(CLIENT_NAME) if pool is not None else client.smembers(f"{place.settings.key_prefix}:apps")
        except (exceptions.RedisError, OSError) as exc:
            # That it may not ask for an echo is an answer. That it may not go to its database is none.
            denied = isinstance(exc, exceptions.NoPermissionError) and "'select'" not in str(exc)
            return "" if denied else _said("reach", place, exc)
        return ""

    def _ask(self, client: Any) -> None:
        if getattr(client, "connection_pool", None) is None:
            self.missed = dict.fromkeys(LOOKS, (CLUSTER, ""))
            return
        self._try("pings", "pings", "+ping", lambda: _ping(client, self._until))
        with suppress(exceptions.RedisError, OSError):  # not allowed, or no such command
            client.client_setname(CLIENT_NAME)
        self._try("info", "info", "+info", client.info)
        self._try("config", "config", "+config|get", lambda: _config(client))
        self._try("clients", "holders", "+client|list", lambda: holders_in(client, CLIENT_NAME, self._before))
        self._look_inside(client)

    def _look_inside(self, client: Any) -> None:
        """What Celery keeps there; where it keeps all in one database, that is the one we are in."""
        of = {place.role: place.database for place in self.places if not place.error}
        select = "+select " if len({*of.values()}) > 1 else ""
        databases = {role: number if select else None for role, number in of.items()}
        app = self._app

        def add(**found: Any) -> Contents:
            contents: Contents = self.found.get("contents", Contents())
            return contents._replace(**found)

        if "messages" in of and app is not None:
            number = databases["messages"]
            rights = f"{select}+scan +smembers +llen +memory|usage ~*"
            self._try("queues", "contents", rights, lambda: add(waiting=waiting_in(client, number, app, self._until)))
            rights = f"{select}+hlen +zcount +zrange ~*"
            self._try("unacked", "contents", rights, lambda: add(unacked=unacked_in(client, number, app)))
        if "results" in of:
            number_of_results = databases["results"]
            look = lambda: add(results=results_in(client, number_of_results, self._until))  # noqa: E731 - as the others
            self._try("results", "contents", f"{select}+scan +pttl ~*", look)

    def _try(self, what: str, into: str, rights: str, look: Callable[[], Any]) -> None:
        """Do one look, or say why not."""
        if not self._over and time.monotonic() > self._until:
            self._over = NO_TIME
        why, allowed = self._over, ""
        try:
            if not why:
                self.found = {**self.found, into: look()}
                self.missed = {name: said for name, said in self.missed.items() if name != what}
                return
        except exceptions.NoPermissionError:
            why, allowed = f"its user lacks a right ({rights})", f"ACL SETUSER NAME {rights}"
        except exceptions.ResponseError as exc:
            unknown = "unknown command" in str(exc).lower()  # as where a host took CONFIG away
            why = f"this server has no such command ({rights})" if unknown else _said("ask", self.places[0], exc)
        except (exceptions.RedisError, OSError) as exc:  # such as no answer: the next one would not come either
            why = self._over = _said("ask", self.places[0], exc)
        except NotKnown as exc:
            why = str(exc)
        except Exception as exc:  # noqa: BLE001 - settings of others, or a server of another kind
            why = f"looking at that failed with {type(exc).__name__}"
        self.missed = {**self.missed, what: (why, allowed)}


def _said(what: str, place: Place, exc: Exception) -> str:
    """What went wrong, without the passwords that a server may quote."""
    if secrets := "|".join(map(re.escape, sorted(_secrets(place), key=len, reverse=True))):
        hidden = re.compile(rf"(?<!\w)(?:{secrets})(?!\w)")
        exc.args = tuple(hidden.sub("…", one) if isinstance(one, str) else one for one in exc.args)
    return explain(what, place.url, exc)


def _secrets(place: Place) -> set[str]:
    """The passwords of *place*, as they are and as its URL has them."""
    found, options = parse_redis_url(place.settings.redis_url or ""), place.settings.redis_options
    url = urlsplit(found.urls[0])
    written = url.netloc.rpartition("@")[0].partition(":")[2]
    named = [*parse_qsl(url.query), *found.sentinel.items(), *options.items()]
    named += dict(options.get("sentinel_kwargs") or {}).items()
    said = [str(value) for name, value in named if "password" in name]
    return {one for one in (written, unquote(written), *said) if one}


def _same(client: Any) -> dict[str, Any]:
    """What makes one role's connection to a server another than the next one's: who it is, and its TLS."""
    pool = getattr(client, "connection_pool", None)
    options = getattr(pool, "connection_kwargs", {})
    kept = {name: value for name, value in options.items() if name in {"username", "password"} or name[:3] == "ssl"}
    return {**kept, "class": getattr(pool, "connection_class", None)}


def _ping(client: Any, until: float) -> tuple[float, ...]:
    took: list[float] = []
    now = time.monotonic()
    until = min(now + PINGING, (3 * now + until) / 4)
    while len(took) < PINGS and (not took or time.monotonic() < until):
        began = time.perf_counter()
        client.ping()
        took.append(time.perf_counter() - began)
    return tuple(took)


def _config(client: Any) -> dict[str, str]:
    pipe = client.pipeline(transaction=False)
    for name in CONFIG:
        pipe.config_get(name)
    return {name: value for said in pipe.execute() for name, value in said.items()}


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
