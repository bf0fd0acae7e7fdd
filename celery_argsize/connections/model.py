"""What opens Redis connections in a Celery cluster, how many, and settings that fit.

Comments name the file of Celery or kombu that a number is from. An acceptance test
measures all of them.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Pools whose tasks are greenlets.
GREEN: Final = ("eventlet", "gevent")
#: Pools whose tasks run in one process and share its connections.
SHARED: Final = ("threads", *GREEN)
POOLS: Final = ("prefork", "solo", *SHARED)
#: Connections of a kombu channel: one listens, one sends commands
#: (kombu/transport/redis.py).
CHANNEL: Final = 2
#: The least limit of a pool that works: ``inspect`` and ``revoke`` hold one connection
#: while they take another; a result backend has one for pub/sub, one for commands.
LEAST: Final = 2
#: The least limit that is advised for a redis-py pool. A high one costs nothing.
ROOMY: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What the number of connections of a cluster depends on."""

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
    # Redis servers, as ``host:port``; ``None``: it is no Redis
    read: str | None
    """Where tasks are taken from."""
    write: str | None
    """Where tasks are sent to."""
    result: str | None
    ours: str | None
    """Where celery_argsize keeps its figures."""

    @property
    def at_once(self) -> int:
        """Tasks at once in one process."""
        return self.concurrency if self.pool in SHARED else 1

    @property
    def has_threads(self) -> bool:
        """Whether threads or greenlets of one process may wait for results."""
        return self.pool in SHARED or self.threads > 1

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

    def publishing(self, threads: int, *, main: bool = False) -> int:
        """Connections through which *threads* of a process publish; *main*: its main thread too."""
        # kombu/pools.py: without a limit, each use opens a connection.
        # celery/app/control.py, broadcast: holds one, and sends with another.
        wanted = threads * (1 + self.control) + main
        return CHANNEL * min(wanted, self.broker_pool_limit or wanted)

    def results(self, threads: int, *, main: bool = False) -> int:
        """Connections with which *threads* await results; *main*: the main thread writes some."""
        # celery/app/base.py, _backend: one for each thread, unless they share one.
        # celery/backends/redis.py, ResultConsumer: one for pub/sub, one for commands.
        return main + (threads + 1 if self.result_backend_thread_safe else 2 * threads)


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
    """Connections of one such process at most; ``None``: any number."""
    times: int
    """Number of such processes."""

    @property
    def most(self) -> int | None:
        """Connections of all such processes at most; ``None``: any number."""
        return None if self.each is None else self.each * self.times


def pool_name(name: str) -> str:
    """The pool's usual name: ``threads`` for ``celery.concurrency.thread:TaskPool``."""
    module = name.partition(":")[0].rpartition(".")[2]
    return {"processes": "prefork", "thread": "threads"}.get(module, module)


