"""How many workers can one Redis serve? In a cluster this is one slot, as all keys of an app share a slot.

Simulated fleets of 100, 1,000 and 10,000 workers (nodes) write to one redis-server. All nodes of a fleet run the same
tasks. A flush is what ``RedisStore`` sends after a second in which each task name ran 20 times. One name in ten has
arguments of up to 200,000 characters, and Celery cut the reprs of the larger ones. Messages come from 4 hosts. Each
node has an id, batch numbers and a connection of its own, and has written before.

Two processes play all nodes in turn, as fast as Redis answers. What they send is made beforehand, so that they take
little CPU time themselves. Fleets take turns.

- CPU time of a flush: the CPU time of Redis (INFO cpu) divided by the number of flushes.
- Nodes at half a core: how many nodes keep one core half busy if each flushes once a second.
- Memory of a node: MEMORY USAGE of the node's own key, which expires a day after its last flush.
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

import redis  # noqa: E402 - the folders of our own modules are on sys.path only from here on
import redis_server  # noqa: E402
from harness import Answer, Chart, Claim, ratio, run, spread  # noqa: E402
from redis_cost import MB, RULES, any_size, make_id, make_part  # noqa: E402

from celery_argsize.figures.counters import Tally  # noqa: E402
from celery_argsize.measuring.measurement import Measurement  # noqa: E402
from celery_argsize.settings import Settings  # noqa: E402
from celery_argsize.stores.base import Batch  # noqa: E402
from celery_argsize.stores.redis import RedisStore  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Runs of each task name in a flush, and number of hosts that the messages come from.
RUNS: Final = 20
HOSTS: Final = 4
#: Number of different flushes of a fleet. Nodes send them in turn.
FLUSHES: Final = 10
#: Processes that play the nodes.
PLAYERS: Final = 2
#: Files that may be open besides the connections.
SPARE: Final = 200
#: Target: CPU time of a flush with the most nodes, compared with the fewest.
FLAT: Final = 1.1
#: Placeholders in a request for the id and the batch number of a node. The real values have the same length.
WRITER: Final = "node-00000"
SEQUENCE: Final = 100_000_000


class Plan(NamedTuple):
    """How much is measured."""

    nodes: tuple[int, ...]
    rounds: int
    flushes: int
    """Least number of flushes of a fleet in a round. Over all rounds, each node flushes at least once."""
    compared: tuple[int, ...] = (5, 50)
    """Task names in a flush: measured with fleets of all sizes."""
    others: tuple[int, ...] = (1, 10, 100)
    """Task names in a flush: measured with the smallest fleet only."""


FULL: Final = Plan(nodes=(100, 1_000, 10_000), rounds=5, flushes=500)
SMOKE: Final = Plan(nodes=(2, 5, 20), rounds=1, flushes=5, compared=(1, 2), others=(3,))


class Recorder:
    """Stands in for a Redis client and records what a store sends."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def register_script(self, text: str) -> Callable[..., int]:
        """A function with the parameters ``keys`` and ``args`` that records the call of the script."""
        name = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - Redis identifies scripts by their SHA-1

        def call(keys: Sequence[str], args: Sequence[Any]) -> int:
            connection: Any = redis.Connection  # redis-py gives no types for it
            self.sent.append(b"".join(connection().pack_command("EVALSHA", name, len(keys), *keys, *args)))
            return 1

        return call

    def sadd(self, *_: str) -> None:
        """Ignored: the list of apps is written only once in the life of a worker."""


class Fleet:
    """The nodes of one app, and the requests that they send."""

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
        with closing(RedisStore(settings)) as store:  # load the script, and create keys and maxima
            for batch in batches:
                store.apply(replace(batch, writer=str(time.monotonic_ns())))

    def request(self, number: int) -> tuple[int, bytes]:
        """The node that sends the flush *number* of the fleet, and the request. The first flush of a node is empty."""
        node = number % self.nodes
        request = self._first if number < self.nodes else self._others[number % len(self._others)]
        for placeholder, own in ((WRITER, f"node-{node:05}"), (SEQUENCE, SEQUENCE + 1 + number)):
            request = request.replace(str(placeholder).encode(), str(own).encode(), 1)
        return node, request

    def flush(self, connections: Sequence[socket.socket], count: int) -> None:
        """Send the next *count* flushes of the fleet, and wait until Redis has answered all."""
        numbers = range(self.flushed, self.flushed + count)
        self.flushed += count
        turns = [[number for number in numbers if number % self.nodes % PLAYERS == at] for at in range(PLAYERS)]
        fork = multiprocessing.get_context("fork")  # the players inherit the connections
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
    """Different batches for a flush of *names* task names."""
    rng = random.Random(names)
    return [
        Batch(WRITER, SEQUENCE, tally.tasks, tally.origins.take())
        for tally in (work(names, rng) for _ in range(FLUSHES))
    ]


