"""How a Redis is connected to: a server, the primary that sentinels name, or a cluster; and what its errors mean.

What is kept there is the business of ``stores.redis``; what a URL says, of ``redis_url``.
"""

from __future__ import annotations

import re
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import redis
from redis import connection as redis_connection, exceptions, sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_argsize.errors import ConfigError
from celery_argsize.redis_url import cert_reqs, parse_redis_url, safe_url
from celery_argsize.settings import NO_MASTER_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_argsize.redis_url import RedisPlace
    from celery_argsize.settings import Settings
    from celery_argsize.stores.cluster import ClusterClient

if TYPE_CHECKING:
    Client = redis.Redis | ClusterClient

#: Name of our connection in CLIENT LIST.
CLIENT_NAME: Final = "celery-argsize"

#: Seconds to wait for Redis, to connect and for each answer.
TIMEOUT: Final = 5.0

#: redis-py's own, which have no types.
_parse_url: Final[Callable[[str], dict[str, Any]]] = redis_connection.parse_url
_Sentinel: Final[Any] = sentinel.Sentinel

_TIMES: Final = ("socket_timeout", "socket_connect_timeout")
#: The TLS options that have a setting of their own, ``redis_`` before it.
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_SETTINGS: Final = ("ssl_cert_reqs", "ssl_check_hostname", *_TLS_FILES)
#: Options of a pool, and of an app's sentinels, that are not those of a connection.
_POOL_OPTIONS: Final[tuple[str, ...]] = ("max_connections", "timeout")
_SENTINEL_OPTIONS: Final[tuple[str, ...]] = ("master_name", "min_other_sentinels", "sentinel_kwargs")
_YES: Final = ("1", "true", "yes", "on")

_CLIENT_FILES: Final = "set redis_ssl_certfile and redis_ssl_keyfile"
_RIGHTS: Final = "docs/redis-schema.md has the rights it needs"


def connect(settings: Settings) -> Client:
    """A client for the Redis of *settings*, which opens one connection when it is first used.

    It names its connection, waits at most ``TIMEOUT`` seconds, and never sends anything twice: the flusher tries again
    by itself. A connection that was closed while idle is replaced without an error.

    Raises:
        ConfigError: the URL, or an option with it, cannot work.
    """
    url = settings.redis_url or ""
    try:
        place = parse_redis_url(url)
        return _client(settings, place, _options(settings, place))
    except _FileError as exc:
        raise ConfigError(str(exc)) from None
    except (ValueError, TypeError, exceptions.RedisError) as exc:
        message = f"redis_url = {safe_url(url)} cannot work ({exc})"
        raise ConfigError(message) from None


class _FileError(Exception):
    """A file that a setting names cannot be read; the text says which."""


def _options(settings: Settings, place: RedisPlace) -> dict[str, Any]:
    """Keywords for a connection of redis-py: the URL's win over the settings, those over the app's, those over ours."""
    ours = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "client_name": CLIENT_NAME,
        "retry": Retry(NoBackoff(), 0),
    }
    of_settings: dict[str, Any] = {name: getattr(settings, f"redis_{name}") for name in _TLS_SETTINGS}
    of_settings = {name: value for name, value in of_settings.items() if value is not None and place.tls}
    of_url = _parse_url(place.urls[0])
    options = {**ours, **settings.redis_options, **of_settings, **of_url}
    if place.tls:
        _complete_tls(options)
        _check_files(options, {name for name in of_settings if name not in of_url})
    return options


def _complete_tls(options: dict[str, Any]) -> None:
    """Certificates and host names are checked, unless it was said that they are not."""
    options["ssl_cert_reqs"] = cert_reqs(options.get("ssl_cert_reqs", "required"))
    if options["ssl_cert_reqs"] == "none":  # ssl refuses to check names in what it does not check
        options["ssl_check_hostname"] = False
    else:
        options.setdefault("ssl_check_hostname", True)  # before version 6, redis-py would not


def _check_files(options: dict[str, Any], of_settings: set[str]) -> None:
    for name in _TLS_FILES:
        path = options.get(name)
        if path is None:
            continue
        try:
            with Path(path).open("rb"):
                pass
        except OSError as exc:
            spelled = f"redis_{name}" if name in of_settings else name
            message = f"{spelled} = {str(path)!r} cannot work: {exc.strerror}; allowed: the path of a file"
            raise _FileError(message) from None


