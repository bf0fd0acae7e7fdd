"""Redis URLs: which one an app uses, how redis-py spells it, how it is shown without secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from celery_argsize.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult


class _Scheme(NamedTuple):
    kind: Literal["server", "sentinel", "cluster"]
    redis_py: str
    """redis-py's scheme for one host."""
    with_tls: str
    """Our scheme for this kind of Redis with TLS."""
    port: int = 6379


#: The schemes of redis-py, Celery and kombu, and ours for a cluster.
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
    "in a password, # / ? % [ ] are written percent-encoded: %23 %2F %3F %25 %5B %5D "
    "(urllib.parse.quote(password, safe='') does it)"
)
_SENTINEL_OPTIONS: Final[tuple[str, ...]] = ("master_name", "sentinel_username", "sentinel_password", "sentinel_ssl")


@dataclass(frozen=True, slots=True)
class RedisPlace:
    """The parts of a Redis URL."""

    kind: Literal["server", "sentinel", "cluster"]
    urls: tuple[str, ...] = field(repr=False)
    """A URL for each host, as redis-py takes it: ``redis://``,
    ``rediss://`` or ``unix://``."""
    sentinel: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Options of the URL for sentinels, such as ``master_name``."""

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.urls[0].startswith("rediss:")


def parse_redis_url(url: str) -> RedisPlace:
    """The parts of *url*.

    Raises:
        ConfigError: *url* is no Redis URL. The message shows nothing that may be secret.
    """
    try:
        parts = [urlsplit(single) for single in _each(url)]
    except ValueError:
        message = f"it cannot be read; {_ENCODE}"
        raise ConfigError(message) from None
    first = parts[0]
    # Without a "//", the beginning may be a user's name or a password.
    shown = f"the scheme {first.scheme!r}" if first.netloc else "what it begins with"
    _check(first.scheme in _SCHEMES, f"{shown} is not one of {', '.join(sorted(_SCHEMES))}")
    scheme = _SCHEMES[first.scheme]
    alike = len({part.scheme for part in parts}) == 1 and (len(parts) == 1 or scheme.kind != "server")
    _check(alike, "several URLs must all be of sentinels, or of nodes of one cluster")
    query = _query(parts)
    sentinel = {name: query.pop(name) for name in _SENTINEL_OPTIONS if name in query and scheme.kind == "sentinel"}
    rest = first.path + (f"?{urlencode(query)}" if query else "")
    if scheme.redis_py == "unix":
        return RedisPlace("server", (f"unix://{first.netloc}{rest}",))
    hosts = [host for part in parts for host in _hosts(part, scheme.port)]
    _check(len(hosts) == 1 or scheme.kind != "server", "several hosts are for sentinel:// and redis+cluster://")
    database = first.path.strip("/") or query.get("db", "") or "0"
    _check(database.isdecimal(), f"the database {database!r} is not a number")
    _check(scheme.kind != "cluster" or not int(database), "a Redis Cluster has no database but 0")
    user, at, _ = first.netloc.rpartition("@")
    return RedisPlace(scheme.kind, tuple(f"{scheme.redis_py}://{user}{at}{host}{rest}" for host in hosts), sentinel)


def _check(fine: object, message: str) -> None:
    if not fine:
        raise ConfigError(message)


def _each(urls: object) -> list[str]:
    """The URLs in a setting: text with ";" between URLs, or a list. Else none."""
    if isinstance(urls, str):
        return [url.strip() for url in re.split(r";(?=\s*[a-z][a-z0-9+.-]*://)", urls)]
    return [url for url in urls if isinstance(url, str)] if isinstance(urls, (list, tuple)) else []


def _query(parts: list[SplitResult]) -> dict[str, str]:
    """The options of all URLs. The first URL that has an option gives its value."""
    query: dict[str, str] = {}
    for part in reversed(parts):
        query.update(parse_qsl(part.query, keep_blank_values=True))
    if "virtual_host" in query:  # the database of kombu's redis+socket:// URLs
        query["db"] = query.pop("virtual_host").strip("/")
    if "ssl_cert_reqs" in query:
        query["ssl_cert_reqs"] = cert_reqs(query["ssl_cert_reqs"])
    return query


def cert_reqs(value: object) -> str:
    """``required``, ``optional`` or ``none``, for a name or constant of Celery or ``ssl``.

    Raises:
        ConfigError: *value* is none of these.
    """
    # ssl.CERT_REQUIRED has a name. None is redis-py's word for no checks.
    name = str(getattr(value, "name", value)).strip().lower().removeprefix("cert_")
    _check(name in {"none", "optional", "required"}, "ssl_cert_reqs is not required, optional or none")
    return name


def _hosts(part: SplitResult, default_port: int) -> list[str]:
    """The hosts of one URL, each with its port."""
    keys = [pair.partition("=")[0] for pair in part.query.split("&")]
    misplaced = part.fragment or any("@" in text for text in (part.path, *keys))
    _check(not misplaced, f"there is a # or / or ? before its @; {_ENCODE}")
    hosts = []
    for host in part.netloc.rpartition("@")[2].split(","):
        try:
            name, port = urlsplit(f"//{host}").hostname or "localhost", urlsplit(f"//{host}").port
        except ValueError:
            name, port = "localhost", 0
        _check(port != 0, f"the port is not a number from 1 to 65535; {_ENCODE}")
        fine = all(0 < len(label) < 64 for label in name.removesuffix(".").split("."))  # noqa: PLR2004 - of DNS
        _check(fine, "the host's name cannot be one")
        hosts.append(_host_port(name, port or default_port))
    return hosts


def _host_port(name: str, port: int | None) -> str:
    name = f"[{name}]" if ":" in name else name
    return f"{name}:{port}" if port else name


def server_address(part: SplitResult) -> str:
    """``host:port``, or the path of a socket. All names of this machine become 127.0.0.1."""
    if part.scheme == "unix":
        return part.path
    here = part.hostname in {"localhost", "::1"}
    return f"127.0.0.1:{part.port}" if here else part.netloc.rpartition("@")[2].lower()


def is_redis_url(url: str) -> bool:
    """Whether *url* has a scheme of a Redis."""
    return "://" in url and _scheme_name(url.strip()) in _SCHEMES


def _scheme_name(url: str) -> str:
    return url.partition("://")[0].lower()


def with_tls(url: str) -> str:
    """*url* with the scheme for TLS. The URL of a socket file stays as it is."""
    parts = [single.partition("://") for single in _each(url)]
    return ";".join(f"{_SCHEMES[scheme.lower()].with_tls}://{rest}" for scheme, _, rest in parts)


def from_app(app: Any) -> tuple[str | None, dict[str, Any]]:
    """The Redis of *app*'s results, or else of its messages, and its options for redis-py."""
    url, options = of_results(app)
    return (url, options) if url else next(iter(each_of_messages(app)), (None, {}))


