"""Settings: their defaults, allowed values and sources. docs/configuration.md describes each.

The sources, from the strongest: keywords of ``install``, ``app.conf.argsize_*``,
``CELERY_ARGSIZE_*`` in the environment, defaults. An app's configuration is read
when ``resolve`` is called, never at import.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, TypeVar

from celery_argsize.errors import ConfigError
from celery_argsize.redis_url import cert_reqs, from_app, parse_redis_url, safe_url, with_tls

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: Upper bounds of buckets, in bytes or characters: 128, 256
#: … 2 Mi, then 8, 32, 128 Mi.
DEFAULT_BUCKETS: Final = (*(128 << step for step in range(15)), 8 << 20, 32 << 20, 128 << 20)

#: The Redis of scripts that get no URL.
DEFAULT_REDIS_URL: Final = "redis://localhost:6379/0"

NO_MASTER_NAME: Final = "the name of the sentinels' primary is missing: end it in ?master_name=…"

ENV_PREFIX: Final = "CELERY_ARGSIZE_"
CONF_PREFIX: Final = "argsize_"

#: Environment variables that are no settings, without ``ENV_PREFIX``: command options,
#: which click reads, and ``PURE`` (``measuring.walk``).
_OTHER_ENV: Final = re.compile("(CHECK|DIFF|DOCTOR|EXPORTER|RECOMMEND|REPORT|RESET|VERIFY|WATCH)_|PURE$")

_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("0", "false", "no", "off")

_T = TypeVar("_T")


def _require(fine: object, value: _T) -> _T:
    if not fine:
        raise ValueError
    return value


def _bool(value: object) -> bool:
    word = str(value).strip().lower()
    return _require(word in _TRUE + _FALSE, word in _TRUE)


def _number(low: float, high: float) -> Callable[[Any], float]:
    return lambda value: _require(not isinstance(value, bool) and low <= float(value) <= high, float(value))


def _whole(low: int, high: float = math.inf) -> Callable[[Any], int]:
    number = _number(low, high)
    return lambda value: _require(number(value).is_integer(), int(value))


def _word(value: Any) -> str:
    return _require(value.strip() and value.isprintable() and not set(value) & set("{}"), str(value.strip()))


def _buckets(value: Any) -> tuple[int, ...]:
    bounds = tuple(map(_whole(1), value.split(",") if isinstance(value, str) else value))
    rising = list(bounds) == sorted(set(bounds))
    return _require(rising and 0 < len(bounds) <= 60, bounds)  # noqa: PLR2004 - keys stay few


def _url(value: Any) -> str:
    place = parse_redis_url(_require(isinstance(value, str), value))
    if place.kind == "sentinel" and not place.sentinel.get("master_name"):
        raise ConfigError(NO_MASTER_NAME)
    return str(value)


def _path(value: Any) -> str:
    path = os.fspath(value)
    return str(_require(isinstance(path, str) and path.strip(), path))


def _setting(default: object, parse: Callable[[Any], object], allowed: str, *, secret: bool = False) -> Any:
    """A setting; *parse* raises an error for a value that is not *allowed*."""
    return field(default=default, repr=not secret, metadata={"parse": parse, "allowed": allowed})


def _switch(default: object) -> Any:
    return _setting(default, _bool, "true or false")


def _file() -> Any:
    return _setting(None, _path, "the path of a file")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, with checked values. docs/configuration.md describes each."""

    enabled: bool = _switch(True)
    redis_url: str | None = _setting(
        None, _url, "a redis://, rediss://, unix://, sentinel:// or redis+cluster:// URL", secret=True
    )
    redis_ssl_cert_reqs: str | None = _setting(None, cert_reqs, "required, optional or none")
    redis_ssl_ca_certs: str | None = _file()
    redis_ssl_certfile: str | None = _file()
    redis_ssl_keyfile: str | None = _file()
    redis_ssl_check_hostname: bool | None = _switch(None)
    require_redis_ssl: bool = _switch(False)
    key_prefix: str = _setting("celery-argsize", _word, "a printable text without { or }")
    app_name: str = _setting("celery", _word, "a printable text without { or }")
    flush_interval: float = _setting(1.0, _number(0.05, 3600), "seconds from 0.05 to 3600")
    shutdown_timeout: float = _setting(5.0, _number(0, 600), "seconds from 0 to 600")
    wait_replicas: int = _setting(0, _whole(0), "a whole number of replicas, 0 or more")
    large_task_chars: int = _setting(1024, _whole(0), "a whole number of characters, 0 or more")
    write_at_once_bytes: int = _setting(1 << 20, _whole(0), "a whole number of bytes, 0 or more")
    log_large_tasks: bool = _switch(True)
    max_task_names: int = _setting(1000, _whole(1), "a whole number, 1 or more")
    histogram_buckets: tuple[int, ...] = _setting(
        DEFAULT_BUCKETS, _buckets, "1 to 60 rising whole numbers of bytes, each 1 or more (text: with commas between)"
    )
    include_eager: bool = _switch(False)
    prometheus_port: int | None = _setting(None, _whole(1, 65535), "a port from 1 to 65535")
    prometheus_host: str = _setting("127.0.0.1", _word, "a host name or an address")
    prometheus_certfile: str | None = _file()
    prometheus_keyfile: str | None = _file()
    prometheus_client_cafile: str | None = _file()
    redis_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Keywords for redis-py from the app (TLS, sentinels). Not a setting."""

    @property
    def base(self) -> str:
        """How the app's keys in Redis begin. The braces keep them in one slot of a cluster."""
        return f"{self.key_prefix}:{{{self.app_name}}}:"


