"""Everything that was looked at, for the judges: what was found, or why not.

Each group has a module of its own for what it finds and how (``redis_facts``, ``worker_facts``, ``monitor_facts``,
``host_facts``); here is what holds them together.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from celery_argsize.doctor.checks import NotKnown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from celery_argsize.doctor.host_facts import HostFacts
    from celery_argsize.doctor.monitor_facts import MonitorFacts
    from celery_argsize.doctor.redis_facts import ServerFacts
    from celery_argsize.doctor.worker_facts import WorkerFacts

__all__ = ["NO_APP", "Facts", "Looked", "Where", "raised_at"]

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
    """Why the app, or the modules of its tasks, could not be loaded; empty if they were."""

    @property
    def why_no_app(self) -> str:
        """What to say where there is no app to look at."""
        return "the app cannot be loaded, see settings.imports" if self.broken else NO_APP

    def need_whole(self) -> None:
        """Do nothing unless an app was given that cannot be loaded.

        Raises:
            NotKnown: where to look cannot be told.
        """
        if self.broken and self.app is None:
            raise NotKnown(self.why_no_app)


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
            NotKnown: none was given, or it cannot be loaded.
        """
        if self.where.app is None:
            raise NotKnown(self.where.why_no_app)
        return self.where.app

    @property
    def conf(self) -> Any:
        """The configuration of the app.

        Raises:
            NotKnown: there is no app.
        """
        return self.app.conf


def raised_at(exc: BaseException) -> str:
    """What kind of error came from which line, for people: its own text may quote a password."""
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{type(exc).__name__} at {Path(frame.filename).name}:{frame.lineno}"
