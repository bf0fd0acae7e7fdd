"""What the doctor saw of each Redis server, as plain data, and how to call redis-cli for it.

Facts of all else are in ``facts``.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from celery_argsize.connections.budget import server_of
from celery_argsize.doctor.facts import Unavailable
from celery_argsize.redis_url import is_redis_url, parse_redis_url, safe_url
from celery_argsize.words import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.settings import Settings

#: What a Redis may be used for.
Role = Literal["messages", "results", "figures"]

NO_ANSWER: Final = "no answer in time"
FULL: Final = "it has no room for one more client (max number of clients reached)"
REPLICA: Final = "it is a read-only replica: no task can be sent"
NO_RIGHT: Final = "its user lacks a right for that"

#: The rights of a Redis user that the doctor needs.
RIGHTS: Final = "+ping +info +config|get +client|list +select +scan +llen +hlen +zcount +zrange +pttl ~*"

#: How keys of results begin, behind any ``global_keyprefix``.
RESULTS: Final = "celery-task-meta-"


class QueueCount(NamedTuple):
    """A queue of an AMQP broker."""

    messages: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Place:
    """A Redis in one role."""

    role: Role
    settings: Settings = field(repr=False)
    certificates: str = ""
    """How they are checked: ``required``, ``optional``, ``none``; empty without TLS."""
    error: str = ""
    """Why it is not known which Redis is meant."""

    @property
    def url(self) -> str:
        """Without its secrets."""
        return safe_url(self.settings.redis_url)

    @property
    def address(self) -> str:
        """Its host and port, socket file, or sentinels: equal for all databases."""
        return server_of(self.settings.redis_url or "")

    @property
    def database(self) -> int:
        """The number of its database."""
        url = urlsplit(parse_redis_url(self.settings.redis_url or "").urls[0])
        path = "" if url.scheme == "unix" else url.path.strip("/")
        return int(dict(parse_qsl(url.query)).get("db", path) or 0)


def redis_cli(url: str) -> str:
    """How to call redis-cli for *url*; empty if that is no Redis."""
    if not is_redis_url(url):
        return ""
    scheme, _, place = safe_url(url).partition("://")
    if "sentinel" in scheme or "," in place:
        return "redis-cli -h HOST"
    if place.startswith("/"):
        return f"redis-cli -s {shlex.quote(place)}"
    user = urlsplit(url).username
    option = f" --user {shlex.quote(printable(unquote(user)))}" if user else ""
    return f"redis-cli -u {shlex.quote(f'{scheme}://{place}')}{option}"


class Queues(NamedTuple):
    """Messages in a Redis. Times are seconds."""

    waiting: Mapping[str, int] = {}
    """Queue → messages that wait, of all priorities."""
    unacked: int = 0
    """Messages that workers took and have not acknowledged."""
    oldest: float = 0.0
    """How long the oldest of these is held."""
    overdue: int = 0
    """How many are held for longer than ``visibility``."""
    visibility: float = 0.0
    """The visibility timeout."""


class Results(NamedTuple):
    """A sample of the results."""

    sampled: int = 0
    without_expiry: int = 0
    """How many of the sample never expire."""
    complete: bool = True
    """Whether the sample has all results."""


class Holders(NamedTuple):
    """Connections that look alike."""

    clients: int
    name: str
    address: str
    """The host that they come from."""
    activity: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One Redis server."""

    places: tuple[Place, ...]
    error: str = ""
    """Why it could not be reached, if so."""
    missed: Mapping[str, str] = field(default_factory=dict)
    """Field that could not be looked at → why."""
    max_clients_option: int | None = None
    """What ``--max-clients`` says, if given."""
    pings: tuple[float, ...] = ()
    """Seconds that each PING took."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """``INFO``, flat."""
    config: Mapping[str, str] = field(default_factory=dict)
    """What ``CONFIG GET`` says, of a few settings."""
    holders: tuple[Holders, ...] = ()
    """Who is connected, but for the doctor; the most first."""
    messages: Queues = field(default_factory=Queues)
    results: Results = field(default_factory=Results)

    @property
    def roles(self) -> frozenset[Role]:
        """What it is used for."""
        return frozenset(place.role for place in self.places)

    @property
    def maxclients(self) -> int | None:
        """How many clients it takes, if known."""
        most = self.max_clients_option or self.info.get("maxclients")
        return int(most) if most else None

    @property
    def subject(self) -> str:
        """Its URL, and what it is used for."""
        url = re.sub(r"/[0-9]*$", "", self.places[0].url)
        return f"{url} for {', '.join(dict.fromkeys(place.role for place in self.places))}"

    @property
    def cli(self) -> str:
        """How to call redis-cli for it."""
        return redis_cli(self.places[0].settings.redis_url or "")

    def need(self, look: str) -> None:
        """Raise ``Unavailable`` if the field *look* was missed."""
        if self.error:
            raise Unavailable("it could not be reached")  # noqa: EM101, TRY003
        if look in self.missed:
            raise Unavailable(self.missed[look])
