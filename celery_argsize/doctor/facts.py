"""What the doctor saw, as plain data: ``doctor.look`` makes it, ``doctor.judge`` reads it.

Facts of Redis servers are in ``redis_facts``.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from celery_argsize.advice.advice import Advice
    from celery_argsize.advice.in_force import HostCheck
    from celery_argsize.doctor.redis_facts import QueueCount, ServerFacts
    from celery_argsize.figures.summary import Summary

NO_PSUTIL: Final = "psutil is not installed"
GET_PSUTIL: Final = "pip install 'celery-argsize[cli]'"
MORE_TIME: Final = "--timeout gives it longer"
NO_APP: Final = "no app was given: say which with -A"

_T = TypeVar("_T")


class Unavailable(Exception):  # noqa: N818 - not an error: an answer
    """Something could not be looked at. The text says why."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Where to look, and for how long."""

    app: Celery | None
    given: Mapping[str, str | None] = field(default_factory=dict)
    """Options: ``redis_url``, ``key_prefix``, ``app_name``."""
    seconds: float = 10.0
    max_clients: int | None = None
    """Clients that the Redis takes, if an option says so."""
    broken: str = ""
    """Why the app or its tasks could not be loaded; empty: they were."""

    @property
    def why_no_app(self) -> str:
        """The reason for having no app."""
        return "the app cannot be loaded, see settings.imports" if self.broken else NO_APP


@dataclass(frozen=True, slots=True)
class LookResult(Generic[_T]):
    """What a look saw, or why it saw nothing."""

    value: _T | None = None
    why_not: str = "not looked at"

    def get(self) -> _T:
        """What was seen; raises ``Unavailable`` if nothing was."""
        if self.value is None:
            raise Unavailable(self.why_not)
        return self.value


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a check can read."""

    where: Scope
    redis: LookResult[tuple[ServerFacts, ...]] = LookResult()
    workers: LookResult[WorkerFacts] = LookResult()
    monitor: LookResult[MonitorFacts] = LookResult()
    host: LookResult[HostFacts] = LookResult()

    @property
    def app(self) -> Celery:
        """The app; raises ``Unavailable`` where there is none."""
        if self.where.app is None:
            raise Unavailable(self.where.why_no_app)
        return self.where.app

    @property
    def conf(self) -> Any:
        """The app's settings; raises ``Unavailable`` where there is no app."""
        return self.app.conf


def raised_at(exc: BaseException) -> str:
    """The class of an error and its line of code. Its text may quote a password."""
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{type(exc).__name__} at {Path(frame.filename).name}:{frame.lineno}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CeleryProcess:
    """A process of Celery on this machine, of any app."""

    pid: int
    ppid: int
    kind: Literal["worker", "child", "beat"]
    beat: bool = False
    """Whether it is a Beat, or a worker with ``-B``."""
    app: str = ""
    """The word after ``-A``."""
    rss: int = 0
    """Bytes of memory."""
    created: float = 0.0
    """Seconds since the epoch."""
    # these are not read for the children of a pool
    pool: str = ""
    max_memory: int = 0
    """KiB after ``--max-memory-per-child``."""
    stopped: bool = False
    """Whether SIGSTOP stopped it."""
    folder: str = ""
    """Its working directory."""
    ports: frozenset[int] | None = None
    """Remote ports of its TCP connections; ``None``: not known."""
    ends: frozenset[str] = frozenset()
    """Local ends of its TCP connections, such as ``127.0.0.1:50000``."""

    def elsewhere(self, port: int) -> bool:
        """Whether it is known to have no connection to *port*."""
        return self.ports is not None and port not in self.ports


