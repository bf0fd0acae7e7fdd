"""What opens connections to Redis in a Celery cluster, and how many at most: a model, item by item.

Pure: numbers in, items out. Each number says in a comment where in Celery or kombu it comes from; all were also
measured on a real Redis (docs/connections.md, tests/acceptance/test_connection_budget.py). What an app is configured
to is read in ``connections``; what fits is found in ``connection_fit``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

if TYPE_CHECKING:
    _Rows = Iterator[tuple[str, str | None, int | None]]

#: Pools whose tasks share one process, and so its connection pools; of these, those where tasks are greenlets.
GREEN: Final = ("eventlet", "gevent")
SHARED: Final = ("threads", *GREEN)

#: Every pool that is known.
POOLS: Final = ("prefork", "solo", *SHARED)

#: Connections of a kombu channel that one thread uses. kombu/transport/redis.py, Channel: ``async_pool`` holds the one
#: that ``__init__`` pings with, later pinned by BRPOP or by PSUBSCRIBE; ``pool`` one for every other command. Neither
#: gives one back to Redis while the channel is open. A kombu connection that publishes has one channel.
CHANNEL: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """All that the model looks at."""

    workers: int
    concurrency: int
    pool: str
    producers: int
    threads: int
    inspectors: int
    beat: bool
    beat_control: bool
    """``beat_enable_remote_control``."""
    gossip: bool
    worker_control: bool
    """``worker_enable_remote_control``."""
    control: bool
    """Tasks and producers send remote control as well: ``revoke``, ``inspect``."""
    broadcasts: bool
    """The workers take tasks from a broadcast queue."""
    eager: bool
    """Producers measure as well, as celery_argsize is told to count eager runs."""
    pool_limit: int
    """``broker_pool_limit``; 0: no pool."""
    thread_safe: bool
    """``result_backend_thread_safe``."""
    shareable: bool
    """Whether this Celery's result backend can be shared by threads at all."""
    read: str | None
    """The Redis that workers take tasks from; ``None``: it is no Redis. The others likewise."""
    write: str | None
    result: str | None
    ours: str | None

    @property
    def at_once(self) -> int:
        """How many tasks run in one process at once."""
        return self.concurrency if self.pool in SHARED else 1

    def pooled(self, threads: int, *, more: int = 0) -> int:
        """Connections of one process's publishing pool, *threads* using it at once and *more* that send no control."""
        # kombu/pools.py: ``producers`` and ``connections`` share one limit. A pool without limit opens one for each
        # use, and closes it after, so the most is the same as if there were room for all.
        # celery/app/control.py, broadcast: takes a connection, and a producer with another one while it holds that.
        wanted = threads * (2 if self.control else 1) + more
        return CHANNEL * (min(wanted, self.pool_limit) if self.pool_limit else wanted)

    def results(self, threads: int, *, more: int = 0) -> int:
        """Connections of one process's result backends, *threads* using them at once and *more* that never wait."""
        # celery/app/base.py, _backend: one backend for each thread, unless result_backend_thread_safe. In it
        # celery/backends/redis.py, ResultConsumer: a pub/sub connection, kept from the first result that is waited for;
        # and one for commands, which never run at the same time in one thread.
        return threads + 1 + more if self.thread_safe else 2 * threads + more


@dataclass(frozen=True, slots=True)
class ConnectionItem:
    """One thing that opens connections."""

    who: str
    """A process: ``"worker"``, ``"pool child"``, ``"producer"``, ``"beat"`` or ``"inspect"``."""
    what: str
    """What the connections are for."""
    server: str
    """Which Redis, as ``host:port``."""
    each: int | None
    """How many one of these processes opens at most; ``None``: nothing bounds it."""
    times: int
    """How many such processes there are."""

    @property
    def most(self) -> int | None:
        """How many all of them open at most; ``None``: nothing bounds it."""
        return None if self.each is None else self.each * self.times

    def to_json(self) -> dict[str, Any]:
        """This item as JSON-able data."""
        return {
            "who": self.who,
            "what": self.what,
            "server": self.server,
            "each": self.each,
            "times": self.times,
            "most": self.most,
        }


def pool_name(said: str) -> str:
    """The name of a pool, out of another one of it or the path of its class: ``celery.concurrency.thread:TaskPool``."""
    module = said.partition(":")[0].rpartition(".")[2]
    return {"processes": "prefork", "thread": "threads"}.get(module, module)


