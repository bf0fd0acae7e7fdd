"""What the live workers say, by Celery's own remote control and by their heartbeats; nothing is judged here.

How they are asked is in ``listening``, the connection in ``broker_facts``. Of arguments nothing is kept.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from kombu.exceptions import OperationalError

from celery_argsize.doctor.beat_facts import shortest_interval
from celery_argsize.doctor.broker_facts import Counted, broker_url, connection_to, count_queues, why_not
from celery_argsize.doctor.checks import NotKnown
from celery_argsize.doctor.facts import NO_APP
from celery_argsize.doctor.listening import Heartbeat, Listener
from celery_argsize.doctor.local_facts import LocalProcess, local_processes
from celery_argsize.doctor.queue_facts import known_queues

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery import Celery

    from celery_argsize.doctor.facts import Where

__all__ = ["Node", "WorkerFacts", "look_at_workers"]

#: Seconds in which a broker must take a connection, or answer a command.
BROKER_SECONDS: Final = 2.0
#: Seconds to listen at most: two heartbeats fit in, each 2 s from the next by default (celery.worker.heartbeat).
LISTEN_SECONDS: Final = 5.0
#: Seconds to wait for the first answers: what ``celery inspect`` waits.
ANSWER_SECONDS: Final = 1.0
#: Seconds between two counts of runs, where something is due each 2 s or more often.
SAMPLE_SECONDS: Final = 4.0
OFTEN: Final = 2.0
#: Tasks with an ETA that a node may hold to be asked for them: they come with their arguments.
ETA_TASKS_AT_MOST: Final = 100
#: The same for running tasks: characters of arguments that the replies of one node may have.
ACTIVE_CHARACTERS_AT_MOST: Final = 1 << 20

_QUESTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "ping": {},
    "stats": {},
    "active_queues": {},
    "registered": {"taskinfoitems": ["_"]},  # only the names: nothing is an attribute that begins so
    "argsize": {},
}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFacts:
    """What all workers said."""

    broker: str = ""
    """URL of the broker, without secrets."""
    broker_error: str = ""
    """Why it could not be reached; empty if it was."""
    no_control: str = ""
    """Why workers cannot be asked there; empty if they can."""
    nodes: tuple[Node, ...] = ()
    silent: Mapping[str, tuple[Heartbeat, ...]] = field(default_factory=dict)
    """Nodes whose heartbeat was heard, and that did not answer."""
    twice: tuple[str, ...] = ()
    """Names that more than one worker has."""
    listened: float = 0.0
    """Seconds in which heartbeats were heard."""
    counted: Mapping[str, Counted] = field(default_factory=dict)
    """On AMQP: queue → what the broker says of it. Queues that do not exist are left out."""
    local: Mapping[int, LocalProcess] = field(default_factory=dict)
    """Pid → worker or Beat on this machine, of any app."""
    port: int = 0
    """The broker's, where it has one."""

    def asked(self) -> WorkerFacts:
        """Itself, if workers could be asked at all.

        Raises:
            NotKnown: they could not.
        """
        if self.broker_error:
            raise NotKnown(f"the broker could not be asked: {self.broker_error}")  # noqa: EM102, TRY003
        if self.no_control:
            raise NotKnown(self.no_control)
        return self

    def live(self) -> tuple[Node, ...]:
        """The nodes.

        Raises:
            NotKnown: none answers.
        """
        if not self.asked().nodes:
            message = "no worker answers"
            raise NotKnown(message)
        return self.nodes


