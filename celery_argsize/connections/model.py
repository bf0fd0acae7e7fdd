"""What opens connections to Redis in a Celery cluster, how many, and settings that fit.

Comments name the file of Celery or kombu behind a number. An acceptance test measures
it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Pools whose tasks are greenlets.
GREEN: Final = ("eventlet", "gevent")
#: Pools whose tasks share one process and its connections.
SHARED: Final = ("threads", *GREEN)
#: All pools of Celery.
POOLS: Final = ("prefork", "solo", *SHARED)
#: kombu/transport/redis.py: a channel listens with one connection, and sends commands
#: with one.
CHANNEL: Final = 2
#: The least that works in any pool: ``inspect`` and ``revoke`` hold one connection
#: while they take another, and a result backend has one for pub/sub and one for
#: commands.
LEAST: Final = 2
#: The least ceiling that is advised for a redis-py pool. One that is never reached
#: costs nothing.
ROOMY: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """All of a cluster that its number of connections depends on."""

    workers: int
    concurrency: int
    pool: str
    producers: int
    threads: int
    """Threads that send, in each producer."""
    inspectors: int
    beat: bool
    gossip: bool
    control: bool
    """Whether tasks and producers send remote control, such as ``revoke``."""
    broadcasts: bool
    """Whether workers consume a broadcast queue."""
    beat_enable_remote_control: bool
    worker_enable_remote_control: bool
    broker_pool_limit: int
    """0: no pool."""
    result_backend_thread_safe: bool
    shareable: bool
    """Whether threads of this Celery can share a result backend."""
    read: str | None
    """The Redis that tasks are taken from, as ``host:port``; ``None``: it is no
    Redis."""
    write: str | None
    """The Redis that tasks are sent to."""
    result: str | None
    ours: str | None
    """The Redis with the figures of celery_argsize."""

    @property
    def at_once(self) -> int:
        """Tasks at once in one process."""
        return self.concurrency if self.pool in SHARED else 1

    @property
    def channel_most(self) -> int:
        """Connections that a channel may use at once."""
        # all greenlets of a worker acknowledge through one channel
        return self.concurrency + 2 if self.pool in GREEN else LEAST

    @property
    def backend_most(self) -> int:
        """Connections that a result backend may use at once."""
        users = max(self.at_once, self.threads) if self.result_backend_thread_safe else 1
        return users + 2 if users > 1 else LEAST

    def publishing(self, threads: int, *, more: int = 0) -> int:
        """Connections of a process with *threads* that send, and *more* that send no control."""
        # kombu/pools.py: without a limit, each use opens a connection.
        # celery/app/control.py, broadcast: holds one connection, and sends with
        # another.
        wanted = threads * (1 + self.control) + more
        return CHANNEL * min(wanted, self.broker_pool_limit or wanted)

    def results(self, threads: int, *, more: int = 0) -> int:
        """Connections of a process with *threads* that await results, and *more* that write."""
        # celery/app/base.py, _backend: one for each thread, unless they share one.
        # celery/backends/redis.py, ResultConsumer: one for pub/sub, one for commands.
        return more + (threads + 1 if self.result_backend_thread_safe else 2 * threads)


@dataclass(frozen=True, slots=True)
class ConnectionItem:
    """Connections for one purpose."""

    who: str
    """``worker``, ``pool child``, ``producer``, ``beat`` or ``inspect``."""
    what: str
    """The purpose."""
    server: str
    """The Redis, as ``host:port``."""
    each: int | None
    """Connections at most of one such process; ``None``: any number."""
    times: int
    """Number of such processes."""

    @property
    def most(self) -> int | None:
        """Connections at most of all such processes; ``None``: any number."""
        return None if self.each is None else self.each * self.times


def pool_name(name: str) -> str:
    """The pool's usual name: ``threads`` for ``celery.concurrency.thread:TaskPool``."""
    module = name.partition(":")[0].rpartition(".")[2]
    return {"processes": "prefork", "thread": "threads"}.get(module, module)


def items_of(setup: Setup) -> tuple[ConnectionItem, ...]:
    """All that opens connections to a Redis."""
    children = setup.workers * setup.concurrency * (setup.pool == "prefork")
    control = setup.beat and setup.beat_enable_remote_control
    rows: list[tuple[str, int, str, str | None, int | None]] = [
        *(("worker", setup.workers, *row) for row in _worker(setup)),
        ("pool child", children, "publishing from tasks", setup.write, setup.publishing(1)),
        ("pool child", children, "writing and awaiting results", setup.result, setup.results(1)),
        ("producer", setup.producers, "publishing", setup.write, setup.publishing(setup.threads)),
        # backends/redis.py, on_task_call: sending subscribes to the result, awaited or
        # not.
        ("producer", setup.producers, "results", setup.result, setup.results(setup.threads)),
        # celery/beat.py, Scheduler.producer: a connection of its own.
        ("beat", setup.beat, "sending what is due", setup.write, CHANNEL),
        ("beat", setup.beat, "results", setup.result, 1),
        # celery/beat.py, BeatPidbox: one that listens; replies go through the
        # publishing pool.
        ("beat", control, "hearing remote control", setup.read, CHANNEL),
        ("beat", control, "replies", setup.write, CHANNEL),
        # celery/app/control.py, broadcast: one for the answers, and a producer with
        # another.
        ("inspect", setup.inspectors, "asking workers", setup.write, 2 * CHANNEL),
        ("inspect", setup.inspectors, "celery_argsize, reading", setup.ours, 1),
    ]
    return tuple(
        ConnectionItem(who, what, server, each, int(times))
        for who, times, what, server, each in rows
        if server and times and each != 0
    )


