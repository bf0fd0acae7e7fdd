"""Redis URLs: which one an app uses, what it says in redis-py's spelling, and how to show one without its secrets.

Pure: nothing is connected to. Celery, kombu and redis-py spell a few things differently; this is where they meet.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from celery_argsize.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult


def server_address(part: SplitResult) -> str:
    """``host:port``, or a socket's path; the names of this machine are one, as in ``ConnectionBudget.servers``."""
    if part.scheme == "unix":
        return part.path
    here = part.hostname in {"localhost", "::1"}
    return f"127.0.0.1:{part.port}" if here else part.netloc.rpartition("@")[2].lower()


class _Scheme(NamedTuple):
    kind: Literal["server", "sentinel", "cluster"]
    redis_py: str
    with_tls: str
    port: int = 6379


#: Every scheme that is understood: those of redis-py, of Celery and kombu, and ours for a cluster.
_SCHEMES: Final = {
    "redis": _Scheme("server", "redis", "rediss"),
    "rediss": _Scheme("server", "rediss", "rediss"),
    "unix": _Scheme("server", "unix", "unix"),
    "socket": _Scheme("server", "unix", "socket"),
    "redis+socket": _Scheme("server", "unix", "redis+socket"),
    "sentinel": _Scheme("sentinel", "redis", "rediss+sentinel", 26379),
    "redis+sentinel": _Scheme("sentinel", "redis", "rediss+sentinel", 26379),
    "rediss+sentinel": _Scheme("sentinel", "rediss", "rediss+sentinel", 26379),
    "redis+cluster": _Scheme("cluster", "redis", "rediss+cluster"),
    "rediss+cluster": _Scheme("cluster", "rediss", "rediss+cluster"),
}
_ENCODE: Final = (
    "if the password has one of # / ? % [ ] in it, write that percent-encoded: %23 %2F %3F %25 %5B %5D "
    "(urllib.parse.quote(password, safe='') does it)"
)
#: Options of a URL that are about the sentinels.
_SENTINEL_OPTIONS: Final[tuple[str, ...]] = ("master_name", "sentinel_username", "sentinel_password", "sentinel_ssl")


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """What a Redis URL says."""

    kind: Literal["server", "sentinel", "cluster"]
    urls: tuple[str, ...] = field(repr=False)
    """One for each host, as redis-py takes them: ``redis://``, ``rediss://`` or ``unix://``."""
    sentinel: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Options about the sentinels: ``master_name``, ``sentinel_username``, ``sentinel_password``, ``sentinel_ssl``."""

    @property
    def tls(self) -> bool:
        """Whether what travels is encrypted."""
        return self.urls[0].startswith("rediss:")


def parse_redis_url(url: str) -> RedisPlace:
    """What *url* says: one server, or several sentinels or cluster nodes.

    Raises:
        ConfigError: it is not the URL of a Redis; the message has no part of it that may be secret.
    """
    try:
        parts = [urlsplit(one) for one in _each(url)]
    except ValueError:
        raise ConfigError(f"it cannot be read; {_ENCODE}") from None  # noqa: EM102, TRY003 - as short as it gets
    names = {part.scheme for part in parts}
    scheme = _SCHEMES.get(parts[0].scheme)
    if scheme is None:
        # without "//" behind it, what looks like a scheme may be a user's name, or a password
        found = f"the scheme {parts[0].scheme!r}" if parts[0].netloc else "what it begins with"
        message = f"{found} is not one of {', '.join(sorted(_SCHEMES))}"
        raise ConfigError(message)
    if len(names) > 1 or (len(parts) > 1 and scheme.kind == "server"):
        message = "several URLs must all be those of sentinels, or of nodes of one cluster"
        raise ConfigError(message)
    query = _query(parts)
    sentinel = {name: query.pop(name) for name in _SENTINEL_OPTIONS if name in query and scheme.kind == "sentinel"}
    if scheme.redis_py == "unix":
        return RedisPlace("server", (_join(scheme, parts[0], parts[0].netloc, query),))
    user = parts[0].netloc.rpartition("@")
    hosts = [host for part in parts for host in _hosts(part, scheme)]
    if len(hosts) > 1 and scheme.kind == "server":
        message = "several hosts are for sentinel:// and redis+cluster://"
        raise ConfigError(message)
    _check_database(parts[0].path.strip("/") or query.get("db", ""), scheme)
    return RedisPlace(
        scheme.kind, tuple(_join(scheme, parts[0], user[0] + user[1] + host, query) for host in hosts), sentinel
    )


def _each(urls: object) -> list[str]:
    """Celery takes one URL, several with ";" between, or a list of them; a result backend may also be a class."""
    if isinstance(urls, str):
        return [url.strip() for url in re.split(r";(?=\s*[a-z][a-z0-9+.-]*://)", urls)]
    return [url for url in urls if isinstance(url, str)] if isinstance(urls, (list, tuple)) else []


def _query(parts: list[SplitResult]) -> dict[str, str]:
    """The options of all URLs together; of the same one, the first counts."""
    query: dict[str, str] = {}
    for part in reversed(parts):
        query.update(parse_qsl(part.query, keep_blank_values=True))
    if "virtual_host" in query:  # kombu's name for the database in redis+socket:// URLs
        query["db"] = query.pop("virtual_host").strip("/")
    if "ssl_cert_reqs" in query:
        try:
            query["ssl_cert_reqs"] = cert_reqs(query["ssl_cert_reqs"])
        except ValueError:
            message = "ssl_cert_reqs is not required, optional or none"
            raise ConfigError(message) from None
    return query


def cert_reqs(value: object) -> str:
    """How certificates are checked, in redis-py's words, out of those of Celery, ``ssl`` or redis-py.

    Raises:
        ValueError: it is none of them.
    """
    # ssl.CERT_REQUIRED is a number with a name; None is what redis-py itself takes for no checks.
    found = str(getattr(value, "name", value)).strip().lower().removeprefix("cert_")
    if found not in {"none", "optional", "required"}:
        raise ValueError
    return found


def _hosts(part: SplitResult, scheme: _Scheme) -> list[str]:
    """The hosts of one URL, each with its port."""
    if part.fragment or "@" in part.path or any("@" in pair.partition("=")[0] for pair in part.query.split("&")):
        raise ConfigError(f"there is a # or / or ? before its @; {_ENCODE}")  # noqa: EM102, TRY003 - as above
    return [_host(text, scheme) for text in part.netloc.rpartition("@")[2].split(",")]


def _host(text: str, scheme: _Scheme) -> str:
    try:
        parts = urlsplit(f"//{text}")
        port = scheme.port if parts.port is None else parts.port
    except ValueError:
        port = 0
    if not port:
        raise ConfigError(f"the port is not a number from 1 to 65535; {_ENCODE}")  # noqa: EM102, TRY003 - as above
    name = parts.hostname or "localhost"
    try:
        name.encode("idna")
    except UnicodeError:
        message = "the host's name cannot be one"
        raise ConfigError(message) from None
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _check_database(database: str, scheme: _Scheme) -> None:
    if database and not database.isdecimal():
        message = f"the database {database!r} is not a number"
        raise ConfigError(message)
    if scheme.kind == "cluster" and int(database or 0):
        message = f"a Redis Cluster has no database but 0, and this is {database}"
        raise ConfigError(message)


def _join(scheme: _Scheme, part: SplitResult, netloc: str, query: dict[str, str]) -> str:
    return f"{scheme.redis_py}://{netloc}{part.path}" + (f"?{urlencode(query)}" if query else "")


def is_redis_url(url: object) -> bool:
    """Whether *url* has a scheme of a Redis."""
    return isinstance(url, str) and url.partition("://")[0].strip().lower() in _SCHEMES and "://" in url


def with_tls(url: str) -> str:
    """*url*, but to be reached through TLS; that of a socket file as it is, as nothing travels there."""
    return ";".join(_one_with_tls(one) for one in _each(url))


def _one_with_tls(url: str) -> str:
    name, separator, rest = url.partition("://")
    scheme = _SCHEMES.get(name.lower())
    return f"{scheme.with_tls}{separator}{rest}" if scheme else url


def from_app(app: Any) -> tuple[str | None, dict[str, Any]]:
    """The Redis that *app* uses: that of its results, else that of its messages, else ``None``.

    With it come its options, in redis-py's words: for TLS, and ``master_name``, ``min_other_sentinels`` and
    ``sentinel_kwargs`` where there are sentinels.
    """
    url, options = of_results(app)
    return (url, options) if url else of_messages(app)


def of_results(app: Any, *, completed: bool = False) -> tuple[str | None, dict[str, Any]]:
    """The Redis that *app* keeps results in, with its options as of ``from_app``.

    *completed*: with what the URL leaves to ``redis_host`` and the settings like it; ``result_backend = "redis"``
    leaves all to them.
    """
    conf = app.conf
    url = _completed(conf) if completed else conf.result_backend
    transport = _transport(conf, "broker_transport_options", "result_backend_transport_options")
    return _of_app(_each(url), conf.get("redis_backend_use_ssl"), transport)


def _completed(conf: Any) -> Any:
    """The URL of the results' Redis as Celery has it (celery/backends/redis.py, ``RedisBackend.__init__``)."""
    url = conf.result_backend
    if url in ("redis", "rediss"):
        url = f"redis:///{conf.get('redis_db') or 0}"
    given = {name: str(conf.get(f"redis_{name}") or "") for name in ("host", "port", "username", "password")}
    found = re.match(r"(rediss?://)(?:([^:@/?#]*)(?::([^@/?#]*))?@)?([^@/?#]*?)(?::([0-9]+))?($|[/?].*)", str(url))
    if found is None or not any(given.values()):
        return url
    scheme, name, password, host, port, rest = found.groups()
    name, password = name or quote(given["username"], safe=""), password or quote(given["password"], safe="")
    user = f"{name}:{password}@" if name or password else ""
    return f"{scheme}{user}{host or given['host'] or 'localhost'}:{port or given['port'] or 6379}{rest}"