_SPECS: Final = {spec.name: spec for spec in fields(Settings) if spec.metadata}


def check(overrides: Mapping[str, Any], spell: Callable[[str], str] = str) -> dict[str, Any]:
    """*overrides*, parsed, without ``None``. *spell* writes a setting's name as the user did.

    Raises:
        ConfigError: a setting does not exist, or a value cannot work.
    """
    for name in sorted(overrides):
        if name not in _SPECS:
            names = ", ".join(sorted(map(spell, _SPECS)))
            message = f"{spell(name)} is not a setting of celery_argsize; the settings are: {names}"
            raise ConfigError(message)
    return {name: _parse(name, value, spell(name)) for name, value in overrides.items() if value is not None}


def resolve(overrides: Mapping[str, Any], app: Any = None, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of *app*, if any. *overrides*: keywords of ``install``.

    Raises:
        ConfigError: a setting does not exist, or a value cannot work.
    """
    environ = os.environ if environ is None else environ
    values = _from_environ(environ) | (_from_conf(app) if app is not None else {}) | check(overrides)
    values.setdefault("app_name", _app_name(app))
    if not values.get("redis_url"):
        values |= _redis_of(app, environ)
    if environ.get("REQUIRE_REDIS_SSL"):
        required = _parse("require_redis_ssl", environ["REQUIRE_REDIS_SSL"], "REQUIRE_REDIS_SSL")
        values.setdefault("require_redis_ssl", required)
    if values.get("require_redis_ssl") and values["redis_url"]:
        values["redis_url"] = with_tls(values["redis_url"])
    return Settings(**values)


def _redis_of(app: Any, environ: Mapping[str, str]) -> dict[str, Any]:
    """The Redis of *app*, or else ``REDIS_URL``, which many hosting providers set."""
    url, options = from_app(app) if app is not None else (None, {})
    if url is None and environ.get("REDIS_URL"):
        url = _parse("redis_url", environ["REDIS_URL"], "REDIS_URL")
    return {"redis_url": url, "redis_options": options}


def _app_name(app: Any) -> str:
    """The name in ``Celery("music")``, with ``_`` for characters that a key cannot have."""
    name = str(getattr(app, "main", None) or "celery")
    return "".join(char if char.isprintable() and char not in "{}" else "_" for char in name)


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    given = {name.removeprefix(ENV_PREFIX): value for name, value in environ.items() if name.startswith(ENV_PREFIX)}
    # Compose files pass on unset variables as empty ones.
    ours = {name.lower(): value for name, value in given.items() if value and not _OTHER_ENV.match(name)}
    return check(ours, lambda name: ENV_PREFIX + name.upper())


def _from_conf(app: Any) -> dict[str, Any]:
    # Keys are as written: argsize_x, or CELERY_ARGSIZE_X with a Django namespace.
    prefix = f"{app.namespace or ''}_".lower().lstrip("_")
    keys = {str(key).lower().removeprefix(prefix) for key in app.conf}
    ours = {key.removeprefix(CONF_PREFIX): app.conf.get(key) for key in keys if key.startswith(CONF_PREFIX)}
    return check(ours, lambda name: CONF_PREFIX + name)


def _parse(name: str, value: Any, spelled: str) -> Any:
    parse, allowed = _SPECS[name].metadata["parse"], _SPECS[name].metadata["allowed"]
    try:
        return parse(value)
    except (ValueError, TypeError, AttributeError, OverflowError) as exc:
        is_url = name == "redis_url"
        shown = safe_url(value) if is_url else repr(value)
        # another error's text may quote a password
        reason = f" ({exc})" if is_url and isinstance(exc, ConfigError) else ""
        message = f"{spelled} = {shown} cannot work{reason}; allowed: {allowed}"
        raise ConfigError(message) from None
