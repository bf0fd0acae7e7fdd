"""Connects to a Redis server, a cluster, or the primary of sentinels; explains errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import redis
from redis import connection as redis_connection, exceptions, sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

from celery_argsize.errors import ConfigError
from celery_argsize.redis_url import cert_reqs, parse_redis_url, safe_url
from celery_argsize.settings import NO_MASTER_NAME
from celery_argsize.stores.cluster import ClusterClient

if TYPE_CHECKING:
    from celery_argsize.redis_url import RedisPlace
    from celery_argsize.settings import Settings

    Client = redis.Redis | ClusterClient

#: Name of our connection in CLIENT LIST.
CLIENT_NAME: Final = "celery-argsize"
#: Seconds to wait for a connection, and for each reply.
TIMEOUT: Final = 5.0
_parse_url: Final[Any] = redis_connection.parse_url  # redis-py has no types for it
_Sentinel: Final[Any] = sentinel.Sentinel

#: TLS options. Each has a setting, ``redis_`` and this name.
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_SETTINGS: Final = ("ssl_cert_reqs", "ssl_check_hostname", *_TLS_FILES)
#: Options of a connection pool that a connection does not take.
_POOL_OPTIONS: Final = {"connection_class", "max_connections", "timeout"}
_SENTINEL_OPTIONS: Final = ("master_name", "min_other_sentinels", "sentinel_kwargs")


def connect(settings: Settings) -> Client:
    """A client for the Redis of *settings*. Its first use opens one connection.

    It never sends a command twice. It replaces a connection
    that was closed while idle.

    Raises:
        ConfigError: the URL or an option is invalid, or a file cannot be read.
    """
    url = settings.redis_url or ""
    try:
        place = parse_redis_url(url)
        options = _options(settings, place)
        client = _client(settings, place, dict(options))
    except (ValueError, TypeError, exceptions.RedisError) as exc:
        message = f"redis_url = {safe_url(url)} cannot work ({exc})"
        raise ConfigError(message) from None
    _check_files(settings, options)
    return client


def _options(settings: Settings, place: RedisPlace) -> dict[str, Any]:
    """Options for redis-py. Later ones win: defaults, app, settings, URL."""
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "client_name": CLIENT_NAME,
        "retry": Retry(NoBackoff(), 0),
        **settings.redis_options,
    }
    if place.tls:
        options |= {name: value for name in _TLS_SETTINGS if (value := getattr(settings, f"redis_{name}")) is not None}
    options |= _parse_url(place.urls[0])
    if place.tls:
        _complete_tls(options)
    return options


def _complete_tls(options: dict[str, Any]) -> None:
    """Have certificates and host names checked, unless *options* forbid it."""
    options["ssl_cert_reqs"] = cert_reqs(options.get("ssl_cert_reqs", "required"))
    if options["ssl_cert_reqs"] == "none":  # ssl cannot check the name in an unchecked one
        options["ssl_check_hostname"] = False
    options.setdefault("ssl_check_hostname", True)  # redis-py 5 has False


def _check_files(settings: Settings, options: dict[str, Any]) -> None:
    for name in _TLS_FILES:
        path = options.get(name)
        try:
            if path is not None:
                Path(path).read_bytes()
        except OSError as exc:
            setting = f"redis_{name}" if getattr(settings, f"redis_{name}") == path else name
            message = f"{setting} = {str(path)!r} cannot work: {exc.strerror}; allowed: the path of a file"
            raise ConfigError(message) from None


def _client(settings: Settings, place: RedisPlace, options: dict[str, Any]) -> Client:
    for_sentinels: dict[str, Any] = {name: options.pop(name) for name in _SENTINEL_OPTIONS if name in options}
    # Refuses unknown options now, before it connects.
    names = options.keys() - _POOL_OPTIONS
    options.get("connection_class", redis.Connection)(**{name: options[name] for name in names})
    if place.kind == "server":
        return redis.Redis(connection_pool=redis.ConnectionPool(**options))
    hosts = [(url.get("host", "localhost"), url["port"]) for url in map(_parse_url, place.urls)]
    for name in ("host", "port"):
        options.pop(name, None)
    if place.kind == "cluster":
        return ClusterClient(hosts, options)
    options.pop("connection_class", None)
    options["ssl"] = place.tls
    for_sentinels.update(place.sentinel)
    if not for_sentinels.get("master_name"):
        raise ConfigError(NO_MASTER_NAME)
    kwargs = _sentinel_kwargs(options, for_sentinels, require_tls=settings.require_redis_ssl)
    others = int(for_sentinels.get("min_other_sentinels", 0))
    sentinels = _Sentinel(hosts, others, sentinel_kwargs=kwargs, **options)
    return sentinels.master_for(for_sentinels["master_name"])  # type: ignore[no-any-return]


def _sentinel_kwargs(options: dict[str, Any], own: dict[str, Any], *, require_tls: bool) -> dict[str, Any]:
    """Options to connect to sentinels: some *options* of the primary, and their *own*."""
    shared = ("socket_timeout", "socket_connect_timeout", "client_name", "retry")
    kwargs = {name: options[name] for name in shared} | (own.get("sentinel_kwargs") or {})
    for name in own.keys() & {"sentinel_username", "sentinel_password"}:
        kwargs[name.removeprefix("sentinel_")] = own[name]
    if "sentinel_ssl" in own:
        tls = own["sentinel_ssl"].lower() in {"1", "true", "yes", "on"}
    else:  # like the primary, unless the app has options for sentinels
        tls = options["ssl"] and "sentinel_kwargs" not in own
    if kwargs.setdefault("ssl", tls or require_tls):
        kwargs = {name: options[name] for name in options if name.startswith("ssl_")} | kwargs
        _complete_tls(kwargs)
    return kwargs


def disconnect(client: Client) -> None:
    """Close all connections. The next use asks sentinels or a cluster again."""
    client.close()
    if isinstance(client, redis.Redis):
        client.connection_pool.disconnect()
        manager = getattr(client.connection_pool, "sentinel_manager", None)
        for server in getattr(manager, "sentinels", ()):
            server.connection_pool.disconnect()


_RIGHTS: Final = "docs/redis-schema.md has the rights"
_CERTIFICATE: Final = "set redis_ssl_certfile and redis_ssl_keyfile"

#: What to do about an error, by a pattern that is searched in "<class names>:
#: <text>". The first match counts.
_FIXES: Final = {
    "unknown command '?`?HELLO": "it does not know RESP3; add ?protocol=2 to the URL",
    "max number of clients": "it has no place for another client; raise its maxclients",
    "OutOfMemoryError|OOM ": "it is out of memory; raise its maxmemory",
    "NOREPLICAS|good replicas": "too few of its replicas are up to date; see min-replicas-to-write",
    "MISCONF": "it cannot save to its disk, so it takes no writes; its log says why",
    "MasterNotFound": "no sentinel there names a primary; are they running, and is master_name right?",
    "previous master is now|MasterDown|MASTERDOWN": "its primary is being replaced; this heals by itself",
    "ReadOnlyError|READONLY": "it is a read-only replica; give the URL of the primary",
    "BusyLoadingError|LOADING": "it is still loading its data; this heals by itself",
    "MovedError|MOVED|SELECT is not": "it is part of a cluster; write redis+cluster:// in redis_url",
    "AskError|ASK |TryAgain|TRYAGAIN": "a slot is on its way to another node; this heals by itself",
    "Cluster mode is not|cluster support dis": "it is no cluster; write redis:// in redis_url",
    "ClusterDown|CLUSTERDOWN|not covered": "slots have no node; see CLUSTER INFO",
    r"WRONGTYPE.*\(key (?P<name>.+?), field": "its key {name} is none of ours; delete it",
    "WRONGTYPE": "a key of ours holds something else; delete it, or give another key_prefix",
    "DB index is out of range": "it has no database of that number; see its setting databases",
    "to run the '(?P<name>[^']+)' command": f"its user may not run {{name}}; {_RIGHTS}",
    "access (a|one of the) (key|chan)": f"its user may not use keys of this prefix; {_RIGHTS}",
    "NoPermission|NOPERM|The user executing the script": f"its user may not do this; {_RIGHTS}",
    "called without any password|no password is set": "it has no password; take it out of the URL",
    "AuthenticationError|NOAUTH|WRONGPASS": "it wants a user name and password other than the URL's",
    "certificate has expired": "its certificate has expired; renew that",
    "not yet valid": "its certificate is not valid yet; are the clocks right?",
    "(?i)(hostname|ip address) mismatch|doesn't match": (
        "its certificate is for another host name; use that, or set redis_ssl_check_hostname to false"
    ),
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not signed by a CA known here; set redis_ssl_ca_certs to its CA",
    "(?i)certificate.required": f"it wants a client certificate; {_CERTIFICATE}",
    "(?i)unexpected.eof|EOF occurred": f"it ended TLS; if it wants a client certificate, {_CERTIFICATE}",
    "(?i)no start line|no_certificate|pem lib|values.mismatch|bad base64": (
        "a certificate or key file is not what it should be: PEM, and a pair"
    ),
    "(?i)wrong.version.number|record.layer.failure": (
        "it speaks no TLS at that port; give its TLS port, or write redis://"
    ),
    "(?i)name or service|name resolution|nodename nor|getaddrinfo": "its host name is not known here",
    "No such file or directory": "there is no such socket; is it running with that unixsocket?",
    "Timeout": "no answer in time; is it running, and is that the address?{hint}",
    "(?i)closed by server|connection reset|broken pipe": "it closed the connection.{hint}",
    "ConnectionError": "no connection; is it running, and is that the address? ({text})",
    "": "{kind}: {text}",
}
_TLS_HINTS: Final = {
    "unix": "",
    "rediss": " Does that port speak TLS?",
    "": " If it wants TLS, write rediss:// in redis_url, or set require_redis_ssl",
}
#: Commands that hold a password, and all text after them.
_LOGIN: Final = re.compile(r"(?is)\b(HELLO|AUTH)\b.+")


def explain(action: str, where: str, error: Exception) -> str:
    """One line without secrets: what failed, where, and how to fix it.

    *action* is "read from" or "write to"; *where* is a URL from ``safe_url``.
    """
    # A server quotes the arguments of an unknown command: perhaps a password.
    text = " ".join(str(error).split()).partition(", with args beginning with")[0]
    kinds = " ".join(kind.__name__ for kind in type(error).__mro__)
    matches = ((re.search(pattern, f"{kinds}: {text}"), fix) for pattern, fix in _FIXES.items())
    match, fix = next((match, fix) for match, fix in matches if match)
    hint = next(hint for scheme, hint in _TLS_HINTS.items() if where.startswith(scheme))
    text = _LOGIN.sub(r"\1 …", text)
    reason = fix.format(text=text, kind=type(error).__name__, hint=hint, **match.groupdict())
    return f"cannot {action} Redis at {where}: {reason}"