def _client(settings: Settings, place: RedisPlace, options: dict[str, Any]) -> Client:
    sentinels: dict[str, Any] = {name: options.pop(name) for name in _SENTINEL_OPTIONS if name in options}
    _try_options(options)
    if place.kind == "server":
        return redis.Redis(connection_pool=redis.ConnectionPool(**options))
    plain = {name: value for name, value in options.items() if name not in {"host", "port", "connection_class"}}
    hosts = [(found.get("host", "localhost"), found["port"]) for found in map(_parse_url, place.urls)]
    if place.tls:
        plain["ssl"] = True
    if place.kind == "sentinel":
        return _sentinel_client(hosts, plain, {**sentinels, **place.sentinel}, require_tls=settings.require_redis_ssl)
    # Here and not at the top: it takes its time, and few have one.
    from celery_argsize.stores.cluster import ClusterClient  # noqa: PLC0415

    return ClusterClient(hosts, plain)


def _try_options(options: dict[str, Any]) -> None:
    """Raise now what redis-py would raise when it connects: an option that it does not know."""
    plain = {name: value for name, value in options.items() if name not in {"connection_class", *_POOL_OPTIONS}}
    options.get("connection_class", redis.Connection)(**plain)


def _sentinel_client(
    hosts: list[tuple[str, int]], options: dict[str, Any], given: dict[str, Any], *, require_tls: bool
) -> redis.Redis:
    """A client for whichever server the sentinels call the primary, each time it connects."""
    name = given.get("master_name")
    if not name:
        raise ConfigError(NO_MASTER_NAME)
    kept = (*_TIMES, "client_name", "retry")
    of_sentinels = {key: options[key] for key in kept if key in options} | dict(given.get("sentinel_kwargs") or {})
    for key in ("username", "password"):
        if f"sentinel_{key}" in given:
            of_sentinels[key] = given[f"sentinel_{key}"]
    said = given.get("sentinel_ssl")
    tls = "sentinel_kwargs" not in given and options.get("ssl", False) if said is None else said.lower() in _YES
    if of_sentinels.setdefault("ssl", tls or require_tls):
        of_sentinels = {**{key: value for key, value in options.items() if key.startswith("ssl_")}, **of_sentinels}
        _complete_tls(of_sentinels)
    manager = _Sentinel(hosts, int(given.get("min_other_sentinels", 0)), sentinel_kwargs=of_sentinels, **options)
    client: redis.Redis = manager.master_for(name)
    return client


def disconnect(client: Client) -> None:
    """Close what *client* has open. It connects again when next used, and asks sentinels or a cluster anew by then."""
    if not isinstance(client, redis.Redis):
        client.close()
        return
    client.close()
    client.connection_pool.disconnect()
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    for one in manager.sentinels if manager else ():
        one.connection_pool.disconnect()


def prepare() -> None:
    """Load what connecting would, so that a thread that connects imports nothing; nothing is connected to.

    A fork while a thread imports would leave that import locked in the child for ever.
    """
    "localhost".encode("idna")  # encodings.idna, which resolving a host name takes
    metadata.version("redis")  # email.parser, which redis-py telling Redis its version takes
    import_module("secrets")  # which a pool takes, and a cluster's are made when it connects


