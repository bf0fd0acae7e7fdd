"""Redis URLs: which one an app uses, in redis-py's spelling, and how to show one without its secrets.

Pure: nothing is connected to. Celery, kombu and redis-py spell a few things differently; this is where they meet.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from celery_argsize.errors import ConfigError

__all__ = ["from_app", "parse_redis_url", "safe_url"]

#: Schemes of Celery and kombu, to those of redis-py.
_SCHEMES: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "socket": "unix",
    "redis+socket": "unix",
}
#: kombu's and Celery's names for certificate checks, to redis-py's.
_CERT_REQS: Final = {"CERT_REQUIRED": "required", "CERT_OPTIONAL": "optional", "CERT_NONE": "none"}


def parse_redis_url(url: str) -> str:
    """*url* as redis-py takes it.

    Raises:
        ConfigError: it is not the URL of one Redis server.
    """
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None:
        message = f"the scheme {parts.scheme!r} is not one of {', '.join(sorted(_SCHEMES))}"
        raise ConfigError(message)
    if scheme != "unix":
        try:
            port_works = parts.port is None or parts.port > 0
        except ValueError:
            port_works = False
        if not port_works:
            message = "the port is not a number from 1 to 65535"
            raise ConfigError(message)
        if (database := parts.path.strip("/")) and not database.isdecimal():
            message = f"the database {database!r} is not a number"
            raise ConfigError(message)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "virtual_host" in query:  # kombu's name for the database in redis+socket:// URLs
        query["db"] = query.pop("virtual_host").strip("/")
    if "ssl_cert_reqs" in query:
        query["ssl_cert_reqs"] = _CERT_REQS.get(query["ssl_cert_reqs"], query["ssl_cert_reqs"])
    return f"{scheme}://{parts.netloc}{parts.path}" + (f"?{urlencode(query)}" if query else "")


def from_app(app: Any) -> tuple[str | None, dict[str, Any]]:
    """The Redis that *app* uses and its TLS options: that of its results, else that of its messages, else ``None``."""
    conf = app.conf
    candidates = (
        (conf.result_backend, conf.get("redis_backend_use_ssl")),
        (conf.broker_url, conf.get("broker_use_ssl")),
    )
    for urls, use_ssl in candidates:
        for url in _each(urls):
            if urlsplit(url).scheme in _SCHEMES:
                return _with_tls(url, use_ssl)
    return None, {}


def _each(urls: object) -> list[str]:
    """Celery takes one URL, several with ";" between, or a list of them; a result backend may also be a class."""
    if isinstance(urls, str):
        return [url.strip() for url in urls.split(";")]
    return [url for url in urls if isinstance(url, str)] if isinstance(urls, (list, tuple)) else []


def _with_tls(url: str, use_ssl: object) -> tuple[str, dict[str, Any]]:
    if not use_ssl or not url.startswith(("redis:", "rediss:")):
        return url, {}
    options = dict(use_ssl) if isinstance(use_ssl, dict) else {}
    return "rediss" + url[url.index(":") :], options


def safe_url(url: object) -> str:
    """*url* without user name, password and options, for people to read."""
    try:
        parts = urlsplit(str(url))
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "(an unreadable URL)"
    if not url:
        return "(nothing)"
    if not parts.scheme or "@" in parts.path:  # an unquoted "/" in a password moves the rest of it into the path
        return "(an unreadable URL)"
    return f"{parts.scheme}://{host}{port}{parts.path}"