def items_of(setup: Setup) -> tuple[ConnectionItem, ...]:
    """Everything that opens connections to a Redis in *setup*."""
    rows = [
        *(("worker", *row, setup.workers) for row in _worker(setup)),
        *(("pool child", *row, setup.workers * setup.concurrency) for row in _child(setup)),
        *(("producer", *row, setup.producers) for row in _producer(setup)),
        *(("beat", *row, 1) for row in _beat(setup)),
        *(("inspect", *row, setup.inspectors) for row in _inspector(setup)),
    ]
    return tuple(
        ConnectionItem(who, what, server, each, times)
        for who, what, server, each, times in rows
        if server is not None and times and each != 0
    )


def totals(items: tuple[ConnectionItem, ...]) -> dict[str, int | None]:
    """By server: what *items* come to; ``None`` where one of them is unbounded."""
    found: dict[str, list[int | None]] = defaultdict(list)
    for item in items:
        found[item.server].append(item.most)
    return {server: None if None in each else sum(filter(None, each)) for server, each in found.items()}


def _worker(setup: Setup) -> _Rows:
    # worker/consumer/tasks.py: the consumer's first channel, pinned by BRPOP. For a kombu Broadcast queue, LISTEN is on
    # the same channel with a connection of its own. Acknowledgements go through the main loop, one after another; but
    # greenlets send theirs at the same time, through one pool (worker/consumer/consumer.py, call_soon_ack).
    acknowledging = setup.concurrency if setup.pool in GREEN else 0
    yield "taking tasks", setup.read, CHANNEL + setup.broadcasts + acknowledging
    # worker/consumer/gossip.py: a channel of its own, pinned by LISTEN.
    yield "gossip", setup.read, CHANNEL * setup.gossip
    # worker/pidbox.py: the same; with greenlets on a connection of its own, with one channel. Mingle (mingle.py) is
    # over before this, and uses the consumer's first channel.
    yield "hearing remote control", setup.read, CHANNEL * setup.worker_control
    # worker/consumer/events.py: a connection of its own, behind a lock (events/dispatcher.py, mutex).
    yield "events and heartbeats", setup.write, CHANNEL
    # kombu/pidbox.py, reply: through the app's publishing pool, which tasks of this process use as well.
    if setup.pool in SHARED:
        yield "publishing, replies", setup.write, setup.pooled(setup.concurrency, more=1)
    elif setup.pool == "solo":
        yield "publishing, replies", setup.write, setup.pooled(1)
    else:
        yield "replies", setup.write, CHANNEL
    yield "results", setup.result, _worker_results(setup)
    # celery_argsize/flusher.py: its thread has the only connection.
    yield "celery_argsize", setup.ours, 1


def _worker_results(setup: Setup) -> int | None:
    # Greenlets are threads to threading.local: each task makes a backend of its own, which lasts until it is collected.
    if setup.pool in GREEN and not setup.thread_safe:
        return None
    # backends/base.py, mark_as_failure: the main process writes those of tasks that were lost, revoked or timed out.
    return setup.results(setup.at_once, more=setup.pool in SHARED)


def _child(setup: Setup) -> _Rows:
    if setup.pool != "prefork":
        return
    yield "publishing from tasks", setup.write, setup.pooled(1)
    yield "writing and awaiting results", setup.result, setup.results(1)


def _producer(setup: Setup) -> _Rows:
    yield "publishing", setup.write, setup.pooled(setup.threads)
    # backends/redis.py, on_task_call: outside of tasks, sending subscribes to the result, waited for or not.
    yield "results", setup.result, setup.results(setup.threads)
    yield "celery_argsize, eager runs", setup.ours, int(setup.eager)


def _beat(setup: Setup) -> _Rows:
    if not setup.beat:
        return
    # celery/beat.py, Scheduler.producer: a connection of its own.
    yield "sending what is due", setup.write, CHANNEL
    # on_task_call, as in a producer; Beat itself never asks for a result.
    yield "results", setup.result, 1
    if setup.beat_control:
        # celery/beat.py, BeatPidbox: a connection for LISTEN, and replies through the publishing pool.
        yield "hearing remote control", setup.read, CHANNEL
        yield "replies", setup.write, CHANNEL


def _inspector(setup: Setup) -> _Rows:
    # celery/app/control.py, broadcast: a connection to hear the answers, a producer with another one to ask.
    yield "asking workers", setup.write, 2 * CHANNEL
    # celery argsize doctor: reads the figures as well.
    yield "celery_argsize, reading", setup.ours, 1
