"""What Beat is to send, as ``beat_schedule`` says, and how often that was due in some span of time; no I/O."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery.schedules import maybe_schedule, schedule

from celery_argsize.doctor.queue_facts import queue_of

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Entry", "entries", "foreign_scheduler", "shortest_interval", "unreadable"]

#: Schedulers that take what is due from ``beat_schedule`` and nowhere else.
_OWN_SCHEDULERS: Final = ("celery.beat.PersistentScheduler", "celery.beat.Scheduler")


class Entry(NamedTuple):
    """One entry of ``beat_schedule``."""

    name: str
    task: str
    queue: str | None
    """Where it is sent; ``None`` where that cannot be said."""
    every: float | None
    """Seconds from one to the next; ``None``: by the clock (crontab, solar)."""
    schedule: Any
    expires: bool
    """Whether a worker drops it when it comes late."""

    def due(self, seconds: float, grace: float) -> float:
        """How often it was due in the last *seconds*, up to *grace* seconds ago. Of a crontab: 1 for ever so often."""
        if self.every is not None:
            return max(0.0, (seconds - grace) / self.every)
        since = self.schedule.now() - timedelta(seconds=seconds)
        return float(self.schedule.remaining_estimate(since) <= timedelta(seconds=-grace))


def entries(app: Celery) -> list[Entry]:
    """What is in ``beat_schedule``, without what cannot be read."""
    return [entry for _, entry in _read(app) if entry is not None]


def unreadable(app: Celery) -> list[str]:
    """Names of what is in ``beat_schedule`` and cannot be read."""
    return [name for name, entry in _read(app) if entry is None]


def _read(app: Celery) -> list[tuple[str, Entry | None]]:
    schedule = app.conf.beat_schedule or {}
    return [(str(name), _entry(app, str(name), schedule[name])) for name in schedule]


def _entry(app: Celery, name: str, entry: Any) -> Entry | None:
    try:
        when: Any = maybe_schedule(entry["schedule"], app=app)
        # crontab and the like are classes of their own: only this one has an interval
        plain = type(when) is schedule
        every = when.run_every.total_seconds() if plain else None
        when.remaining_estimate(when.now())
        options = entry.get("options") or {}
        task = entry["task"]
        return Entry(name, task, queue_of(app, task, options), every or None, when, "expires" in options)
    except Exception:  # noqa: BLE001 - whatever is there: what Beat makes of it is no better
        return None


def shortest_interval(app: Celery) -> float | None:
    """Seconds between two of what is due most often; ``None`` where nothing is due at an interval."""
    return min((entry.every for entry in entries(app) if entry.every), default=None)


def foreign_scheduler(app: Celery) -> str:
    """The scheduler, where it keeps a schedule of its own; empty where ``beat_schedule`` is all."""
    scheduler = app.conf.beat_scheduler
    name = scheduler if isinstance(scheduler, str) else f"{scheduler.__module__}:{scheduler.__qualname__}"
    return "" if name.replace(":", ".") in _OWN_SCHEDULERS else name
