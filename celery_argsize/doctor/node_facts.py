"""One live worker: what its replies and heartbeats say of it. Of arguments nothing is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_argsize.doctor.listening import Heartbeat, Listener

__all__ = ["Node", "concurrency_of", "node_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One worker that answers."""

    name: str
    """``celery@host``."""
    pid: int = 0
    pool: str = ""
    """``prefork``, ``solo``, ``thread``, ``gevent``, ``eventlet``, or what another pool's module is called."""
    concurrency: int = 0
    """How many tasks its pool runs at once, now."""
    processes: tuple[int, ...] = ()
    """The pids of its pool's processes."""
    queues: tuple[str, ...] = ()
    uptime: float | None = None
    """Seconds since it started, in whole ones."""
    started: float | None = None
    """When that was: seconds since the epoch, by this machine's clock."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """Task → runs since it started."""
    later: Mapping[str, int] = field(default_factory=dict)
    """The same, *span* seconds later; empty where nothing is due that often."""
    span: float = 0.0
    registered: tuple[str, ...] | None = None
    """Names of its tasks; ``None`` where it did not say."""
    argsize: Mapping[str, Any] | None = None
    """What ``celery inspect argsize`` says of it."""
    stats: Mapping[str, Any] = field(default_factory=dict)
    """What ``celery inspect stats`` says of it."""
    prefetch_count: int | None = None
    longest_active: float | None = None
    """Seconds that its longest running task has run; 0 if none runs, ``None`` where it was not asked."""
    longest_eta: float | None = None
    """Seconds until the latest of its tasks with an ETA or countdown; ``None`` where it was not asked."""
    active: int | None = None
    """Tasks that it runs."""
    heartbeats: tuple[Heartbeat, ...] = ()

    @property
    def hostname(self) -> str:
        """The part of the name behind the ``@``."""
        return self.name.partition("@")[2]

    @property
    def autoscales(self) -> bool:
        """Whether it was started with ``--autoscale``."""
        return "autoscaler" in self.stats


def concurrency_of(stats: Mapping[str, Any]) -> int:
    """How many tasks its pool runs at once, by its answer to ``inspect stats``."""
    pool = stats.get("pool") or {}
    processes = pool.get("processes")
    # the live size: autoscaling and pool_shrink change it, and not always max-concurrency
    return len(processes) if isinstance(processes, list) and processes else int(pool.get("max-concurrency") or 0)


def node_of(name: str, listener: Listener, first: Any) -> Node:
    """What *name* said; *first*: its first answer to ``inspect stats``, as a ``Reply``."""
    replies = {question: reply[name].said for question, reply in listener.replies.items() if name in reply}
    stats = first.said if first and isinstance(first.said, dict) else {}
    again = listener.replies["stats"].get(name)
    later = again.said if again and again is not first and isinstance(again.said, dict) else {}
    pool = stats.get("pool") or {}
    active = replies.get("active")
    queues, registered, argsize = (replies.get(question) for question in ("active_queues", "registered", "argsize"))
    uptime = float(stats["uptime"]) if "uptime" in stats else None
    return Node(
        name=name,
        pid=int(stats.get("pid") or 0),
        pool=str(pool.get("implementation") or "").partition(":")[0].rpartition(".")[2],
        concurrency=concurrency_of(stats),
        processes=tuple(pid for pid in pool.get("processes") or () if isinstance(pid, int)),
        queues=tuple(str(queue.get("name")) for queue in queues) if isinstance(queues, list) else (),
        uptime=uptime,
        started=None if uptime is None else time.time() - (time.monotonic() - first.time) - uptime,
        totals=stats.get("total") or {},
        later=later.get("total") or {},
        span=again.time - first.time if later and again else 0.0,
        registered=tuple(map(str, registered)) if isinstance(registered, list) else None,
        argsize=argsize if isinstance(argsize, dict) else None,
        stats=stats,
        prefetch_count=stats["prefetch_count"] if isinstance(stats.get("prefetch_count"), int) else None,
        longest_active=_longest(active),
        longest_eta=_latest(replies.get("scheduled")),
        active=len(active) if isinstance(active, list) else None,
        heartbeats=tuple(listener.heartbeats.get(name, ())),
    )


def _longest(active: Any) -> float | None:
    if not isinstance(active, list):
        return None
    begins = [one["time_start"] for one in active if isinstance(one.get("time_start"), (int, float))]
    return max(0.0, time.time() - min(begins)) if begins else 0.0


def _latest(scheduled: Any) -> float | None:
    if not isinstance(scheduled, list):
        return None
    etas = [datetime.fromisoformat(one["eta"]) for one in scheduled if one.get("eta")]
    return max([0.0, *((eta - datetime.now(eta.tzinfo)) / timedelta(seconds=1) for eta in etas)])