def of_results(app: Any) -> tuple[str | None, dict[str, Any]]:
    """The Redis of *app*'s results, if any, and its options for redis-py."""
    transport = _transport(app.conf, "broker_transport_options", "result_backend_transport_options")
    urls = _redis_urls(_completed(app.conf))
    return _with_options(urls[0], app.conf.get("redis_backend_use_ssl"), transport) if urls else (None, {})


def each_of_messages(app: Any, setting: str = "broker_url") -> list[tuple[str, dict[str, Any]]]:
    """Each Redis in *setting* for *app*'s messages, and its options for redis-py."""
    transport = _transport(app.conf, "result_backend_transport_options", "broker_transport_options")
    use_ssl = app.conf.get("broker_use_ssl")
    return [_with_options(url, use_ssl, transport) for url in _redis_urls(getattr(app.conf, setting))]


def _completed(conf: Any) -> Any:
    """The URL of results. Like Celery, it takes missing parts from ``redis_host`` etc."""
    url = conf.result_backend
    if url in ("redis", "rediss"):
        url = f"redis:///{conf.get('redis_db') or 0}"
    given = {name: str(conf.get(f"redis_{name}") or "") for name in ("host", "port", "username", "password")}
    match = re.match(r"(rediss?://)(?:([^:@/?#]*)(?::([^@/?#]*))?@)?([^@/?#]*?)(?::([0-9]+))?($|[/?].*)", str(url))
    if match is None or not any(given.values()):
        return url
    scheme, name, password, host, port, rest = match.groups()
    name, password = name or quote(given["username"], safe=""), password or quote(given["password"], safe="")
    user = f"{name}:{password}@" if name or password else ""
    return f"{scheme}{user}{host or given['host'] or 'localhost'}:{port or given['port'] or 6379}{rest}"


def _transport(conf: Any, *names: str) -> dict[str, Any]:
    """The transport options in the settings *names*. The last setting wins."""
    options: dict[str, Any] = {}
    for name in names:
        value = conf.get(name) or {}
        _check(isinstance(value, dict), f"{name} cannot work; allowed: a dict")
        options |= value
    return options


def _redis_urls(urls: object) -> list[str]:
    """Each Redis among *urls*. All sentinels are one Redis, as are all nodes of a cluster."""
    groups: dict[str, list[str]] = {}
    for url in dict.fromkeys(filter(is_redis_url, _each(urls))):
        kind = _SCHEMES[_scheme_name(url)].kind
        groups.setdefault(url if kind == "server" else kind, []).append(url)
    return list(map(";".join, groups.values()))


def _with_options(url: str, use_ssl: object, transport: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    options: dict[str, Any] = {}
    scheme = _SCHEMES[_scheme_name(url)]
    if scheme.kind == "sentinel":
        options = {key: transport[key] for key in ("master_name", "min_other_sentinels") if key in transport}
        # Celery does not give the primary's options to the sentinels.
        options["sentinel_kwargs"] = dict(transport.get("sentinel_kwargs") or {})
    if not use_ssl or scheme.redis_py == "unix":
        return url, options
    return with_tls(url), options | (use_ssl if isinstance(use_ssl, dict) else {})


def safe_url(url: object) -> str:
    """*url* for people: without user name, password and options."""
    try:
        return ";".join(map(_safe, _each(str(url)))) if url else "(nothing)"
    except ValueError:
        return "(an unreadable URL)"


def _safe(url: str) -> str:
    parts = urlsplit(url)
    # urlsplit takes a password up to an unquoted "/", "?" or "#" for the host.
    if not parts.scheme or "@" in parts.path + parts.query + parts.fragment:
        raise ValueError
    hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
    return f"{parts.scheme}://{','.join(_host_port(host.hostname or '', host.port) for host in hosts)}{parts.path}"