def items_of(setup: Setup) -> tuple[ConnectionItem, ...]:
    """All that opens connections to a Redis."""
    children = setup.workers * setup.concurrency if setup.pool == "prefork" else 0
    control = setup.beat and setup.beat_enable_remote_control
    # who, processes, what, server, connections of one process (None: any number)
    rows: list[tuple[str, int, str, str | None, int | None]] = [
        *(("worker", setup.workers, *row) for row in _worker(setup)),
        ("pool child", children, "publishing from tasks", setup.write, setup.publishing(1)),
        ("pool child", children, "writing and awaiting results", setup.result, setup.results(1)),
        ("producer", setup.producers, "publishing", setup.write, setup.publishing(setup.threads)),
        # celery/backends/redis.py, on_task_call: who sends subscribes to the result.
        ("producer", setup.producers, "results", setup.result, setup.results(setup.threads)),
        # celery/beat.py, Scheduler.producer: a connection of its own.
        ("beat", setup.beat, "sending what is due", setup.write, CHANNEL),
        ("beat", setup.beat, "results", setup.result, 1),
        # celery/beat.py, BeatPidbox: listens; replies go through the publishing pool.
        ("beat", control, "hearing remote control", setup.read, CHANNEL),
        ("beat", control, "replies", setup.write, CHANNEL),
        # celery/app/control.py, broadcast: one for the replies, one for the producer.
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
    # celery/worker/consumer/consumer.py, call_soon_ack: greenlets acknowledge at once.
    greenlets = setup.concurrency if green else 0
    # threading.local gives each greenlet a backend, which
    # lasts until Python collects it.
    unbounded = green and not setup.result_backend_thread_safe
    publishing = setup.publishing(setup.at_once, main=shared)
    return [
        # celery/worker/consumer/tasks.py: one more listens to a kombu Broadcast queue.
        ("taking tasks", setup.read, CHANNEL + setup.broadcasts + greenlets),
        # celery/worker: consumer/gossip.py, pidbox.py, consumer/events.py.
        ("gossip", setup.read, CHANNEL if setup.gossip else 0),
        ("hearing remote control", setup.read, CHANNEL if setup.worker_enable_remote_control else 0),
        ("events and heartbeats", setup.write, CHANNEL),
        # kombu/pidbox.py, reply: through the publishing pool, as tasks in this process.
        ("replies", setup.write, CHANNEL) if prefork else ("publishing, replies", setup.write, publishing),
        # celery/backends/base.py, mark_as_failure: of tasks that were lost or revoked.
        ("results", setup.result, None if unbounded else setup.results(setup.at_once, main=shared)),
        ("celery_argsize", setup.ours, 1),
    ]


def live_items(setup: Setup, pools: Iterable[tuple[str, int]]) -> tuple[ConnectionItem, ...]:
    """The items with other workers: *pools* has the pool and concurrency of each."""
    items = items_of(replace(setup, workers=0))
    alone = replace(setup, workers=1, producers=0, beat=False, inspectors=0)
    for name, concurrency in pools:
        pool = pool_name(name)
        pool = pool if pool in POOLS else setup.pool
        items += items_of(replace(alone, pool=pool, concurrency=concurrency))
    return items


def totals(items: Iterable[ConnectionItem]) -> dict[str, int | None]:
    """Redis → its connections at most; ``None``: any number."""
    sums: dict[str, int | None] = {}
    for item in items:
        count, most = sums.get(item.server, 0), item.most
        sums[item.server] = None if count is None or most is None else count + most
    return sums


def fitting(setup: Setup, room: int) -> dict[str, int] | None:
    """Setting → value with which each Redis gets at most *room* connections; ``None``: none do.

    If *setup* fits, its own; else those that need the fewest connections.
    ``max_connections`` is an option of ``broker_transport_options``.
    """
    concurrency = min(setup.concurrency, largest_concurrency(setup, room))
    if not concurrency:
        return None
    fitted = setup if _fits(setup, room) else _leanest(setup, concurrency)
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
    """Python lines for *settings*, to paste where ``app`` is configured."""
    lines = {name: f"app.conf.{name} = {value}" for name, value in settings.items()}
    lines["worker_concurrency"] += "  # --concurrency on the command line wins"
    if "max_connections" in settings:
        options, most = "app.conf.broker_transport_options", settings["max_connections"]
        lines["max_connections"] = f'{options} = {{**({options} or {{}}), "max_connections": {most}}}'
    return [*lines.values()]


def largest_concurrency(setup: Setup, room: int) -> int:
    """The largest concurrency that can fit into *room*; 0: none."""
    most = max(room, setup.concurrency)  # without a Redis, any concurrency fits
    return bisect_left(range(1, most + 1), x=True, key=lambda n: not _fits(_leanest(setup, n), room))


def _leanest(setup: Setup, concurrency: int) -> Setup:
    """*setup* with settings for the fewest connections."""
    shared = setup.result_backend_thread_safe or (setup.shareable and setup.has_threads)
    lean = replace(setup, concurrency=concurrency, result_backend_thread_safe=shared)
    # with a lower limit, threads that send remote control wait for each other for ever
    users = max(lean.threads, lean.at_once)
    return replace(lean, broker_pool_limit=users + 1 if lean.control else LEAST)


def _fits(setup: Setup, room: int) -> bool:
    return all(count is not None and count <= room for count in totals(items_of(setup)).values())