def of_messages(app: Any, setting: str = "broker_url") -> tuple[str | None, dict[str, Any]]:
    """The Redis that messages of *app* go through, with its options as of ``from_app``.

    *setting*: which of its broker URLs is meant.
    """
    return next(iter(each_of_messages(app, setting)), (None, {}))


def each_of_messages(app: Any, setting: str = "broker_url") -> list[tuple[str, dict[str, Any]]]:
    """As ``of_messages``, but each Redis of a list of brokers, of which Celery takes the first that answers."""
    conf = app.conf
    transport = _transport(conf, "result_backend_transport_options", "broker_transport_options")
    left = [url for url in _each(getattr(conf, setting)) if is_redis_url(url)]
    found = []
    while left:
        url, options = _of_app(left, conf.get("broker_use_ssl"), transport)
        found.append((str(url), options))
        several = _is_sentinel(left[0]) or _is_cluster(left[0])
        left = [one for one in left[1:] if not (several and (_is_sentinel(one) or _is_cluster(one)))]
    return found


def _transport(conf: Any, *names: str) -> dict[str, Any]:
    """The transport options of the settings *names*, of which the last wins."""
    found: dict[str, Any] = {}
    for name in names:
        try:
            found |= dict(conf.get(name) or {})
        except (TypeError, ValueError):
            message = f"{name} cannot work; allowed: a dict"
            raise ConfigError(message) from None
    return found