#: What an error asks for: the first pattern that is in "classes of the error: its text". Groups go into the words.
_FIXES: Final = tuple(
    (re.compile(pattern), fix)
    for pattern, fix in (
        ("unknown command '?`?HELLO", "it does not know RESP3; add ?protocol=2 to the URL"),
        ("TTL exhausted", "a slot of the cluster is on its way to another node; this heals by itself"),
        ("max number of clients", "it has no place for another client; raise its maxclients"),
        ("OutOfMemoryError|OOM ", "it is out of memory; raise its maxmemory or free some"),
        ("NOREPLICAS|good replicas", "too few of its replicas are up to date; look at min-replicas-to-write"),
        ("MISCONF", "it cannot save to its disk, and so takes no writes; its log says why (a full disk?)"),
        ("MasterNotFound", "no sentinel there names a primary; are they running, and is master_name right?"),
        ("previous master is now|MasterDown|MASTERDOWN", "its primary is being replaced; this heals by itself"),
        ("ReadOnlyError|READONLY", "it is a read-only replica; give the URL of the primary"),
        ("BusyLoadingError|LOADING", "it is still loading its data; this heals by itself"),
        (
            "MovedError|MOVED|SELECT is not allowed in cluster",
            "it is part of a cluster; write redis+cluster:// in redis_url",
        ),
        ("Cluster mode is not enabled|cluster support disabled", "it is no cluster; write redis:// in redis_url"),
        ("ClusterDown|CLUSTERDOWN|slots are not covered", "the cluster is down: slots have no node; see CLUSTER INFO"),
        (
            r"WRONGTYPE.*\(key (?P<found>.+?), field",
            "its key {found} is none of ours; delete it, or give another key_prefix",
        ),
        ("WRONGTYPE", "a key of ours holds something else; give another key_prefix, or delete what is under ours"),
        ("BUSY ", "another client's script keeps it busy; see SCRIPT KILL"),
        ("DB index is out of range", "it has no database of that number; see its setting databases"),
        (r"to run the '(?P<found>[^']+)' command", f"its user may not run {{found}}; {_RIGHTS}"),
        ("access (a|one of the) (key|chan)", f"its user may not use keys of this prefix; {_RIGHTS}"),
        ("NoPermission|NOPERM|The user executing the script", f"its user may not do this; {_RIGHTS}"),
        ("called without any password|no password is set", "it has no password, and the URL has one; take it out"),
        ("AuthenticationError|NOAUTH|WRONGPASS", "it wants a user name and password other than the URL's"),
        ("certificate has expired", "its certificate has expired; renew that"),
        ("not yet valid", "its certificate is not valid yet; are both clocks right?"),
        (
            "(?i)(hostname|ip address) mismatch|doesn't match",
            ("its certificate is for another host name; use the name in it, or set redis_ssl_check_hostname to false"),
        ),
        (
            "CERTIFICATE_VERIFY_FAILED",
            "its certificate is not signed by a CA known here; set redis_ssl_ca_certs to its CA",
        ),
        ("(?i)certificate.required", f"it wants a client certificate; {_CLIENT_FILES}"),
        (
            "(?i)unexpected.eof|EOF occurred",
            f"it ended the TLS connection; if it wants a client certificate, {_CLIENT_FILES}",
        ),
        (
            "(?i)alert.(unknown.ca|bad.certificate|certificate)",
            "it does not take our client certificate; is its CA right?",
        ),
        (
            "(?i)no start line|no_certificate|pem lib|values.mismatch|bad base64",
            ("a certificate or key file is not what it should be (PEM, and the key that belongs to the certificate)"),
        ),
        (
            "(?i)wrong.version.number|record.layer.failure",
            ("it speaks no TLS at that port; give its TLS port, or write redis:// (and leave require_redis_ssl out)"),
        ),
        (
            r"(?i)name or service|name resolution|nodename nor|no address assoc|getaddrinfo",
            "its host name is not known here",
        ),
        ("No such file or directory", "there is no such socket; is it running, and is that its unixsocket?"),
        ("Permission denied", "this process may not open its socket; see its setting unixsocketperm"),
        ("TimeoutError|Timeout", "no answer in time; is it running, and is that the address?{tls}"),
        ("(?i)closed by server|connection reset|broken pipe", "it closed the connection.{tls}"),
        ("ConnectionError", "no connection; is it running, and is that the address? ({text})"),
        ("", "{kind}: {text}"),
    )
)
#: The commands that hold a password, and what comes behind them where a server quotes them.
_SIGNING_IN: Final = re.compile(r"(?is)\b(HELLO|AUTH)\b.+")
_NO_TLS_HINT: Final = " Does that port speak TLS?"
_TLS_HINT: Final = " If it wants TLS, write rediss:// in redis_url, or set require_redis_ssl"


def explain(what: str, where: str, exc: Exception) -> str:
    """One line for people: that *what* (such as "read from") failed for the Redis at *where*, and what to do."""
    # what a server quotes of a command that it does not know may be the password
    text = " ".join(str(exc).split()).partition(", with args beginning with")[0]
    seen = " ".join(kind.__name__ for kind in type(exc).__mro__) + f": {text}"
    found, fix = next((found, fix) for pattern, fix in _FIXES if (found := pattern.search(seen)))
    words = {
        "text": text,
        "kind": type(exc).__name__,
        "tls": _NO_TLS_HINT if where.startswith("rediss") else "" if where.startswith("unix") else _TLS_HINT,
        **found.groupdict(),
    }
    words = {name: _SIGNING_IN.sub(r"\1 …", word) for name, word in words.items()}
    return f"cannot {what} Redis at {where}: {fix.format(**words)}"
