"""How many worker nodes does one Redis, or one slot of a Redis Cluster, carry? All keys of an app are in one slot.

Simulated fleets of 100, 1,000 and 10,000 nodes write to one redis-server. The nodes of a fleet run the same tasks. A
flush is what ``RedisStore`` sends after a second in which each task name ran 20 times; of ten names, one has arguments
of up to 200,000 characters, and Celery cut the reprs of the larger ones. Messages come from 4 hosts. Each node has an
id, a numbering and a connection of its own, and has written before. Two processes play all nodes, each in turn, as fast
as Redis takes it; what they send is made before, so that they take little of the machine. Fleets take turns.

- CPU time of a flush: Redis' own (INFO cpu), by the number of flushes.
- Nodes at half a core: how many keep one core half busy when each flushes once a second.
- Memory of a node: MEMORY USAGE of the key that it has of its own, which is forgotten a day after its last flush.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import resource
import socket
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

HERE: Final = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "scripts"))

import redis  # noqa: E402 - from here on, what is ours is found too
import redis_server  # noqa: E402
from harness import Answer, Chart, Claim, ratio, run, spread  # noqa: E402
from redis_cost import MB, RULES, any_size, make_id, make_part  # noqa: E402

from celery_argsize.figures.counters import Book  # noqa: E402
from celery_argsize.measuring.measurement import Measurement  # noqa: E402
from celery_argsize.settings import Settings  # noqa: E402
from celery_argsize.stores.base import Batch  # noqa: E402
from celery_argsize.stores.redis import RedisStore  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Runs of each name in a flush, and hosts that the messages come from.
RUNS: Final = 20
HOSTS: Final = 4
#: Different flushes of a fleet: nodes send them by turns.
FLUSHES: Final = 10
PLAYERS: Final = 2
#: Files that may be open besides the connections.
SPARE: Final = 200
#: How many times as much CPU time a flush may take with the most nodes as with the fewest.
FLAT: Final = 1.1
#: What stands in a request for a node's own, in as many bytes.
WRITER: Final = "node-00000"
SEQUENCE: Final = 100_000_000


class Plan(NamedTuple):
    """How much is measured."""

    nodes: tuple[int, ...]
    rounds: int
    flushes: int
    """Of each fleet in a round, at least: all rounds together are one flush of each node or more."""
    compared: tuple[int, ...] = (5, 50)
    """Task names in a flush: fleets of all sizes have these."""
    others: tuple[int, ...] = (1, 10, 100)
    """The same, for the smallest fleet only."""


FULL: Final = Plan(nodes=(100, 1_000, 10_000), rounds=5, flushes=500)
SMOKE: Final = Plan(nodes=(2, 5, 20), rounds=1, flushes=5, compared=(1, 2), others=(3,))


class Recorder:
    """In the place of a client: notes what a store sends."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def register_script(self, text: str) -> Callable[..., int]:
        """Something to call with ``keys`` and ``args``."""
        name = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - Redis names them so

        def call(keys: Sequence[str], args: Sequence[Any]) -> int:
            connection: Any = redis.Connection  # which has no types
            self.sent.append(b"".join(connection().pack_command("EVALSHA", name, len(keys), *keys, *args)))
            return 1

        return call

    def sadd(self, *_: str) -> None:
        """The list of apps, which is written once."""


class Fleet:
    """Nodes of one app, and what they send."""

    def __init__(self, url: str, nodes: int, batches: Sequence[Batch]) -> None:
        self.nodes = nodes
        self.names = len(batches[0].tasks)
        self.flushed = 0
        settings = Settings(redis_url=url, app_name=f"{nodes} of {self.names}")
        self.base = settings.base
        recorder: Any = Recorder()
        for batch in (Batch(WRITER, SEQUENCE, {}), *batches):
            RedisStore(settings, recorder).apply(batch)
        self._first, *self._others = recorder.sent
        with closing(RedisStore(settings)) as store:  # so that the script is known, and keys and maxima are there
            for batch in batches:
                store.apply(replace(batch, writer=str(time.monotonic_ns())))

    def request(self, number: int) -> tuple[int, bytes]:
        """The flush *number* of the fleet: the node, and what it sends. Its first one says only that it is there."""
        node = number % self.nodes
        request = self._first if number < self.nodes else self._others[number % len(self._others)]
        for placeholder, own in ((WRITER, f"node-{node:05}"), (SEQUENCE, SEQUENCE + 1 + number)):
            request = request.replace(str(placeholder).encode(), str(own).encode(), 1)
        return node, request

    def flush(self, connections: Sequence[socket.socket], count: int) -> None:
        """Have the next *count* flushes written."""
        numbers = range(self.flushed, self.flushed + count)
        self.flushed += count
        turns = [[number for number in numbers if number % self.nodes % PLAYERS == at] for at in range(PLAYERS)]
        fork = multiprocessing.get_context("fork")  # they inherit the connections
        players = [fork.Process(target=self._play, args=(connections, turn)) for turn in turns]
        try:
            for player in players:
                player.start()
            for player in players:
                player.join()
        finally:
            for player in players:
                if player.is_alive():
                    player.kill()
        if any(player.exitcode for player in players):
            message = "a flush was refused"
            raise RuntimeError(message)

    def _play(self, connections: Sequence[socket.socket], numbers: Sequence[int]) -> None:
        for number in numbers:
            node, request = self.request(number)
            connection = connections[node % len(connections)]
            connection.sendall(request)
            if (reply := connection.recv(1024)) != b":1\r\n":
                raise RuntimeError(reply)


