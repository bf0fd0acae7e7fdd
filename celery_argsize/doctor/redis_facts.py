"""What is known of each Redis server; nothing is judged here.

Which servers there are is the business of ``redis_places``; how one is looked at, of ``redis_look``.
"""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from celery_argsize.doctor.checks import NotKnown
from celery_argsize.doctor.redis_contents import Contents
from celery_argsize.doctor.redis_holders import open_files
from celery_argsize.doctor.redis_look import CLIENT_NAME, Look
from celery_argsize.doctor.redis_places import ROLES, places_of
from celery_argsize.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.doctor.facts import Where
    from celery_argsize.doctor.redis_holders import Holders
    from celery_argsize.doctor.redis_places import Place, Role

__all__ = ["CLIENT_NAME", "ServerFacts", "look_at_redis"]

UNREACHABLE: Final = "it could not be reached"
LATE: Final = "no answer in time"


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
            NotKnown: one was not.
        """
        if self.error:
            raise NotKnown(UNREACHABLE)
        for look in looks:
            if look in self.missed:
                raise NotKnown(self.missed[look][0])

    def database(self, role: Role) -> int:
        """The number of the database that *role* uses."""
        return next(place.database for place in self.places if place.role == role)


def look_at_redis(where: Where) -> tuple[ServerFacts, ...]:
    """Look at each Redis that *where* means, all at the same time.

    Raises:
        NotKnown: nobody said which Redis, or the app cannot be loaded.
    """
    where.need_whole()
    before = open_files()  # first of all, as other looks open theirs at the same time
    until = time.monotonic() + where.seconds * 0.9
    try:
        places = places_of(where)
    except ConfigError as exc:
        raise NotKnown(str(exc)) from None
    groups: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        groups[place.error or place.address].append(place)
    looks = [Look(where, group, until, before) for group in groups.values()]
    threads = [threading.Thread(target=look.run, daemon=True) for look in looks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return tuple(_so_far(look, where) for look in looks)


def _so_far(look: Look, where: Where) -> ServerFacts:
    """What *look* has found, though it may go on."""
    late = {place.role: LATE for place in look.places if place.role not in look.reached}
    return ServerFacts(
        url=look.places[0].url,
        places=look.places,
        errors={**late, **look.errors},
        missed=dict(look.missed),
        told=where.max_clients,
        **dict(look.found),
    )
