"""What was looked at, for the checks of doctor/judge: what was found, or why not.

Of Redis servers and queues, ``redis_facts`` has the data.
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


class Unavailable(Exception):  # noqa: N818 - not an error: an answer
    """What a check needs could not be looked at; the text says why."""


NO_APP: Final = "no app was given: say which with -A"
NOT_LOOKED: Final = "not looked at"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Scope:
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
            Unavailable: where to look cannot be told.
        """
        if self.broken and self.app is None:
            raise Unavailable(self.why_no_app)


@dataclass(frozen=True, slots=True)
class LookResult(Generic[_T]):
    """What a look gave, or why there is nothing."""

    found: _T | None = None
    why_not: str = ""

    def get(self) -> _T:
        """What was found.

        Raises:
            Unavailable: nothing was.
        """
        if self.found is None:
            raise Unavailable(self.why_not)
        return self.found


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the judges get."""

    where: Scope
    redis: LookResult[tuple[ServerFacts, ...]] = LookResult(why_not=NOT_LOOKED)
    """Each Redis server once, whatever it is used for."""
    workers: LookResult[WorkerFacts] = LookResult(why_not=NOT_LOOKED)
    monitor: LookResult[MonitorFacts] = LookResult(why_not=NOT_LOOKED)
    host: LookResult[HostFacts] = LookResult(why_not=NOT_LOOKED)

    @property
    def app(self) -> Celery:
        """The app.

        Raises:
            Unavailable: none was given, or it cannot be loaded.
        """
        if self.where.app is None:
            raise Unavailable(self.where.why_no_app)
        return self.where.app

    @property
    def conf(self) -> Any:
        """The configuration of the app.

        Raises:
            Unavailable: there is no app.
        """
        return self.app.conf


def raised_at(exc: BaseException) -> str:
    """What kind of error came from which line, for people: its own text may quote a password."""
    frame = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{type(exc).__name__} at {Path(frame.filename).name}:{frame.lineno}"


#: What to say where that extra is missing.
NO_PSUTIL: Final = "psutil is not installed"
GET_PSUTIL: Final = "pip install 'celery-argsize[doctor]'"

Kind = Literal["worker", "child", "beat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CeleryProcess:
    """A process of Celery on this machine."""

    pid: int
    ppid: int
    kind: Kind
    """``child``: a process that a worker started: of its pool, or the Beat of ``worker -B``."""
    beat: bool = False
    """Whether it sends what is due: Beat, or a worker with ``-B``."""
    app: str = ""
    """What ``-A`` said; empty where it was not there."""
    rss: int = 0
    """Bytes of memory that it holds."""
    created: float = 0.0
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CGroup:
    """The memory of a control group of either version: a container has one, a systemd unit, a slice of them."""

    path: str
    """Where it is among the control groups."""
    limit: int | None = None
    """Bytes; of itself or of the one around it that allows the least. ``None``: no limit."""
    used: int | None = None
    """Bytes where that limit is, without the files that the kernel keeps in memory as long as there is room."""
    oom_kills: int | None = None
    """Processes in it that the kernel has killed to get memory, since the group is there."""
    workers: int = 0
    """How many of the Celery processes that are known are in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """This machine. Memory in bytes; ``None``: not known, mostly as psutil is missing."""

    hostname: str
    cpus: int
    """How many this process may use: its affinity, and the quota of its control group, rounded up."""
    machine_cpus: int
    """How many there are: as many children a worker starts by itself."""
    cpu_quota: float | None = None
    """How many CPUs the control group allows."""
    load: tuple[float, float, float] | None = None
    """Processes that run or wait, in the mean of 1, 5 and 15 minutes, on the whole machine."""
    memory_total: int | None = None
    memory_available: int | None = None
    """What processes can still get without swapping."""
    swap_total: int | None = None
    swap_used: int | None = None
    swap_in_per_second: float | None = None
    swap_out_per_second: float | None = None
    oom_kills_since_boot: int | None = None
    """Processes that the kernel has killed to get memory, anywhere on the machine."""
    container: str = ""
    """``docker``, ``kubernetes``, …; empty: in none."""
    cgroup: CGroup | None = None
    """The control group of this process."""
    worker_cgroups: tuple[CGroup, ...] = ()
    """Those of the workers on this machine, where they are others."""
    processes: tuple[CeleryProcess, ...] = ()
    """Every process of Celery that this user may see."""
    psutil_missing: bool = False

    @property
    def memory_limit(self) -> int | None:
        """What all processes here may use together: the memory, or the limit of the control group if that is less."""
        known = [one for one in (self.memory_total, self.cgroup and self.cgroup.limit) if one]
        return min(known, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorFacts:
    """What was measured, and what follows from it."""

    summary: LookResult[Summary]
    advice: LookResult[Advice]
    hosts: LookResult[tuple[HostCheck, ...]]
    """What the messages of each sending host show of the limits in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """What all workers said."""

    broker: str = ""
    """URL of the broker that took the connection, without secrets; all of them if none did."""
    broker_error: str = ""
    """Why it could not be reached; empty if it was."""
    no_control: str = ""
    """Why workers cannot be asked there; empty if they can."""
    took: float | None = 0.0
    """Seconds to connect; ``None`` where there was neither a connection nor an error, and ``no_control`` says why."""
    unreached: Mapping[str, str] = field(default_factory=dict)
    """Of a failover list with a broker that is there: URL of each that is not, without secrets → why."""
    nodes: tuple[Node, ...] = ()
    silent: Mapping[str, tuple[Heartbeat, ...]] = field(default_factory=dict)
    """Nodes whose heartbeat was heard, and that did not answer."""
    twice: tuple[str, ...] = ()
    """Names that more than one worker has."""
    listened: float = 0.0
    """Seconds in which heartbeats were heard."""
    counted: Mapping[str, Counted] = field(default_factory=dict)
    """On AMQP: queue → what the broker says of it. Queues that do not exist are left out."""
    uncounted: Mapping[str, str] = field(default_factory=dict)
    """On AMQP: queue → why it was not counted; it may exist or not."""
    local: Mapping[int, LocalProcess] = field(default_factory=dict)
    """Pid → worker or Beat on this machine, of any app."""
    port: int = 0
    """The broker's, where it has one."""
    ends: Mapping[str, bool] = field(default_factory=dict)
    """On Redis: client's end of each of its connections → whether that is in the database with the messages."""

    def asked(self) -> WorkerFacts:
        """Itself, if workers could be asked at all.

        Raises:
            Unavailable: they could not.
        """
        if self.broker_error:
            raise Unavailable(f"the broker could not be asked: {self.broker_error}")  # noqa: EM102, TRY003
        if self.no_control:
            raise Unavailable(self.no_control)
        return self

    def at_database(self, pid: int) -> bool | None:
        """Whether the worker or Beat *pid* of this machine is connected to the database with the messages, if known."""
        known = [self.ends[end] for end in (self.local[pid].ends if pid in self.local else ()) if end in self.ends]
        return any(known) if known else None

    def live(self) -> tuple[Node, ...]:
        """The nodes.

        Raises:
            Unavailable: none answers.
        """
        if not self.asked().nodes:
            message = "no worker answers"
            raise Unavailable(message)
        return self.nodes


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


class Heartbeat(NamedTuple):
    """One worker-heartbeat (or worker-online) event."""

    received: float
    """Seconds since the epoch, by this machine's clock."""
    sent: float
    """The same, by the clock of the worker's machine."""
    every: float
    """Seconds between two of them, as the worker says."""


class LocalProcess(NamedTuple):
    """A worker on this machine (its main process; its forks look the same), or a Beat."""

    pool: str
    """What ``-P`` said; empty where nothing did."""
    recycles: bool
    """Whether its command line has children replaced that use much memory (``--max-memory-per-child``)."""
    stopped: bool
    """Whether it was stopped, as by SIGSTOP."""
    ports: frozenset[int] | None
    """Ports of others that it is connected to; ``None`` where that may not be seen."""
    max_memory: int = 0
    """KiB that ``--max-memory-per-child`` said; 0 where nothing did."""
    folder: str = ""
    """Where it was started; empty where that may not be seen."""
    ends: frozenset[str] = frozenset()
    """Its ends of its connections to others, as a Redis writes them in CLIENT LIST."""

    def elsewhere(self, port: int) -> bool:
        """Whether it is not connected to *port*: another installation of the app has a broker of its own."""
        return self.ports is not None and port not in self.ports