def batches(names: int) -> list[Batch]:
    """What nodes send after a second of work."""
    rng = random.Random(names)
    return [
        Batch(WRITER, SEQUENCE, book.tasks, book.origins.take()) for book in (work(names, rng) for _ in range(FLUSHES))
    ]


def work(names: int, rng: random.Random) -> Book:
    """A second of it."""
    book = Book(names)
    for name in range(names):
        for _ in range(RUNS):
            chars = any_size(rng) if name % 10 == 9 else min(900, int(rng.lognormvariate(5, 1)))
            args, kwargs = make_part(rng, chars, cut=True), make_part(rng, rng.randrange(2, 100), cut=True)
            host = f"web-{rng.randrange(HOSTS)}"
            book.add(Measurement(f"music.tasks.task_{name}", make_id(rng), args, kwargs, time.time(), host), RULES)
    return book


@contextmanager
def connected(url: str, number: int) -> Iterator[list[socket.socket]]:
    """So many connections, or fewer where a process may not open as many."""
    place = urlsplit(url)
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection((place.hostname, place.port), timeout=30.0))
            for _ in range(number)
        ]


def open_files(wanted: int) -> int:
    """How many files this process and those it starts may have open: *wanted*, or what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(soft, most)


def used(client: redis.Redis) -> float:
    """Seconds of CPU time that the server has used."""
    info: Any = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def of_connections(client: redis.Redis) -> int:
    """Bytes that they take there."""
    info: Any = client.info("memory")
    return int(info["mem_clients_normal"])


def of_nodes(client: redis.Redis, fleet: Fleet) -> float:
    """Bytes that one of them takes there."""
    pipeline = client.pipeline(transaction=False)
    for node in range(fleet.nodes):
        pipeline.memory_usage(f"{fleet.base}writer:node-{node:05}", samples=0)
    return float(statistics.mean(pipeline.execute()))


class Found(NamedTuple):
    """What was measured of one fleet."""

    fleet: Fleet
    cpu: list[float]
    """Seconds of a flush, by round."""
    memory: float
    """Bytes of a node."""

    @property
    def at_half(self) -> float:
        """Nodes at half a core."""
        return 0.5 / statistics.median(self.cpu)

    @property
    def cells(self) -> list[str]:
        """A row of the table."""
        fleet = [f"{self.fleet.nodes:,}", str(self.fleet.names)]
        return [*fleet, spread(self.cpu, 1e6), f"{self.at_half:,.0f}", f"{self.memory:,.0f}"]


def measure(
    client: redis.Redis, fleets: Sequence[Fleet], connections: Sequence[socket.socket], plan: Plan
) -> list[Found]:
    """Have all fleets write, by turns."""
    found = []
    for fleet in fleets:
        fleet.flush(connections, fleet.nodes)
        found.append(Found(fleet, [], of_nodes(client, fleet)))
    for _ in range(plan.rounds):
        for fleet, cpu, _ in found:
            count = max(plan.flushes, fleet.nodes // plan.rounds)
            before = used(client)
            fleet.flush(connections, count)
            cpu.append((used(client) - before) / count)
    return found


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - as the harness calls it
    """Measure."""
    plan = SMOKE if smoke else FULL
    number = min(plan.nodes[-1], open_files(plan.nodes[-1] + SPARE) - SPARE)
    made = {names: batches(names) for names in (*plan.compared, *plan.others)}
    sizes = [(nodes, names) for names in plan.compared for nodes in plan.nodes]
    sizes += [(plan.nodes[0], names) for names in plan.others]
    with tempfile.TemporaryDirectory() as folder, redis_server.run(Path(folder)) as url:
        client: Any = redis.Redis.from_url(url)
        client.config_set("maxclients", number + SPARE)
        fleets = [Fleet(url, nodes, made[names]) for nodes, names in sizes]
        with connected(url, number) as connections:
            idle = of_connections(client)
            found = measure(client, fleets, connections, plan)
            busy = of_connections(client)
        version = client.info("server")["redis_version"]
        client.close()
    by_size = dict(zip(sizes, found, strict=True))
    small, large = plan.nodes[0], plan.nodes[-1]
    return Answer(
        title="How many worker nodes does one Redis carry?",
        head=[
            "nodes",
            "task names in a flush",
            "CPU of a flush, µs",
            "nodes at half a core",
            "memory of a node, bytes",
        ],
        rows=[one.cells for one in found],
        claims=[
            Claim(
                f"CPU of a flush of {names} names, {large:,} nodes by {small:,}",
                ratio(by_size[large, names].cpu, by_size[small, names].cpu),
                FLAT,
            )
            for names in plan.compared
        ],
        chart=Chart(
            title="One core of Redis, when each node flushes once a second",
            x="worker nodes",
            y="cores",
            series={
                f"{names} task names": [
                    (nodes, nodes * statistics.median(by_size[nodes, names].cpu)) for nodes in plan.nodes
                ]
                for names in plan.compared
            },
            log="xy",
            limit=0.5,
        ),
        notes=[
            f"Redis {version}; {RUNS} runs of each name in a flush, messages of {HOSTS} hosts.",
            f"{number:,} connections took {idle / MB:.0f} MB in Redis when new, {busy / MB:.0f} MB at the end.",
        ],
        versions=["redis"],
    )


if __name__ == "__main__":
    sys.exit(run(answer))
