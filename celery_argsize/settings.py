"""Settings: where each may come from, what is allowed, and its default. The same table as docs/configuration.md.

An install() keyword wins over ``app.conf.argsize_*``, that over the environment (``CELERY_ARGSIZE_*``), that over the
default. No I/O, and the app's own configuration is only read when ``resolve`` is called, never at import.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.errors import ConfigError
from celery_argsize.redis_url import cert_reqs, from_app, parse_redis_url, safe_url, with_tls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

#: Upper bounds of the histogram buckets, in bytes (and, for the percentiles, in characters): 128 B doubling to 2 MiB,
#: then 8, 32 and 128 MiB.
DEFAULT_BUCKETS: Final = (*(128 << step for step in range(15)), 8 << 20, 32 << 20, 128 << 20)

#: Where a script looks when nobody says where Redis is: the same place as Celery's documentation.
DEFAULT_REDIS_URL: Final = "redis://localhost:6379/0"

NO_MASTER_NAME: Final = "it does not say which primary the sentinels are to name: end it in ?master_name=…"

ENV_PREFIX: Final = "CELERY_ARGSIZE_"
CONF_PREFIX: Final = "argsize_"

#: Names that click gives the options of our commands: celery reads its whole command line from CELERY_* as well.
_COMMAND_ENV: Final = (
    "CHECK_",
    "DIFF_",
    "DOCTOR_",
    "EXPORTER_",
    "RECOMMEND_",
    "REPORT_",
    "RESET_",
    "VERIFY_",
    "WATCH_",
)


def _bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    return words[str(value).strip().lower()]


def _number(low: float, high: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if isinstance(value, bool) or not low <= (number := float(value)) <= high:  # type: ignore[arg-type]
            raise ValueError
        return number

    return parse


def _whole(low: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        if (number := int(value)) < low:  # type: ignore[call-overload]
            raise ValueError
        return int(number)

    return parse


def _port(value: object) -> int:
    port = _whole(1)(value)
    if port > 65535:  # noqa: PLR2004 - the last one there is
        raise ValueError
    return port


def _word(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or set(value) & set("{}"):
        raise ValueError
    return value.strip()


def _buckets(value: object) -> tuple[int, ...]:
    items: Iterable[Any] = value.split(",") if isinstance(value, str) else value  # type: ignore[assignment]
    bounds = tuple(map(_whole(1), items))
    if not bounds or list(bounds) != sorted(set(bounds)) or len(bounds) > 60:  # noqa: PLR2004 - keys and series stay few
        raise ValueError
    return bounds


def _url(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - told as a ConfigError by _parse
    place = parse_redis_url(value)
    if place.kind == "sentinel" and not place.sentinel.get("master_name"):
        raise ConfigError(NO_MASTER_NAME)
    return value


def _path(value: object) -> str:
    path = os.fspath(value)  # type: ignore[call-overload]
    if not isinstance(path, str) or not path.strip():
        raise ValueError
    return path


def _setting(default: object, parse: Callable[[Any], object], allowed: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parse": parse, "allowed": allowed})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting, checked. docs/configuration.md says what each does."""

    enabled: bool = _setting(True, _bool, "true or false")
    redis_url: str | None = _setting(
        None, _url, "a redis://, rediss://, unix://, sentinel:// or redis+cluster:// URL", secret=True
    )
    redis_ssl_cert_reqs: str | None = _setting(None, cert_reqs, "required, optional or none")
    redis_ssl_ca_certs: str | None = _setting(None, _path, "the path of a file")
    redis_ssl_certfile: str | None = _setting(None, _path, "the path of a file")
    redis_ssl_keyfile: str | None = _setting(None, _path, "the path of a file")
    redis_ssl_check_hostname: bool | None = _setting(None, _bool, "true or false")
    require_redis_ssl: bool = _setting(False, _bool, "true or false")
    key_prefix: str = _setting("celery-argsize", _word, "a printable text without { or }")
    app_name: str = _setting("celery", _word, "a printable text without { or }")
    flush_interval: float = _setting(1.0, _number(0.05, 3600), "seconds from 0.05 to 3600")
    shutdown_timeout: float = _setting(5.0, _number(0, 600), "seconds from 0 to 600")
    wait_replicas: int = _setting(0, _whole(0), "a whole number of replicas, 0 or more")
    large_task_chars: int = _setting(1024, _whole(0), "a whole number of characters, 0 or more")
    log_large_tasks: bool = _setting(True, _bool, "true or false")
    max_task_names: int = _setting(1000, _whole(1), "a whole number, 1 or more")
    histogram_buckets: tuple[int, ...] = _setting(
        DEFAULT_BUCKETS, _buckets, "1 to 60 rising whole numbers of bytes, each 1 or more (text: with commas between)"
    )
    include_eager: bool = _setting(False, _bool, "true or false")
    prometheus_port: int | None = _setting(None, _port, "a port from 1 to 65535")
    prometheus_host: str = _setting("127.0.0.1", _word, "a host name or an address")
    prometheus_certfile: str | None = _setting(None, _path, "the path of a file")
    prometheus_keyfile: str | None = _setting(None, _path, "the path of a file")
    prometheus_client_cafile: str | None = _setting(None, _path, "the path of a file")
    redis_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Keywords for redis-py that came from the app (TLS, sentinels); not a setting of its own."""

    @property
    def base(self) -> str:
        """What every key of this app's figures begins with. The braces keep them in one slot of a Redis Cluster."""
        return f"{self.key_prefix}:{{{self.app_name}}}:"


