"""Which Redis an app uses for what, with which options, and whether Celery would check its certificate.

Nothing is connected to. What the servers say is the business of ``redis_facts``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from celery_argsize.api.location import locate
from celery_argsize.doctor.redis_facts import Place, Role, Tls
from celery_argsize.errors import ConfigError
from celery_argsize.redis_url import cert_reqs, each_of_messages, of_results, parse_redis_url, safe_url
from celery_argsize.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_argsize.doctor.facts import Scope


def places_of(where: Scope) -> list[Place]:
    """Each role's Redis; a role without one is left out.

    Raises:
        ConfigError: neither an app nor a Redis was given.
    """
    app = where.app
    if app is None:
        return _of_figures(where)
    looks: tuple[tuple[Role, Callable[[], list[Place]]], ...] = (
        ("messages", lambda: _of_messages(app)),
        ("results", lambda: _of_results(app)),
        ("figures", lambda: _of_figures(where)),
    )
    found = []
    for role, look in looks:
        try:
            found += look()
        except ConfigError as exc:
            found.append(Place(role, Settings(), Tls(on=False), str(exc)))
    return found


def _of_figures(where: Scope) -> list[Place]:
    settings = locate(where.app, **where.given).settings
    if settings.redis_url is None:
        return []
    on = parse_redis_url(settings.redis_url).tls
    said = settings.redis_ssl_cert_reqs or settings.redis_options.get("ssl_cert_reqs", "required")
    return [Place("figures", settings, Tls(on, _checks(_of_url(settings.redis_url, said))))]


def _of_messages(app: Any) -> list[Place]:
    """Where messages are read from and, if that is another, where they are written to."""
    found = {}
    for setting in ("broker_write_url", "broker_read_url"):
        urls: Any = app.conf[setting]
        several = not isinstance(urls, str) or ";" in urls
        for url, options in each_of_messages(app, setting):
            place = _place("messages", url, options, _tls_of_messages(app, url))
            found[safe_url(url)] = replace(place, spare=several)
    return [*found.values()]


def _tls_of_messages(app: Any, url: str) -> Tls:
    """What kombu makes of it: with ``rediss://`` alone it checks nothing."""
    use_ssl = app.conf.get("broker_use_ssl")
    scheme = _scheme(url)
    if scheme in {"unix", ""}:
        return Tls(on=False)
    if use_ssl and not isinstance(use_ssl, dict):
        return Tls(on=False, trouble="broker_use_ssl must be a dict here: with any other value kombu uses no TLS")
    of_url = [name for name in _query(url) if name.startswith("ssl_")]
    default = "required" if use_ssl or of_url else "none"
    on = bool(use_ssl or of_url) or scheme == "rediss"
    return Tls(on, _checks(_of_url(url, (use_ssl or {}).get("ssl_cert_reqs", default)))) if on else Tls(on=False)


def _of_results(app: Any) -> list[Place]:
    url, options = of_results(app)
    if not url:
        return []
    on = _scheme(url) == "rediss"
    said = _of_url(url, options.get("ssl_cert_reqs"))
    trouble = ""
    if on and said is None:
        trouble = "Celery refuses a result backend with TLS that does not say ssl_cert_reqs"
    use_ssl = app.conf.get("redis_backend_use_ssl")
    if use_ssl and not isinstance(use_ssl, dict):
        trouble = "redis_backend_use_ssl must be a dict: Celery fails with any other value"
    return [_place("results", url, options, Tls(on, _checks("required" if said is None else said), trouble))]


def _place(role: Role, url: str, options: dict[str, Any], tls: Tls) -> Place:
    """As Celery would connect: one that checks no certificates is looked at without checks as well."""
    try:
        parse_redis_url(url)
    except ConfigError as exc:
        return Place(role, Settings(redis_url=url), tls, f"its URL cannot work: {exc}")
    checks = {"ssl_cert_reqs": tls.checks} if tls.on else {}
    return Place(role, Settings(redis_url=url, redis_options={**options, **checks}), tls)


def _scheme(url: str) -> str:
    """The scheme of *url*, as redis-py has it; empty where it cannot be read."""
    try:
        return parse_redis_url(url).urls[0].partition(":")[0]
    except ConfigError:
        return ""


def _query(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query) if _scheme(url) else {}


def _of_url(url: str, default: object) -> object:
    return _query(url).get("ssl_cert_reqs", [default])[0]


def _checks(value: object) -> str:
    try:
        return cert_reqs(value)
    except ValueError:
        return "none"  # kombu takes what it does not know for that