def work(names: int, rng: random.Random) -> Tally:
    """What a node counts in one second."""
    tally = Tally(names)
    for name in range(names):
        for _ in range(RUNS):
            chars = any_size(rng) if name % 10 == 9 else min(900, int(rng.lognormvariate(5, 1)))
            args, kwargs = make_part(rng, chars, cut=True), make_part(rng, rng.randrange(2, 100), cut=True)
            host = f"web-{rng.randrange(HOSTS)}"
            tally.add(Measurement(f"music.tasks.task_{name}", make_id(rng), args, kwargs, time.time(), host), RULES)
    return tally


@contextmanager
def connected(url: str, number: int) -> Iterator[list[socket.socket]]:
    """Open *number* connections to the Redis at *url*, and close them at the end."""
    server = urlsplit(url)
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection((server.hostname, server.port), timeout=30.0))
            for _ in range(number)
        ]


def open_files(wanted: int) -> int:
    """Raise the limit on open files to *wanted*, or as far as the system allows. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(soft, most)


def used(client: redis.Redis) -> float:
    """Seconds of CPU time that the server has used since its start."""
    info: Any = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


def of_connections(client: redis.Redis) -> int:
    """Bytes that all client connections take in Redis."""
    info: Any = client.info("memory")
    return int(info["mem_clients_normal"])


def of_nodes(client: redis.Redis, fleet: Fleet) -> float:
    """Bytes that the own key of a node takes in Redis, on average."""
    pipeline = client.pipeline(transaction=False)
    for node in range(fleet.nodes):
        pipeline.memory_usage(f"{fleet.base}writer:node-{node:05}", samples=0)
    return float(statistics.mean(pipeline.execute()))


class Measured(NamedTuple):
    """The figures of one fleet."""

    fleet: Fleet
    cpu: list[float]
    """CPU seconds of a flush in each round."""
    memory: float
    """Bytes of a node's own key."""

    @property
    def at_half(self) -> float:
        """Number of nodes that keep one core half busy."""
        return 0.5 / statistics.median(self.cpu)

    @property
    def cells(self) -> list[str]:
        """The row of the table."""
        fleet = [f"{self.fleet.nodes:,}", str(self.fleet.names)]
        return [*fleet, spread(self.cpu, 1e6), f"{self.at_half:,.0f}", f"{self.memory:,.0f}"]


def measure(
    client: redis.Redis, fleets: Sequence[Fleet], connections: Sequence[socket.socket], plan: Plan
) -> list[Measured]:
    """Let all fleets write in turns."""
    figures = []
    for fleet in fleets:
        fleet.flush(connections, fleet.nodes)
        figures.append(Measured(fleet, [], of_nodes(client, fleet)))
    for _ in range(plan.rounds):
        for fleet, cpu, _ in figures:
            count = max(plan.flushes, fleet.nodes // plan.rounds)
            before = used(client)
            fleet.flush(connections, count)
            cpu.append((used(client) - before) / count)
    return figures


def answer(smoke: bool) -> Answer:  # noqa: FBT001 - harness.run calls it with one argument
    """Measure all fleets, and compare them."""
    plan = SMOKE if smoke else FULL
    number = min(plan.nodes[-1], open_files(plan.nodes[-1] + SPARE) - SPARE)
    flushes = {names: batches(names) for names in (*plan.compared, *plan.others)}
    sizes = [(nodes, names) for names in plan.compared for nodes in plan.nodes]
    sizes += [(plan.nodes[0], names) for names in plan.others]
    with tempfile.TemporaryDirectory() as folder, redis_server.run(Path(folder)) as url:
        client: Any = redis.Redis.from_url(url)
        client.config_set("maxclients", number + SPARE)
        fleets = [Fleet(url, nodes, flushes[names]) for nodes, names in sizes]
        with connected(url, number) as connections:
            idle = of_connections(client)
            figures = measure(client, fleets, connections, plan)
            busy = of_connections(client)
        version = client.info("server")["redis_version"]
        client.close()
    by_size = dict(zip(sizes, figures, strict=True))
    small, large = plan.nodes[0], plan.nodes[-1]
    return Answer(
        title="How many workers can one Redis serve?",
        head=[
            "nodes",
            "task names in a flush",
            "CPU of a flush, µs",
            "nodes at half a core",
            "memory of a node, bytes",
        ],
        rows=[measured.cells for measured in figures],
        claims=[
            Claim(
                f"CPU of a flush of {names} names, {large:,} nodes compared with {small:,}",
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
            f"Redis {version}. A flush has {RUNS} runs of each name, with messages from {HOSTS} hosts.",
            f"{number:,} connections took {idle / MB:.0f} MB in Redis at first, and {busy / MB:.0f} MB at the end.",
        ],
        versions=["redis"],
    )


if __name__ == "__main__":
    sys.exit(run(answer))