def _of_app(urls: list[str], use_ssl: object, transport: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The first Redis of *urls*."""
    found = [url for url in urls if is_redis_url(url)]
    if not found:
        return None, {}
    url = found[0]
    options: dict[str, Any] = {}
    if _is_sentinel(url):
        url = ";".join(filter(_is_sentinel, found))
        options = {key: transport[key] for key in ("master_name", "min_other_sentinels") if key in transport}
        # As with Celery, what the primary is given is not what the sentinels are.
        options["sentinel_kwargs"] = dict(transport.get("sentinel_kwargs") or {})
    elif len(found) > 1 and _is_cluster(url):
        url = ";".join(found)
    if not use_ssl or with_tls(url).startswith(("unix:", "socket:", "redis+socket:")):
        return url, options
    return with_tls(url), {**options, **(use_ssl if isinstance(use_ssl, dict) else {})}


def _is_sentinel(url: str) -> bool:
    return url.partition("://")[0].lower().endswith("sentinel")


def _is_cluster(url: str) -> bool:
    return url.partition("://")[0].lower().endswith("cluster")


def safe_url(url: object) -> str:
    """*url* without user name, password and options, for people to read."""
    if not url:
        return "(nothing)"
    shown = [_safe_one(one) for one in _each(str(url))]
    return "(an unreadable URL)" if None in shown else ";".join(filter(None, shown))


def _safe_one(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        hosts = [urlsplit(f"//{text}") for text in parts.netloc.rpartition("@")[2].split(",")]
        names = (
            (f"[{host.hostname}]" if ":" in (host.hostname or "") else host.hostname or "", host) for host in hosts
        )
        shown = ",".join(f"{name}:{host.port}" if host.port else name for name, host in names)
    except ValueError:
        return None
    # An unquoted "/", "?" or "#" in a password moves the rest of it behind the host.
    if not parts.scheme or "@" in parts.path + parts.query + parts.fragment:
        return None
    return f"{parts.scheme}://{shown}{parts.path}"
