"""What was looked at of the Redis servers, and of an AMQP broker's queues. Data only.

doctor/look fills it in, and doctor/judge reads it.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from celery_argsize.connections.budget import server_of
from celery_argsize.doctor.facts import Unavailable
from celery_argsize.redis_url import parse_redis_url, safe_url
from celery_argsize.words import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.settings import Settings

#: What a Redis may be used for.
Role = Literal["messages", "results", "figures"]

NO_ANSWER: Final = "no answer in time"
FULL: Final = "it has no room for one more client (max number of clients reached)"
REPLICA: Final = "it is a read-only replica: no task can be sent, and nothing be written"
NO_RIGHT: Final = "its user lacks a right for that"

#: All rights that looking takes.
RIGHTS: Final = "+ping +info +config|get +client|list +select +scan +llen +hlen +zcount +zrange +pttl ~*"

#: Celery's prefix of a result's key; ``global_keyprefix`` may stand before it.
RESULTS: Final = "celery-task-meta-"


class Counted(NamedTuple):
    """What an AMQP broker says of a queue."""

    messages: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Place:
    """A Redis in one role."""

    role: Role
    settings: Settings = field(repr=False)
    """For ``stores.connection.connect``."""
    certificates: str = ""
    """How they are checked: ``required``, ``optional``, ``none``; empty: there is no TLS."""
    error: str = ""
    """Why it is not known which Redis is meant."""

    @property
    def url(self) -> str:
        """Without its secrets."""
        return safe_url(self.settings.redis_url)

    @property
    def address(self) -> str:
        """Its host and port, socket file, or sentinels: one for all databases of a server."""
        return server_of(self.settings.redis_url or "")

    @property
    def database(self) -> int:
        """The number of its database."""
        url = urlsplit(parse_redis_url(self.settings.redis_url or "").urls[0])
        path = "" if url.scheme == "unix" else url.path.strip("/")
        return int(dict(parse_qsl(url.query)).get("db", path) or 0)


def redis_cli(url: str) -> str:
    """How to call redis-cli for *url*; empty if it is not one of a Redis."""
    scheme, _, place = safe_url(url).partition("://")
    if not re.search("redis|sentinel|socket|unix", scheme):
        return ""
    if "sentinel" in scheme or "," in place:
        return "redis-cli -h HOST"
    if place.startswith("/"):
        return f"redis-cli -s {shlex.quote(place)}"
    user = urlsplit(url).username
    named = f" --user {shlex.quote(printable(unquote(user)))}" if user else ""
    return f"redis-cli -u {shlex.quote(f'{scheme}://{place}')}{named}"


class Queues(NamedTuple):
    """Messages in a Redis. Times are seconds."""

    waiting: Mapping[str, int] = {}
    """Queue → messages that nobody took, of all priorities."""
    held: int = 0
    """Messages that workers took and have not acknowledged."""
    oldest: float = 0.0
    """How long one of them is held at most."""
    overdue: int = 0
    """How many are held for longer than the visibility timeout."""
    visibility: float = 0.0
    """That timeout."""


class Results(NamedTuple):
    """A sample of the results' keys."""

    sampled: int = 0
    lasting: int = 0
    """Of these, those that never expire."""
    complete: bool = True
    """Whether the sample is all there are."""


class Holders(NamedTuple):
    """Connections that look alike."""

    clients: int
    name: str
    address: str
    """The host that they come from."""
    does: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One Redis server."""

    places: tuple[Place, ...]
    """Each role it has."""
    error: str = ""
    """Why it could not be reached; empty if it was."""
    missed: Mapping[str, str] = field(default_factory=dict)
    """Field that could not be looked at → why."""
    max_clients: int | None = None
    """How many clients it takes, if a person said so: hosted ones do not always tell."""
    pings: tuple[float, ...] = ()
    """Seconds that each PING took."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """``INFO``, flat."""
    config: Mapping[str, str] = field(default_factory=dict)
    """``save``, ``maxclients``, ``stop-writes-on-bgsave-error``, as ``CONFIG GET`` has them."""
    holders: tuple[Holders, ...] = ()
    """Who is connected, without the doctor itself; the most first."""
    messages: Queues = field(default_factory=Queues)
    results: Results = field(default_factory=Results)

    @property
    def queues(self) -> Mapping[str, int]:
        """Queue → messages waiting."""
        return self.messages.waiting

    @property
    def roles(self) -> frozenset[Role]:
        """What it is used for."""
        return frozenset(place.role for place in self.places)

    @property
    def maxclients(self) -> int | None:
        """How many clients it takes, if known."""
        most = self.max_clients or self.info.get("maxclients") or self.config.get("maxclients")
        return int(most) if most else None

    @property
    def subject(self) -> str:
        """What to call it: its URL, and what it is used for."""
        url = re.sub(r"/[0-9]*$", "", self.places[0].url)
        return f"{url} for {', '.join(dict.fromkeys(place.role for place in self.places))}"

    @property
    def cli(self) -> str:
        """How to call redis-cli for it."""
        return redis_cli(self.places[0].settings.redis_url or "")

    def need(self, look: str) -> None:
        """Raise ``Unavailable`` if *look* was not done."""
        if self.error:
            raise Unavailable("it could not be reached")  # noqa: EM101, TRY003
        if look in self.missed:
            raise Unavailable(self.missed[look])
