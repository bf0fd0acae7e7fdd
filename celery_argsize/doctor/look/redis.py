"""One look at one Redis server, over one connection at a time: what it says of itself, and what Celery keeps there.

What is found may be read at any time, so that a slow server leaves open only what there was no time for.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from redis import exceptions

from celery_argsize.doctor.app import known_queues
from celery_argsize.doctor.facts import Unavailable
from celery_argsize.doctor.look.redis_places import places_of
from celery_argsize.doctor.redis_facts import RESULTS, Contents, Holders, Results, ServerFacts, Unacked, Waiting
from celery_argsize.errors import ConfigError
from celery_argsize.redis_url import parse_redis_url
from celery_argsize.stores.connection import TIMEOUT, connect, disconnect, explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celery_argsize.doctor.facts import Scope
    from celery_argsize.doctor.redis_facts import Place, Role

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

    def __init__(self, where: Scope, places: list[Place], until: float, before: frozenset[int] | None) -> None:
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
        except Unavailable as exc:
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


LATE: Final = "no answer in time"


def look_at_redis(where: Scope) -> tuple[ServerFacts, ...]:
    """Look at each Redis that *where* means, all at the same time.

    Raises:
        Unavailable: nobody said which Redis, or the app cannot be loaded.
    """
    where.need_whole()
    before = open_files()  # first of all, as other looks open theirs at the same time
    until = time.monotonic() + where.seconds * 0.9
    try:
        places = places_of(where)
    except ConfigError as exc:
        raise Unavailable(str(exc)) from None
    groups: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        groups[place.error or place.address].append(place)
    looks = [Look(where, group, until, before) for group in groups.values()]
    threads = [threading.Thread(target=look.run, daemon=True) for look in looks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return tuple(_so_far(look, where) for look in looks)


def _so_far(look: Look, where: Scope) -> ServerFacts:
    """What *look* has found, though it may go on."""
    late = {place.role: LATE for place in look.places if place.role not in look.reached}
    return ServerFacts(
        url=look.places[0].url,
        places=look.places,
        errors={**late, **look.errors},
        missed=dict(look.missed),
        told=where.max_clients,
        **dict(look.found),
    )


#: How kombu's Redis transport names things; each can be changed in ``broker_transport_options``.
SEPARATOR: Final = "\x06\x16"
STEPS: Final = (0, 3, 6, 9)
BINDINGS: Final = "_kombu.binding."
VISIBILITY: Final = 3600

#: A SCAN looks at this many keys, and there are this many of them.
SCANNED: Final = 1000
SCANS: Final = 20
#: Seconds that they may take, where Redis is far away: other looks come after them.
SCANNING: Final = 2.0

#: Commands that are sent at once.
TOGETHER: Final = 1000

#: Results whose expiry is asked for.
SAMPLE: Final = 2000

#: The queues whose memory is asked for: those with the most messages.
WEIGHED: Final = 5

#: Of those that are not lists: remote control and events go by pub/sub.
_NO_QUEUES: Final = ("celeryev", "pidbox")


def _options(app: Any) -> dict[str, Any]:
    """The options of the app's broker."""
    try:
        return dict(app.conf.broker_transport_options or {})
    except (TypeError, ValueError):
        message = "broker_transport_options is no dict"
        raise Unavailable(message) from None


def _text_option(options: Mapping[str, Any], name: str, default: str) -> str:
    value = options.get(name, default)
    if not isinstance(value, str):
        _refuse(name, "a text is needed")
    return value


def _refuse(name: str, needed: str) -> NoReturn:
    message = f"broker_transport_options[{name!r}] cannot work: {needed}"
    raise Unavailable(message) from None


def _prefix(options: Mapping[str, Any]) -> str:
    return _text_option(options, "global_keyprefix", "") if options.get("global_keyprefix") else ""


def _steps(options: Mapping[str, Any]) -> tuple[int, ...]:
    steps = options.get("priority_steps") or STEPS
    if not isinstance(steps, (list, tuple, range)) or not all(isinstance(step, int) for step in steps):
        _refuse("priority_steps", "a list of whole numbers is needed")
    return (*steps,)