@dataclass(frozen=True, slots=True, kw_only=True)
class CGroup:
    """The memory of a Linux control group."""

    path: str
    limit: int | None = None
    """Bytes: the lowest limit of this group and those around it."""
    used: int | None = None
    """Bytes, without cached files that the kernel can drop."""
    oom_kills: int | None = None
    """Processes that the kernel killed to free memory."""
    workers: int = 0
    """Number of Celery processes in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """This machine. Memory is in bytes; ``None``: not known."""

    hostname: str
    cpus: int
    memory_total: int | None = None
    memory_available: int | None = None
    oom_kills_since_boot: int | None = None
    cgroup: CGroup | None = None
    """The control group of this process."""
    worker_cgroups: tuple[CGroup, ...] = ()
    """Other control groups with a Celery process."""
    processes: tuple[CeleryProcess, ...] = ()
    psutil_missing: bool = False

    @property
    def memory_limit(self) -> int | None:
        """Bytes that all processes may use together."""
        limits = [limit for limit in (self.memory_total, self.cgroup and self.cgroup.limit) if limit]
        return min(limits, default=None)

    def process(self, pid: int) -> CeleryProcess | None:
        """The process with this id."""
        return next((process for process in self.processes if process.pid == pid), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorFacts:
    """What celery_argsize measured."""

    summary: Summary
    advice: Advice
    hosts: tuple[HostCheck, ...] = ()
    """Limits in force on each host; empty without an app."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """The broker of the app, and the replies of its workers."""

    broker: str = ""
    """The broker's URL, without secrets."""
    broker_error: str = ""
    """Why the broker could not be reached; empty: it was."""
    control_error: str = ""
    """Why workers could not be asked; empty: they were."""
    connect_seconds: float | None = 0.0
    """Seconds to connect; ``None``: neither a connection nor an error."""
    port: int = 0
    ends: Mapping[str, bool] = field(default_factory=dict)
    """On Redis: address of each client → whether it uses the
    database of the messages."""
    nodes: tuple[Node, ...] = ()
    silent: tuple[str, ...] = ()
    """Names of workers that sent a heartbeat and no reply."""
    shared_names: tuple[str, ...] = ()
    """Names that more than one worker has."""
    listened: float = 0.0
    """Seconds in which workers could reply."""
    counted: Mapping[str, QueueCount] = field(default_factory=dict)
    """On AMQP: queue → its messages and consumers."""
    uncounted: Mapping[str, str] = field(default_factory=dict)
    """On AMQP: queue that was not counted → why."""

    def asked(self) -> WorkerFacts:
        """Itself; raises ``Unavailable`` if workers could not be asked."""
        if self.broker_error:
            raise Unavailable(f"the broker could not be asked: {self.broker_error}")  # noqa: EM102, TRY003
        if self.control_error:
            raise Unavailable(self.control_error)
        return self

    def live(self) -> tuple[Node, ...]:
        """The nodes; raises ``Unavailable`` if there are none."""
        if not self.asked().nodes:
            raise Unavailable("no worker answers")  # noqa: EM101, TRY003
        return self.nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A worker that answers. A field is ``None`` if it was not asked, or did not reply to that."""

    name: str
    """Such as ``celery@host``."""
    pid: int = 0
    pool: str = ""
    """``prefork``, ``solo``, ``thread``, ``gevent``, ``eventlet`` or another module."""
    concurrency: int = 0
    processes: tuple[int, ...] = ()
    """Pids of the pool."""
    queues: tuple[str, ...] = ()
    uptime: float | None = None
    """Seconds since the worker started."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """Task → runs since the worker started."""
    registered: tuple[str, ...] | None = None
    argsize: Mapping[str, Any] | None = None
    """Reply to ``celery inspect argsize``."""
    stats: Mapping[str, Any] = field(default_factory=dict)
    """Reply to ``celery inspect stats``."""
    longest_eta: float | None = None
    """Seconds until the latest ETA of the tasks that it holds."""
    active: int | None = None
    heartbeats: tuple[Heartbeat, ...] = ()

    @property
    def hostname(self) -> str:
        """The part of the name behind ``@``."""
        return self.name.partition("@")[2]


class Heartbeat(NamedTuple):
    """A worker-heartbeat or worker-online event."""

    received: float
    """Seconds since the epoch, by this machine's clock."""
    every: float
    """Seconds between two heartbeats, as the worker says."""
    active: int | None = None