_SPECS: Final = {spec.name: spec for spec in fields(Settings) if spec.metadata}


def check_names(names: Iterable[str], spell: Callable[[str], str] = str) -> None:
    """Raise ``ConfigError`` for the first of *names* that is no setting; *spell* writes it as the user did."""
    for name in names:
        if name not in _SPECS:
            known = ", ".join(sorted(map(spell, _SPECS)))
            message = f"{spell(name)} is not a setting of celery_argsize; the settings are: {known}"
            raise ConfigError(message)


def check(overrides: Mapping[str, Any]) -> None:
    """Raise ``ConfigError`` unless *overrides* are install() keywords with values that can work."""
    check_names(overrides)
    for name, value in overrides.items():
        _parse(name, value, name)


def resolve(
    overrides: Mapping[str, Any],
    app: Any = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings of one app, or of none.

    Raises:
        ConfigError: a setting that does not exist, or a value that is not allowed, wherever it came from.
    """
    environ = os.environ if environ is None else environ
    values = {**_from_environ(environ), **(_from_conf(app) if app is not None else {})}
    check_names(overrides)
    values.update({name: _parse(name, value, name) for name, value in overrides.items() if value is not None})
    values.setdefault("app_name", _app_name(app))
    if not values.get("redis_url"):
        values.update(_found_redis(app, environ))
    if environ.get("REQUIRE_REDIS_SSL"):
        required = _parse("require_redis_ssl", environ["REQUIRE_REDIS_SSL"], "REQUIRE_REDIS_SSL")
        values.setdefault("require_redis_ssl", required)
    if values.get("require_redis_ssl") and values["redis_url"]:
        values["redis_url"] = with_tls(values["redis_url"])
    return Settings(**values)


def _found_redis(app: Any, environ: Mapping[str, str]) -> dict[str, Any]:
    """The Redis when nobody gave us one: the app's, else that of ``REDIS_URL``, as hosts leave it there."""
    url, options = from_app(app) if app is not None else (None, {})
    if url is None and environ.get("REDIS_URL"):
        url = _parse("redis_url", environ["REDIS_URL"], "REDIS_URL")
    return {"redis_url": url, "redis_options": options}


def with_app(settings: Settings, name: str) -> Settings:
    """The same settings for the app called *name*."""
    return replace(settings, app_name=name)


def _app_name(app: Any) -> str:
    """The name under which an app's figures are kept: the one it was made with, ``Celery("music")``."""
    name = str(getattr(app, "main", None) or "celery")
    return "".join(char if char.isprintable() and char not in "{}" else "_" for char in name)


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    # Empty is unset: compose files pass on variables that nobody set.
    given = {name: value for name, value in environ.items() if name.startswith(ENV_PREFIX) and value}
    found = {name[len(ENV_PREFIX) :].lower(): value for name, value in given.items()}
    found = {name: value for name, value in found.items() if not name.upper().startswith(_COMMAND_ENV)}
    check_names(found, lambda name: ENV_PREFIX + name.upper())
    return {name: _parse(name, value, ENV_PREFIX + name.upper()) for name, value in found.items()}


def _from_conf(app: Any) -> dict[str, Any]:
    # Keys come as they were written: argsize_x, or CELERY_ARGSIZE_X out of a Django namespace.
    prefix = f"{app.namespace or ''}_".lower().lstrip("_")
    names = {str(key).lower().removeprefix(prefix) for key in app.conf}
    found = {name.removeprefix(CONF_PREFIX) for name in names if name.startswith(CONF_PREFIX)}
    check_names(sorted(found), lambda name: CONF_PREFIX + name)
    values = {name: app.conf.get(CONF_PREFIX + name) for name in found}
    return {name: _parse(name, value, CONF_PREFIX + name) for name, value in values.items() if value is not None}


def _parse(name: str, value: Any, spelled: str) -> Any:
    spec = _SPECS[name]
    if value is None:
        return spec.default
    try:
        return spec.metadata["parse"](value)
    except (ValueError, TypeError, KeyError, OverflowError) as exc:
        shown = safe_url(value) if name == "redis_url" else repr(value)
        reason = f" ({exc})" if isinstance(exc, ConfigError) else ""
        message = f"{spelled} = {shown} cannot work{reason}; allowed: {spec.metadata['allowed']}"
        raise ConfigError(message) from None