def waiting_in(client: Any, database: int | None, app: Any, until: float) -> Waiting:
    """The queues of *app*, and others that are bound in Redis.

    Raises:
        Unavailable: an option of the broker cannot work; the text names it.
    """
    options = _options(app)
    prefix, separator, steps = _prefix(options), _text_option(options, "sep", SEPARATOR), _steps(options)
    if not separator:
        _refuse("sep", "it must not be empty")
    _use(client, database)
    keys: dict[str, list[str]] = {}
    queues: dict[str, int] = {}

    def ask(names: Iterable[str]) -> None:
        asked = {
            name: [f"{prefix}{name}{separator}{step}" if step else f"{prefix}{name}" for step in steps]
            for name in sorted(names)
            if not any(word in name for word in _NO_QUEUES)
        }
        sizes = iter(_each(client, "llen", [*chain.from_iterable(asked.values())]))
        queues.update({name: sum(map(_number, islice(sizes, len(of)))) for name, of in asked.items()})
        keys.update(asked)

    ask(known_queues(app))
    found, complete = _bound_queues(client, prefix, separator, until)
    others = sorted(found - {*queues})
    for start in range(0, len(others), TOGETHER):
        if time.monotonic() > until:
            complete = False
            break
        ask(others[start : start + TOGETHER])
    return Waiting(queues, _weights(client, queues, keys), complete)


def _weights(client: Any, queues: Mapping[str, int], keys: Mapping[str, list[str]]) -> dict[str, int]:
    """The memory of the longest of *queues*, where the server tells."""
    longest = sorted(filter(queues.get, queues), key=lambda name: -queues[name])[:WEIGHED]
    with suppress(exceptions.ResponseError):
        sizes = iter(_each(client, "memory_usage", [*chain.from_iterable(keys[name] for name in longest)]))
        weights = {name: sum(map(_number, islice(sizes, len(keys[name])))) for name in longest}
        return {name: weight for name, weight in weights.items() if weight}
    return {}


def _number(answer: Any) -> int:
    """That of a list; what is none is an error here, and no queue."""
    return answer if isinstance(answer, int) else 0


def _use(client: Any, database: int | None) -> None:
    """Go on in *database*, if that may be another than the one before."""
    if database is not None:
        client.select(database)


def _each(client: Any, command: str, keys: list[Any]) -> list[Any]:
    """The answers of *command* to each of *keys*, an error among them as it is."""
    if not keys:
        return []
    pipe = client.pipeline(transaction=False)
    for key in keys:
        getattr(pipe, command)(key)
    answers: list[Any] = pipe.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, exceptions.NoPermissionError):
            raise answer
    return answers


def _bound_queues(client: Any, prefix: str, separator: str, until: float) -> tuple[set[str], bool]:
    """The queues that anyone declared in this Redis, as far as a bounded SCAN finds them; and whether it did all."""
    found: set[str] = set()
    bindings, complete = _scan(client, f"{prefix}{BINDINGS}*", until)
    for start in range(0, len(bindings), TOGETHER):
        if time.monotonic() > until:
            return found - {""}, False
        for members in _each(client, "smembers", bindings[start : start + TOGETHER]):
            if not isinstance(members, Exception):  # such as that of one that is no set
                found |= {_text(member).split(separator)[-1] for member in members}
    return found - {""}, complete


def _scan(client: Any, match: str, until: float, most: int = 10**9) -> tuple[list[Any], bool]:
    """Keys that *match*, and whether that is all of them."""
    until = min(until, time.monotonic() + SCANNING)
    cursor, keys = 0, []
    for _ in range(SCANS):
        cursor, found = client.scan(cursor, match=match, count=SCANNED)
        keys += found
        if not cursor:
            return keys, True
        if len(keys) >= most or time.monotonic() > until:
            break
    return keys, False


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def unacked_in(client: Any, database: int | None, app: Any) -> Unacked:
    """What workers hold.

    Raises:
        Unavailable: an option of the broker cannot work; the text names it.
    """
    options = _options(app)
    index = _prefix(options) + _text_option(options, "unacked_index_key", "unacked_index")
    held = _prefix(options) + _text_option(options, "unacked_key", "unacked")
    try:
        visibility = float(options.get("visibility_timeout", VISIBILITY))
    except (TypeError, ValueError):
        _refuse("visibility_timeout", "a number of seconds is needed")
    _use(client, database)
    now = time.time()
    pipe = client.pipeline(transaction=False)
    pipe.zrange(index, 0, 0, withscores=True)
    pipe.hlen(held)
    pipe.zcount(index, "-inf", now - visibility)
    oldest, count, overdue = pipe.execute()
    return Unacked(int(count), max(0.0, now - oldest[0][1]) if oldest else 0.0, int(overdue), visibility)


