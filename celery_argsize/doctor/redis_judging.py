"""What the judges of Redis share: one verdict for each server, and how sizes, times and commands are written."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote, urlsplit

from celery_argsize.doctor.checks import NotKnown, Outcome, unknown
from celery_argsize.redis_url import parse_redis_url
from celery_argsize.table import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery_argsize.doctor.facts import Facts
    from celery_argsize.doctor.redis_facts import ServerFacts
    from celery_argsize.doctor.redis_places import Place, Role

__all__ = ["NEARLY_FULL", "NO_ROOM", "ago", "cli", "each_server", "number", "of_server", "size", "uptime", "version"]

#: Parts of a limit, of clients or of memory: where hosts of Redis send a mail, and where the next burst meets it.
NEARLY_FULL: Final = 0.80
NO_ROOM: Final = 0.95

_PASSWORD: Final = "# redis-cli takes the password from a variable: export REDISCLI_AUTH=…"  # noqa: S105 - is none

#: Files of TLS, as redis-py's options and as redis-cli's.
_FILES: Final = (("ssl_ca_certs", "--cacert"), ("ssl_certfile", "--cert"), ("ssl_keyfile", "--key"))


def each_server(
    facts: Facts,
    judge: Callable[[ServerFacts], Outcome | Sequence[Outcome] | None],
    *needs: str,
    role: Role | None = None,
) -> list[Outcome]:
    """What *judge* says of each server that has *role*; unknown where one of the looks *needs* was not done."""
    found: list[Outcome] = []
    for server in facts.redis.get():
        if role is not None and role not in server.roles:
            continue
        try:
            server.need(*needs)
            said = judge(server)
        except NotKnown as exc:
            said = unknown(str(exc), fix=dict(server.missed.values()).get(str(exc), ""))
        said = [said] if isinstance(said, Outcome) else said or []
        found += [of_server(server, one) for one in said]
    return found


def of_server(server: ServerFacts, said: Outcome) -> Outcome:
    """*said* with its subject, and with where redis-cli has the password from, once, if it needs one."""
    asks = "redis-cli" in said.fix and _PASSWORD not in said.fix
    secret = asks and any(urlsplit(_url(one)).password for one in server.places if not one.error)
    fix = f"{_PASSWORD}\n{said.fix}" if secret else said.fix
    return said._replace(subject=said.subject or server.subject, fix=fix)


def version(server: ServerFacts) -> tuple[int, ...]:
    """Its version's first two numbers; fewer, where it does not say them."""
    said = str(server.info.get("redis_version", ""))
    return tuple(int(part) for part in said.split(".")[:2] if part.isdecimal())


def number(server: ServerFacts, name: str) -> int:
    """The number that INFO has under *name*.

    Raises:
        NotKnown: this server does not say it.
    """
    said = server.info.get(name)
    if not isinstance(said, (int, float)):
        message = f"its INFO has no {name}"
        raise NotKnown(message)
    return int(said)


def size(amount: float) -> str:
    """*amount* bytes, for people."""
    for unit, name in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if amount >= unit:
            return f"{amount / unit:,.1f} {name}"
    return f"{amount:,.0f} bytes"


def ago(seconds: float) -> str:
    """How long *seconds* are, for people."""
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def uptime(server: ServerFacts) -> str:
    """Since when its counters count."""
    return f"since it started {ago(number(server, 'uptime_in_seconds'))} ago"


def cli(server: ServerFacts, role: Role | None = None) -> str:
    """How to call redis-cli for it; the password comes from REDISCLI_AUTH."""
    place = next((one for one in server.places if role is None or one.role == role), server.places[0])
    if place.error:
        return "redis-cli -h HOST"
    parts = parse_redis_url(place.settings.redis_url or "redis://")
    where = urlsplit(parts.urls[0])
    user = f" --user {shlex.quote(printable(unquote(where.username)))}" if where.username else ""
    more = user + (f" -n {place.database}" if role and place.database else "")
    if where.scheme == "unix":
        return f"redis-cli -s {shlex.quote(where.path)}{more}"
    tls = _tls(place) if parts.tls else ""
    if parts.kind == "sentinel":
        return f"redis-cli -h PRIMARY{tls}{more}"
    return f"redis-cli -h {where.hostname} -p {where.port}{tls}{more}"


def _url(place: Place) -> str:
    return parse_redis_url(place.settings.redis_url or "redis://").urls[0]


def _tls(place: Place) -> str:
    """The options with which redis-cli checks as the app does."""
    said = {name: of[0] for name, of in parse_qs(urlsplit(_url(place)).query).items()}
    settings = {name: getattr(place.settings, f"redis_{name}") for name, _ in _FILES}
    given = {**place.settings.redis_options, **{name: value for name, value in settings.items() if value}, **said}
    files = [f" {option} {shlex.quote(printable(str(given[name])))}" for name, option in _FILES if given.get(name)]
    return "".join([" --tls", *([" --insecure"] if place.tls.checks == "none" else []), *files])
