"""What was looked at, as plain data. ``doctor.look`` fills these classes, ``doctor.judge`` reads them.

``redis_facts`` has those of the Redis servers.
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
    from celery_argsize.doctor.redis_facts import Counted, ServerFacts
    from celery_argsize.figures.summary import Summary

NO_PSUTIL: Final = "psutil is not installed"
GET_PSUTIL: Final = "pip install 'celery-argsize[cli]'"

NO_APP: Final = "no app was given: say which with -A"

_T = TypeVar("_T")


class Unavailable(Exception):  # noqa: N818 - not an error: an answer
    """What a check needs could not be looked at; the text says why."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Where to look, and for how long."""

    app: Celery | None
    given: Mapping[str, str | None] = field(default_factory=dict)
    """Options of the command line: ``redis_url``, ``key_prefix``, ``app_name``."""
    seconds: float = 10.0
    max_clients: int | None = None
    """How many clients the Redis takes, if an option says so."""
    broken: str = ""
    """Why the app or a module of its tasks could not be loaded, if so."""

    @property
    def why_no_app(self) -> str:
        """What to say where there is no app."""
        return "the app cannot be loaded, see settings.imports" if self.broken else NO_APP


@dataclass(frozen=True, slots=True)
class LookResult(Generic[_T]):
    """What a look gave, or why it gave nothing."""

    found: _T | None = None
    why_not: str = "not looked at"

    def get(self) -> _T:
        """What the look gave; raises ``Unavailable`` if it gave nothing."""
        if self.found is None:
            raise Unavailable(self.why_not)
        return self.found


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a check can read."""

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
        """Its configuration; raises ``Unavailable`` where there is no app."""
        return self.app.conf


def raised_at(exc: BaseException) -> str:
    """The class of an error and its line of code. Not its text, which may quote a password."""
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{type(exc).__name__} at {Path(frame.filename).name}:{frame.lineno}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CeleryProcess:
    """A process of Celery on this machine, of any app. What is not known has its default."""

    pid: int
    ppid: int
    kind: Literal["worker", "child", "beat"]
    """``child``: a worker started it."""
    beat: bool = False
    """Whether it is a Beat, or a worker with ``-B``."""
    app: str = ""
    """The word after ``-A``."""
    rss: int = 0
    """Bytes of memory that it holds."""
    created: float = 0.0
    """Seconds since the epoch."""
    # only of workers and Beats:
    pool: str = ""
    max_memory: int = 0
    """KiB after ``--max-memory-per-child``."""
    stopped: bool = False
    """By SIGSTOP."""
    folder: str = ""
    ports: frozenset[int] | None = None
    """Remote ports of its TCP connections; ``None``: not known."""
    ends: frozenset[str] = frozenset()
    """Local ends of these: ``127.0.0.1:50000``."""

    def elsewhere(self, port: int) -> bool:
        """Whether it is known not to be connected to *port*."""
        return self.ports is not None and port not in self.ports


@dataclass(frozen=True, slots=True, kw_only=True)
class CGroup:
    """The memory of a Linux control group."""

    path: str
    limit: int | None = None
    """Bytes: the lowest limit of it and of the groups around it."""
    used: int | None = None
    """Bytes, without cached files that the kernel can drop."""
    oom_kills: int | None = None
    """Processes that the kernel killed to get memory."""
    workers: int = 0
    """How many Celery processes are in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """This machine. Memory in bytes; ``None``: not known."""

    hostname: str
    cpus: int
    memory_total: int | None = None
    memory_available: int | None = None
    oom_kills_since_boot: int | None = None
    cgroup: CGroup | None = None
    """That of this process."""
    worker_cgroups: tuple[CGroup, ...] = ()
    """Other ones with a Celery process in them."""
    processes: tuple[CeleryProcess, ...] = ()
    psutil_missing: bool = False

    @property
    def memory_limit(self) -> int | None:
        """Bytes that all processes here may use together."""
        limits = [limit for limit in (self.memory_total, self.cgroup and self.cgroup.limit) if limit]
        return min(limits, default=None)

    def process(self, pid: int) -> CeleryProcess | None:
        """The process of this id."""
        return next((process for process in self.processes if process.pid == pid), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorFacts:
    """What celery_argsize measured, and what follows from it."""

    summary: Summary
    advice: Advice
    hosts: tuple[HostCheck, ...] = ()
    """The limits in force on each host; empty without an app."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """The broker of the app, and what its workers answered."""

    broker: str = ""
    """Its URL, without secrets."""
    broker_error: str = ""
    """Why it could not be reached, if so."""
    no_control: str = ""
    """Why workers cannot be asked, if so."""
    took: float | None = 0.0
    """Seconds to connect; ``None``: no connection and no error in time."""
    port: int = 0
    ends: Mapping[str, bool] = field(default_factory=dict)
    """On Redis: the client's end of each connection → whether it uses the database of the messages."""
    nodes: tuple[Node, ...] = ()
    silent: tuple[str, ...] = ()
    """Names of workers that sent a heartbeat and no answer."""
    twice: tuple[str, ...] = ()
    """Names that more than one worker has."""
    listened: float = 0.0
    counted: Mapping[str, Counted] = field(default_factory=dict)
    """On AMQP: each queue that exists → its messages and consumers."""
    uncounted: Mapping[str, str] = field(default_factory=dict)
    """On AMQP: each queue that was not counted → why."""

    def asked(self) -> WorkerFacts:
        """Itself; raises ``Unavailable`` if workers could not be asked."""
        if self.broker_error:
            raise Unavailable(f"the broker could not be asked: {self.broker_error}")  # noqa: EM102, TRY003
        if self.no_control:
            raise Unavailable(self.no_control)
        return self

    def live(self) -> tuple[Node, ...]:
        """The nodes; raises ``Unavailable`` if none answers."""
        if not self.asked().nodes:
            raise Unavailable("no worker answers")  # noqa: EM101, TRY003
        return self.nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One worker that answers; ``None``: not answered, or not asked."""

    name: str
    """``celery@host``."""
    pid: int = 0
    pool: str = ""
    """``prefork``, ``solo``, ``thread``, ``gevent``, ``eventlet`` or another module."""
    concurrency: int = 0
    processes: tuple[int, ...] = ()
    """Pids of its pool."""
    queues: tuple[str, ...] = ()
    uptime: float | None = None
    totals: Mapping[str, int] = field(default_factory=dict)
    """Task → runs since it started."""
    registered: tuple[str, ...] | None = None
    """Names of its tasks."""
    argsize: Mapping[str, Any] | None = None
    """What ``celery inspect argsize`` gives."""
    stats: Mapping[str, Any] = field(default_factory=dict)
    longest_eta: float | None = None
    """Seconds until the latest ETA of the tasks that it holds."""
    active: int | None = None
    heartbeats: tuple[Heartbeat, ...] = ()

    @property
    def hostname(self) -> str:
        """What is behind the ``@`` of the name."""
        return self.name.partition("@")[2]


class Heartbeat(NamedTuple):
    """One worker-heartbeat (or worker-online) event."""

    received: float
    """By this machine's clock, in seconds since the epoch."""
    sent: float
    """By the worker's clock."""
    every: float
    """Seconds from one to the next, as the worker says."""
    active: int | None = None
    """Tasks that the worker ran."""
