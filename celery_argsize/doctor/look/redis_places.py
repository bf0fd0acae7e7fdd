"""Which Redis an app uses for what, and whether Celery checks its certificate. Nothing is connected to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from celery_argsize.api.location import locate
from celery_argsize.doctor.redis_facts import Place, Role
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
    if where.app is None:
        return _of_figures(where)
    looks: dict[Role, Callable[[Scope], list[Place]]] = {
        "messages": _of_messages,
        "results": _of_results,
        "figures": _of_figures,
    }
    places = []
    for role, look in looks.items():
        try:
            places += look(where)
        except ConfigError as exc:
            places.append(Place(role, Settings(), error=str(exc)))
    return places


def _of_figures(where: Scope) -> list[Place]:
    settings = locate(where.app, **where.given).settings
    if settings.redis_url is None:
        return []
    options = {**settings.redis_options}
    if settings.redis_ssl_cert_reqs:
        options["ssl_cert_reqs"] = settings.redis_ssl_cert_reqs
    return [Place("figures", settings, _certificates(settings.redis_url, options, "required"))]


def _of_messages(where: Scope) -> list[Place]:
    """Each Redis that messages are read from or written to."""
    app: Any = where.app
    use_ssl = app.conf.get("broker_use_ssl")
    places = {}
    for setting in ("broker_write_url", "broker_read_url"):
        for url, options in each_of_messages(app, setting):
            # kombu checks nothing for rediss:// alone
            default = "required" if use_ssl or "ssl_" in url.partition("?")[2] else "none"
            places[safe_url(url)] = _place("messages", url, options, default)
    return [*places.values()]


def _of_results(where: Scope) -> list[Place]:
    url, options = of_results(where.app)
    return [_place("results", url, options, "required")] if url else []


def _place(role: Role, url: str, options: dict[str, Any], default: str) -> Place:
    """A place that is connected to as Celery would: with or without checks of the certificate."""
    try:
        certificates = _certificates(url, options, default)
    except ConfigError as exc:
        return Place(role, Settings(redis_url=url), error=f"its URL cannot work: {exc}")
    tls = {"ssl_cert_reqs": certificates} if certificates else {}
    return Place(role, Settings(redis_url=url, redis_options={**options, **tls}), certificates)


def _certificates(url: str, options: dict[str, Any], default: str) -> str:
    """How certificates are checked: ``required``, ``optional``, ``none``; empty without TLS."""
    place = parse_redis_url(url)
    given = {**options, **dict(parse_qsl(urlsplit(place.urls[0]).query))}
    try:
        return cert_reqs(given.get("ssl_cert_reqs", default)) if place.tls else ""
    except ValueError:
        return "none"  # as kombu takes what it does not know