def _worker(setup: Setup) -> list[tuple[str, str | None, int | None]]:
    prefork, shared, green = setup.pool == "prefork", setup.pool in SHARED, setup.pool in GREEN
    # Greenlets acknowledge at the same time (worker/consumer/consumer.py,
    # call_soon_ack).
    greenlets = setup.concurrency if green else 0
    # A greenlet is a thread to threading.local: its backend lasts until Python collects
    # it.
    unbounded = green and not setup.result_backend_thread_safe
    publishing = setup.publishing(setup.at_once, more=shared)
    return [
        # worker/consumer/tasks.py: a channel; one more listens for a kombu Broadcast
        # queue.
        ("taking tasks", setup.read, CHANNEL + setup.broadcasts + greenlets),
        # worker/consumer/gossip.py, worker/pidbox.py, worker/consumer/events.py: a
        # channel each.
        ("gossip", setup.read, CHANNEL * setup.gossip),
        ("hearing remote control", setup.read, CHANNEL * setup.worker_enable_remote_control),
        ("events and heartbeats", setup.write, CHANNEL),
        # kombu/pidbox.py, reply: through the publishing pool, which tasks in this
        # process use too.
        ("replies", setup.write, CHANNEL) if prefork else ("publishing, replies", setup.write, publishing),
        # backends/base.py, mark_as_failure: for tasks that were lost or revoked.
        ("results", setup.result, None if unbounded else setup.results(setup.at_once, more=shared)),
        ("celery_argsize", setup.ours, 1),
    ]


def live_items(setup: Setup, pools: Iterable[tuple[str, int]]) -> tuple[ConnectionItem, ...]:
    """The items with live workers instead: *pools* has the pool and concurrency of each."""
    items = items_of(replace(setup, workers=0))
    alone = replace(setup, workers=1, producers=0, beat=False, inspectors=0)
    for name, concurrency in pools:
        pool = pool_name(name)
        pool = pool if pool in POOLS else setup.pool
        items += items_of(replace(alone, pool=pool, concurrency=concurrency))
    return items


def totals(items: Iterable[ConnectionItem]) -> dict[str, int | None]:
    """Redis → the sum of its connections; ``None``: any number."""
    counts: dict[str, list[int | None]] = defaultdict(list)
    for item in items:
        counts[item.server].append(item.most)
    return {name: None if None in each else sum(filter(None, each)) for name, each in counts.items()}


def fitting(setup: Setup, room: int) -> dict[str, int] | None:
    """Setting → value with which each Redis gets at most *room* connections; ``None``: none do.

    They are those of *setup* if it fits, and else those with the fewest connections.
    ``max_connections`` is an option of ``broker_transport_options``.
    """
    concurrency = min(setup.concurrency, largest_concurrency(setup, room))
    if not concurrency:
        return None
    fitted = setup if _fits(setup, room) else _least(setup, concurrency)
    settings = {"worker_concurrency": fitted.concurrency}
    if fitted.read or fitted.write:
        settings["broker_pool_limit"] = fitted.broker_pool_limit
        settings["max_connections"] = max(ROOMY, fitted.channel_most)
    if fitted.result:
        settings["redis_max_connections"] = max(ROOMY, fitted.backend_most)
    if fitted.result_backend_thread_safe:
        settings["result_backend_thread_safe"] = True
    return settings


def lines_of(settings: Mapping[str, int]) -> list[str]:
    """Lines of Python for *settings*, to paste where ``app`` is configured."""
    lines = {name: f"app.conf.{name} = {value}" for name, value in settings.items()}
    lines["worker_concurrency"] += "  # --concurrency on the command line wins"
    if "max_connections" in settings:
        name = "broker_transport_options"
        options = f'{{**(app.conf.{name} or {{}}), "max_connections": {settings["max_connections"]}}}'
        lines["max_connections"] = f"app.conf.{name} = {options}"
    return [*lines.values()]


def largest_concurrency(setup: Setup, room: int) -> int:
    """The largest concurrency that can fit into *room*; 0: none."""
    most = max(room, setup.concurrency)  # what is in no Redis is not bounded by one
    return bisect_left(range(1, most + 1), x=True, key=lambda n: not _fits(_least(setup, n), room))


def _least(setup: Setup, concurrency: int) -> Setup:
    """*setup* with the settings that need the fewest connections."""
    saves = setup.shareable and (setup.pool in SHARED or setup.threads > 1)
    shared = setup.result_backend_thread_safe or saves
    lean = replace(setup, concurrency=concurrency, result_backend_thread_safe=shared)
    # with fewer, threads that send remote control wait for each other for ever
    users = max(lean.threads, lean.at_once)
    return replace(lean, broker_pool_limit=users + 1 if lean.control else LEAST)


def _fits(setup: Setup, room: int) -> bool:
    return all(count is not None and count <= room for count in totals(items_of(setup)).values())