def results_in(client: Any, database: int | None, until: float) -> Results:
    """How many results never expire, in a sample of them."""
    _use(client, database)
    keys, complete = _scan(client, f"*{RESULTS}*", until, SAMPLE)
    sample = keys[:SAMPLE]
    left = _each(client, "pttl", sample)
    # -2: it is gone since
    return Results(sum(one != -2 for one in left), left.count(-1), complete and len(sample) == len(keys))  # noqa: PLR2004


#: Both ends of a connection, as CLIENT LIST writes them, the client's first.
_Ends = tuple[str, str]


def open_files() -> frozenset[int] | None:
    """What this process has open, as numbers; ``None`` where the system does not tell."""
    try:
        return frozenset(int(name) for name in os.listdir("/dev/fd"))  # noqa: PTH208 - names are all it needs
    except (OSError, ValueError):
        return None


def holders_in(client: Any, ours: str, before: frozenset[int] | None) -> tuple[Holders, ...]:
    """Who is connected, by name, host and what they do, the most first.

    Without those that have the name *ours*, and without those that this process opened since it had only the files
    *before*: by these, other looks ask workers. Where that cannot be told, without any of this process.
    """
    opened = _opened_since(before)
    listed = client.client_list()
    if not any(one.get("name") == ours for one in listed):  # it could not be named
        asking = (one for one in reversed(listed) if one.get("cmd") in {"client", "client|list"})
        with suppress(StopIteration, ValueError):
            listed.remove(next(asking))
    processes = _processes(here=any(one.get("addr", "").startswith(("127.", "[::1]")) for one in listed))
    opened |= _opened_since(before)
    count: Counter[tuple[str, str, str]] = Counter()
    of: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for one in listed:
        address = one.get("addr", "")
        ends = (address, one.get("laddr", ""))
        pid = processes.get(ends)
        if one.get("name") == ours or ends in opened:
            continue
        key = (one.get("name", ""), address.rpartition(":")[0], _does(one))
        count[key] += 1
        of[key] |= {pid} if pid else set()
    return tuple(Holders(number, *key, tuple(sorted(of[key]))) for key, number in count.most_common())


def _does(one: Mapping[str, str]) -> str:
    """What the client of a line of CLIENT LIST does, as far as that tells."""
    command = one.get("cmd", "").lower()
    if int(one.get("sub", 0)) + int(one.get("psub", 0)) + int(one.get("ssub", 0)):
        return "listens for results or remote control"
    if command == "brpop":
        return "waits for messages (a worker)"
    return f"idle, last command {command}" if command and command != "null" else "has sent nothing yet"


def _processes(*, here: bool) -> dict[_Ends, int]:
    """The process of this machine that has a connection, where it may be seen.

    *here*: whether there may be any but this one; those of all take their time.
    """
    found: dict[_Ends, int] = {}
    with suppress(Exception):  # not allowed (macOS), or no psutil: who it is stays open
        import psutil  # noqa: PLC0415 - an extra

        if here:
            found |= {_ends(one): one.pid for one in psutil.net_connections("tcp") if one.pid and one.raddr}
    return found | {_ends(one): os.getpid() for one in _own()}


def _opened_since(before: frozenset[int] | None) -> set[_Ends]:
    """The connections that this process opened since it had only the files *before*."""
    return {_ends(one) for one in _own() if before is None or one.fd not in before}


def _ends(one: Any) -> _Ends:
    return _written(one.laddr), _written(one.raddr)


def _written(end: Any) -> str:
    """One end of a connection, as CLIENT LIST writes it."""
    return f"[{end.ip}]:{end.port}" if ":" in end.ip else f"{end.ip}:{end.port}"


def _own() -> list[Any]:
    """Those of this process, which may always be seen; before version 6, psutil had another name for that."""
    try:
        import psutil  # noqa: PLC0415 - an extra

        process = psutil.Process()
        listed = getattr(process, "net_connections", None) or process.connections
        return [one for one in listed("tcp") if one.raddr]
    except Exception:  # noqa: BLE001 - as above
        return []
