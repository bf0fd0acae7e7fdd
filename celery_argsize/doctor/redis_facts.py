"""What was looked at of the Redis servers, and of an AMQP broker's queues: for the checks of doctor/judge.

Data only. doctor/look/redis.py and doctor/look/broker.py fill it in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import parse_qs, urlsplit

from celery_argsize.doctor.facts import Unavailable
from celery_argsize.redis_url import parse_redis_url, safe_url, server_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.settings import Settings

NO_ANSWER: Final = "no answer in time"


class Counted(NamedTuple):
    """What an AMQP broker says of a queue."""

    messages: int
    consumers: int


Role = Literal["messages", "results", "figures"]

#: What a Redis may be used for, what hurts most first.
ROLES: Final[tuple[Role, ...]] = ("messages", "results", "figures")


@dataclass(frozen=True, slots=True)
class Tls:
    """How one role reaches its Redis."""

    on: bool
    checks: str = "required"
    """How certificates are checked, if it is *on*: ``required``, ``optional`` or ``none``."""
    trouble: str = ""
    """A sentence: why Celery cannot work with these settings at all."""


@dataclass(frozen=True, slots=True)
class Place:
    """A Redis in one role."""

    role: Role
    settings: Settings = field(repr=False)
    """For ``stores.connection.connect``."""
    tls: Tls
    error: str = ""
    """Why there is no telling which Redis is meant."""
    spare: bool = False
    """Whether it is one of several in a list of brokers, so that another one may do in its place."""

    @property
    def url(self) -> str:
        """Without its secrets."""
        return safe_url(self.settings.redis_url) if self.settings.redis_url else "a Redis that is not known"

    @property
    def database(self) -> int:
        """The number of its database."""
        parts = urlsplit(parse_redis_url(self.settings.redis_url or "").urls[0])
        number = parse_qs(parts.query).get("db", [""])[0] or ("" if parts.scheme == "unix" else parts.path.strip("/"))
        return int(number) if number.isdecimal() else 0

    @property
    def address(self) -> str:
        """The same for each place on the same server: its host and port, its socket file, or its sentinels."""
        place = parse_redis_url(self.settings.redis_url or "")
        parts = [urlsplit(url) for url in place.urls]
        names = ",".join(sorted(map(server_address, parts)))
        return f"sentinels {names}" if place.kind == "sentinel" else names


UNREACHABLE: Final = "it could not be reached"


class Waiting(NamedTuple):
    """Messages that nobody took yet."""

    queues: Mapping[str, int] = {}
    """Queue → messages waiting, those of all priorities."""
    weights: Mapping[str, int] = {}
    """Queue → bytes of memory, an estimate; of the longest ones."""
    complete: bool = True
    """Whether these are all queues that anyone declared there; those that the app names are always among them."""


class Unacked(NamedTuple):
    """Messages that workers hold, and have not acknowledged."""

    held: int
    oldest: float
    """Seconds since the one that is held longest was taken."""
    overdue: int
    """Those held for longer than the visibility timeout."""
    visibility: float
    """That timeout, in seconds."""


class Results(NamedTuple):
    """A sample of the results' keys."""

    sampled: int
    lasting: int
    """Of these, those that never expire."""
    complete: bool
    """Whether the sample is all there are."""


class Contents(NamedTuple):
    """What Celery keeps there."""

    waiting: Waiting = Waiting()
    unacked: Unacked | None = None
    results: Results | None = None


class Holders(NamedTuple):
    """Connections that look alike."""

    clients: int
    name: str
    """What they call themselves; mostly nothing."""
    address: str
    """The host they come from."""
    does: str
    pids: tuple[int, ...]
    """The processes, where these are on this machine and may be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """One Redis server."""

    url: str
    """Without its secrets."""
    places: tuple[Place, ...]
    """Each role it has, with its URL."""
    errors: Mapping[Role, str] = field(default_factory=dict)
    """Why it could not be reached with the settings of a role."""
    missed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """What could not be looked at (``info``, ``config``, ``clients``, …) → why, and what would allow it."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """``INFO``, flat."""
    config: Mapping[str, str] = field(default_factory=dict)
    """``save``, ``maxclients``, ``stop-writes-on-bgsave-error``, as ``CONFIG GET`` has them."""
    pings: tuple[float, ...] = ()
    """Seconds that each PING took."""
    holders: tuple[Holders, ...] = ()
    """Who is connected, but for ourselves; the most first."""
    public: bool | None = None
    """Whether its address is one of the public Internet; ``None``: not known."""
    contents: Contents = field(default_factory=Contents)
    told: int | None = None
    """How many clients it takes, as a person said: a hosted one may take fewer than its configuration has."""

    @property
    def roles(self) -> frozenset[Role]:
        """What it is used for."""
        return frozenset(place.role for place in self.places)

    @property
    def address(self) -> str:
        """Its host and port, its socket file, or its sentinels: as ``ConnectionBudget.servers`` has them."""
        return self.places[0].address

    @property
    def error(self) -> str:
        """Why it could not be reached at all; empty if it was, in any role."""
        return "" if self.roles - set(self.errors) else next(iter(self.errors.values()), "")

    @property
    def full(self) -> bool:
        """Whether it has no place for another client."""
        return "no place for another client" in self.error

    @property
    def maxclients(self) -> int | None:
        """How many clients it takes."""
        said = self.told or self.info.get("maxclients") or self.config.get("maxclients")
        return int(said) if said else None

    @property
    def queues(self) -> Mapping[str, int]:
        """Queue → messages that wait in it, those of all priorities; where it carries messages."""
        return self.contents.waiting.queues

    @property
    def subject(self) -> str:
        """What to call it."""
        roles = sorted(self.roles, key=ROLES.index)
        return f"{re.sub(r'/[0-9]*$', '', self.url)} for {', '.join(roles)}"

    def need(self, *looks: str) -> None:
        """Do nothing if each of *looks* was done.

        Raises:
            Unavailable: one was not.
        """
        if self.error:
            raise Unavailable(UNREACHABLE)
        for look in looks:
            if look in self.missed:
                raise Unavailable(self.missed[look][0])

    def database(self, role: Role) -> int:
        """The number of the database that *role* uses."""
        return next(place.database for place in self.places if place.role == role)


#: Celery's prefix of a result's key; ``global_keyprefix`` may stand before it.
RESULTS: Final = "celery-task-meta-"