def look_at_workers(where: Where) -> WorkerFacts:
    """Ask all workers of the app, whatever its broker.

    Raises:
        NotKnown: no app was given.
    """
    if where.app is None:
        raise NotKnown(NO_APP)
    broker, found = broker_url(where.app), list[WorkerFacts | Exception]()
    seconds = max(where.seconds - 1, where.seconds / 2)
    # A thread of its own: not every transport has an end to every wait.
    thread = threading.Thread(target=_look, args=(where.app, broker, seconds, found), daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        return WorkerFacts(broker=broker, broker_error=f"no answer within {seconds:g} s")
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _look(app: Celery, broker: str, seconds: float, found: list[WorkerFacts | Exception]) -> None:
    """Put what is there into *found*, in less than *seconds* where the transport can be held to it."""
    trouble: tuple[type[Exception], ...] = (Exception,)
    try:
        queues = sorted(known_queues(app))
        with connection_to(app, min(BROKER_SECONDS, seconds / 4)) as connection:
            # from here on, others are faults of ours
            trouble = (OSError, OperationalError, *connection.connection_errors, *connection.channel_errors)
            name = connection.transport.driver_type
            if name == "memory" or not connection.supports_exchange_type("fanout"):
                told = f"over {name}, other processes cannot be asked: Celery has no remote control there"
                found.append(WorkerFacts(broker=broker, no_control=told))
                return
            counted = count_queues(connection, queues)
            port = connection.port or connection.transport.default_port or 0
            with Listener(app, connection) as listener:
                listened = min(LISTEN_SECONDS, seconds / 2)
                found.append(_heard(app, listener, listened, broker=broker, counted=counted, port=port))
    except trouble as exc:
        found.append(WorkerFacts(broker=broker, broker_error=why_not(exc)))
    except Exception as exc:  # noqa: BLE001 - raised again where it is waited for
        found.append(exc)


def _heard(app: Celery, listener: Listener, seconds: float, **more: Any) -> WorkerFacts:
    """What the workers say within about *seconds*; *more*: other facts."""
    began = time.monotonic()
    listener.ask(_QUESTIONS, seconds=seconds)
    listener.listen(lambda: time.monotonic() > began + ANSWER_SECONDS and _all_said(listener), began + seconds)
    pongs = [*listener.replies["ping"]]
    first = {**listener.replies["stats"]}
    _ask_more(app, listener)
    if first and (shortest_interval(app) or OFTEN + 1) <= OFTEN:
        until = min(reply.time for reply in first.values()) + min(SAMPLE_SECONDS, seconds)
        listener.listen(lambda: False, until)
        listener.ask({"stats": {}}, [*first], seconds=ANSWER_SECONDS)
        listener.listen(lambda: _again(listener, first), time.monotonic() + ANSWER_SECONDS)
    return WorkerFacts(
        nodes=tuple(_node(name, listener, first.get(name)) for name in sorted(pongs)),
        silent={name: (*beats,) for name, beats in sorted(listener.heartbeats.items()) if name not in pongs},
        twice=tuple(sorted(listener.twice)),
        listened=time.monotonic() - began,
        local=local_processes(),
        **more,
    )


def _all_said(listener: Listener) -> bool:
    """Whether every node known so far answered everything, and was heard."""
    known = {*listener.heartbeats, *listener.replies["ping"]}
    return bool(known) and listener.answered(_QUESTIONS, known) and known == {*listener.heartbeats}


def _again(listener: Listener, first: Mapping[str, Any]) -> bool:
    return all(listener.replies["stats"][name] is not reply for name, reply in first.items())


def _ask_more(app: Celery, listener: Listener) -> None:
    """What may be large, of those nodes only where it is not."""
    stats = {name: reply.said for name, reply in listener.replies["stats"].items() if isinstance(reply.said, dict)}
    characters = app.amqp.argsrepr_maxsize + app.amqp.kwargsrepr_maxsize
    running = [name for name, said in stats.items() if _concurrency(said) * characters <= ACTIVE_CHARACTERS_AT_MOST]
    waiting = [name for name, said in stats.items() if 0 < _etas(app, said) <= ETA_TASKS_AT_MOST]
    if running:
        listener.ask({"active": {"safe": True}}, running, seconds=ANSWER_SECONDS)
    if waiting:
        listener.ask({"scheduled": {}}, waiting, seconds=ANSWER_SECONDS)
    listener.listen(
        lambda: listener.answered(["active"], running) and listener.answered(["scheduled"], waiting),
        time.monotonic() + ANSWER_SECONDS,
    )


def _concurrency(stats: Mapping[str, Any]) -> int:
    pool = stats.get("pool") or {}
    processes = pool.get("processes")
    # the live size: autoscaling and pool_shrink change it, and not always max-concurrency
    return len(processes) if isinstance(processes, list) and processes else int(pool.get("max-concurrency") or 0)


def _etas(app: Celery, stats: Mapping[str, Any]) -> int:
    """How many tasks with an ETA a node seems to hold: each lets it fetch one message more."""
    count, base = stats.get("prefetch_count"), _concurrency(stats) * int(app.conf.worker_prefetch_multiplier or 0)
    return count - base if isinstance(count, int) and base else 0


def _node(name: str, listener: Listener, first: Any) -> Node:
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
        concurrency=_concurrency(stats),
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
