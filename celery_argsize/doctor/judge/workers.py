"""The checks of the group workers: concurrency, memory, and tasks that only some workers know.

``answering`` and ``queues`` have a module each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.doctor.app import number, queue_of, setting
from celery_argsize.doctor.checks import Check, ok, warn
from celery_argsize.doctor.facts import GET_PSUTIL, NO_PSUTIL, Unavailable
from celery_argsize.doctor.judge.answering import answering, some_of
from celery_argsize.doctor.judge.queues import queues
from celery_argsize.doctor.judge.setting_values import memory_line, memory_options
from celery_argsize.words import counted, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import CeleryProcess, Facts, Node

#: Prefork children for each CPU that are still fine. Celery's default is one; tasks that wait bear a few more. Beyond,
#: they take the CPU from each other, and from the main process, whose heartbeats then come late.
CHILDREN_PER_CPU: Final = 4
#: Prefork children that are fine on any machine.
CHILDREN_ALWAYS: Final = 8
#: Bytes in a KiB, which Celery counts worker_max_memory_per_child in.
KIB: Final = 1024


def _concurrency(facts: Facts) -> Outcome:
    nodes, host = facts.workers.get().live(), facts.host.get()
    here = [node for node in nodes if node.hostname == host.hostname]
    children = sum(node.concurrency for node in here if node.pool == "prefork")
    shown = ", ".join(f"{node.pool} {node.concurrency}" for node in (here or nodes)[:8])
    if not here:
        return ok("All workers run on other machines.", shown)
    figure = f"{children} prefork {'child' if children == 1 else 'children'} for {counted(host.cpus, 'CPU')}"
    if children <= max(CHILDREN_PER_CPU * host.cpus, CHILDREN_ALWAYS):
        return ok("The CPUs bear that.", figure if children else shown)
    each = max(1, host.cpus // len(here))
    whose = "the worker" if len(here) == 1 else f"each of the {len(here)} workers"
    return warn(
        "They take the CPU from each other, and from the heartbeats of their main processes (“missed heartbeat”), and "
        "each costs its memory. Tasks that only wait are cheaper with -P threads or -P gevent.",
        figure,
        fix=f"# for {whose} here, or -c {each}:\n{setting(facts.app, 'worker_concurrency', each)}",
    )


# --- memory


class _Pool(NamedTuple):
    """The processes of one node on this machine."""

    node: Node
    main: CeleryProcess
    children: tuple[CeleryProcess, ...]

    @property
    def biggest(self) -> int:
        """Bytes of the biggest process that runs tasks."""
        return max((child.rss for child in self.children), default=self.main.rss)

    @property
    def grown(self) -> int:
        """Bytes of all, were each child as big as the biggest. What they share with the main process counts once."""
        if not self.children:
            return self.main.rss
        return self.main.rss + max(0, self.biggest - self.main.rss) * self.node.concurrency


def _memory(facts: Facts) -> list[Outcome]:
    pools = _local_pools(facts)
    local = {pool.node.name for pool in pools}
    remote = [node for node in facts.workers.get().nodes if node.name not in local]
    return [*_together(facts, pools), *_over_limit(facts, pools), *map(_remote_memory, remote)]


def _local_pools(facts: Facts) -> list[_Pool]:
    """The answering nodes of this machine.

    Raises:
        Unavailable: no worker answers, or processes cannot be seen.
    """
    nodes, host = facts.workers.get().live(), facts.host.get()
    if host.psutil_missing:
        message = f"{NO_PSUTIL}: {GET_PSUTIL}"
        raise Unavailable(message)
    pools = []
    for node in nodes:
        main = host.process(node.pid)
        if main is not None and node.hostname == host.hostname:
            children = [process for process in host.processes if process.pid in node.processes]
            pools.append(_Pool(node, main, tuple(child for child in children if child.ppid == main.pid)))
    return pools


def _together(facts: Facts, pools: list[_Pool]) -> Iterator[Outcome]:
    """Whether all fit, were each child as big as the biggest of its pool."""
    limit = facts.host.get().memory_limit
    if not pools or limit is None:
        return
    biggest = max(pools, key=lambda pool: pool.biggest)
    grown = sum(pool.grown for pool in pools)
    count = sum(len(pool.children) or 1 for pool in pools)
    processes = "1 process" if count == 1 else f"{count} processes"
    figure = f"{processes}, the biggest {size(biggest.biggest)}; the memory here: {size(limit)}"
    if grown <= limit:
        yield ok("They fit, were each as big as the biggest.", figure)
        return
    # a limit with which all take half of the memory, but never less than twice the main process
    room = (limit // 2 - sum(pool.main.rss for pool in pools)) // max(1, sum(pool.node.concurrency for pool in pools))
    most = max(room + biggest.main.rss, biggest.main.rss * 2) // KIB
    memory = setting(facts.app, "worker_max_memory_per_child", most)
    concurrency = setting(facts.app, "worker_concurrency", max(1, biggest.node.concurrency // 2))
    yield warn(
        f"Were each child as big as the biggest, they would take {size(grown)}: more than there is, and the kernel "
        "kills one (SIGKILL, WorkerLostError).",
        figure,
        fix=f"# replace children that grow (in KiB: 512000 is 500 MB), and run fewer:\n{memory}\n{concurrency}",
    )


def _over_limit(facts: Facts, pools: list[_Pool]) -> Iterator[Outcome]:
    """Pools whose smallest child is over the limit at which it is replaced, so that all are, after every task."""
    options = memory_options(facts)
    for pool in pools:
        name = pool.node.name
        limit = int(options.get(name) or number(facts.conf.worker_max_memory_per_child) or 0)
        smallest = min((child.rss for child in pool.children), default=0)
        if limit and smallest > limit * KIB:
            line = memory_line(facts, 2 * smallest // KIB, name if name in options else "")
            yield warn(
                "Every child is over worker_max_memory_per_child from the start: each is replaced after every task.",
                f"the smallest takes {size(smallest)}, the limit is {size(limit * KIB)}",
                fix=f"# in KiB; leave room for what tasks need:\n{line}",
                subject=name,
            )


def _remote_memory(node: Node) -> Outcome:
    usage = node.stats.get("rusage")
    most = usage.get("maxrss") if isinstance(usage, dict) else None
    # in KiB, but on macOS, which cannot be told from here
    figure = f"main process: {size(most * KIB)} at most so far" if isinstance(most, int) else ""
    return ok("It is not on this machine: its children are not seen here.", figure, subject=node.name)


# --- tasks


def _registered(facts: Facts) -> list[Outcome]:
    nodes = [node for node in facts.workers.get().live() if node.registered is not None]
    own_queue = setting(facts.app, "task_default_queue", "a_name_of_its_own")
    outcomes = []
    for node in nodes:
        queue, names = _lacking(facts, node, nodes)
        if names:
            outcomes.append(
                warn(
                    "Other workers on this queue know tasks that this one does not. It throws such messages away "
                    "(“Received unregistered task”): they run different versions, or different apps share the queue.",
                    f"{len(names)} unknown on queue {queue}: {some_of(names)}",
                    fix=f"# deploy the same code to all, or give each app a queue of its own:\n{own_queue}",
                    subject=node.name,
                )
            )
    return outcomes or [ok("Workers that share a queue know the same tasks.", f"{len(nodes)} asked")]


def _lacking(facts: Facts, node: Node, nodes: Sequence[Node]) -> tuple[str, list[str]]:
    """A queue of *node*, and the tasks sent there that others on it know and *node* does not; mostly none."""
    for queue in node.queues:
        others = {name for other in nodes if queue in other.queues for name in other.registered or ()}
        names = sorted(others - set(node.registered or ()))
        # where tasks of another app are sent is not known
        names = [name for name in names if name not in facts.app.tasks or queue_of(facts.app, name) == queue]
        if names:
            return queue, names
    return "", []


CHECKS: Final[tuple[Check, ...]] = (
    Check("workers.answering", "who answers a ping, who does not, and heartbeats", answering, vital=True),
    Check("workers.concurrency", "children of prefork pools against the CPUs here", _concurrency),
    Check("workers.memory", "memory of the workers' processes against what there is", _memory),
    Check("workers.queues", "queues that are sent to, and who consumes them", queues),
    Check("workers.registered", "the tasks of workers that share a queue", _registered),
)
