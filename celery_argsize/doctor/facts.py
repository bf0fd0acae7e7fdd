"""Everything that was looked at, for the judges: what was found, or why not.

Each group has a module of its own for what it finds and how (``redis_facts``, ``worker_facts``, ``monitor_facts``,
``host_facts``); here is what holds them together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from celery_argsize.doctor.checks import NotKnown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from celery_argsize.doctor.host_facts import HostFacts
    from celery_argsize.doctor.monitor_facts import MonitorFacts
    from celery_argsize.doctor.redis_facts import ServerFacts
    from celery_argsize.doctor.worker_facts import WorkerFacts

__all__ = ["NO_APP", "Facts", "Looked", "Where"]

NO_APP: Final = "no app was given: say which with -A"
NOT_LOOKED: Final = "not looked at"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Where:
    """Where to look, and for how long."""

    app: Celery | None
    given: Mapping[str, str | None] = field(default_factory=dict)
    """What was said on the command line: ``redis_url``, ``key_prefix``, ``app_name``."""
    seconds: float = 10.0
    """How long all that looking may take; each look must end by itself a little earlier, if it can."""
    max_clients: int | None = None
    """Clients that the Redis takes, where somebody says so: hosted ones do not always tell."""
    broken: str = ""
    """Why the modules of the app's tasks could not be imported; empty if they were."""


@dataclass(frozen=True, slots=True)
class Looked(Generic[_T]):
    """What a look gave, or why there is nothing."""

    found: _T | None = None
    why_not: str = ""

    def get(self) -> _T:
        """What was found.

        Raises:
            NotKnown: nothing was.
        """
        if self.found is None:
            raise NotKnown(self.why_not)
        return self.found


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the judges get."""

    where: Where
    redis: Looked[tuple[ServerFacts, ...]] = Looked(why_not=NOT_LOOKED)
    """Each Redis server once, whatever it is used for."""
    workers: Looked[WorkerFacts] = Looked(why_not=NOT_LOOKED)
    monitor: Looked[MonitorFacts] = Looked(why_not=NOT_LOOKED)
    host: Looked[HostFacts] = Looked(why_not=NOT_LOOKED)

    @property
    def app(self) -> Celery:
        """The app.

        Raises:
            NotKnown: none was given.
        """
        if self.where.app is None:
            raise NotKnown(NO_APP)
        return self.where.app

    @property
    def conf(self) -> Any:
        """The configuration of the app.

        Raises:
            NotKnown: no app was given.
        """
        return self.app.conf
