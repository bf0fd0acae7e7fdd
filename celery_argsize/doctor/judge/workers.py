"""The checks of the group workers, with the judges of concurrency, memory and tasks. The others have their modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.doctor.app import number, queue_of, setting
from celery_argsize.doctor.checks import Check, ok, warn
from celery_argsize.doctor.facts import GET_PSUTIL, NO_PSUTIL, Unavailable
from celery_argsize.doctor.judge.answering import answering, some_of
from celery_argsize.doctor.judge.host import less_memory
from celery_argsize.doctor.judge.queues import queues
from celery_argsize.doctor.judge.settings import memory_line, memory_options
from celery_argsize.words import counted, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts, Node

#: Prefork children for each CPU that are fine, and in all. Celery's default is one each; tasks that wait bear more.
CHILDREN_PER_CPU: Final = 4
CHILDREN_ALWAYS: Final = 8


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
    reason = (
        "They take the CPU from each other, and from the heartbeats of their main processes (“missed heartbeat”). "
        "Tasks that only wait are cheaper with -P threads or -P gevent."
    )
    line = setting(facts.app, "worker_concurrency", each)
    return warn(reason, figure, fix=f"# for each of {counted(len(here), 'worker')} here, or -c {each}:\n{line}")


class _Pool(NamedTuple):
    """What the processes of one node on this machine hold, in bytes."""

    node: Node
    main: int
    children: tuple[int, ...]

    @property
    def biggest(self) -> int:
        """The biggest process that runs tasks."""
        return max(self.children, default=self.main)

    @property
    def grown(self) -> int:
        """All, were each child as big as the biggest. What they share with the main process counts once."""
        return self.main + max(0, self.biggest - self.main) * self.node.concurrency


def _memory(facts: Facts) -> list[Outcome]:
    nodes, host = facts.workers.get().live(), facts.host.get()
    if host.psutil_missing:
        raise Unavailable(f"{NO_PSUTIL}: {GET_PSUTIL}")  # noqa: EM102, TRY003
    pools, remote = [], []
    for node in nodes:
        main = host.process(node.pid) if node.hostname == host.hostname else None
        if main is None:
            remote.append(ok("It is not on this machine: its memory is not seen here.", subject=node.name))
            continue
        children = [process for process in host.processes if process.pid in node.processes]
        own = tuple(child.rss for child in children if child.ppid == main.pid)
        pools.append(_Pool(node, main.rss, own))
    return [*_together(facts, pools), *_over_limit(facts, pools), *remote]


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
    reason = f"Were each as big as the biggest, they would take {size(grown)}, and the kernel kills one (SIGKILL)."
    # so that all take half of the memory; but never less than twice the main process
    room = limit // 2 - sum(pool.main for pool in pools)
    each = room // max(1, sum(pool.node.concurrency for pool in pools))
    kib = max(each + biggest.main, 2 * biggest.main) >> 10
    yield warn(reason, figure, fix=less_memory(facts, max(1, biggest.node.concurrency // 2), kib))


def _over_limit(facts: Facts, pools: list[_Pool]) -> Iterator[Outcome]:
    """Pools whose smallest child is over the limit, so that each child is replaced after every task."""
    options = memory_options(facts)
    for pool in pools:
        name, smallest = pool.node.name, min(pool.children, default=0)
        limit = int(options.get(name) or number(facts.conf.worker_max_memory_per_child) or 0) << 10  # it is in KiB
        if 0 < limit < smallest:
            reason = "Every child is over worker_max_memory_per_child: each is replaced after every task."
            figure = f"the smallest takes {size(smallest)}, the limit is {size(limit)}"
            line = memory_line(facts, smallest >> 9, name if name in options else "")
            yield warn(reason, figure, fix=f"# leave room for what tasks need:\n{line}", subject=name)


def _registered(facts: Facts) -> list[Outcome]:
    nodes = [node for node in facts.workers.get().live() if node.registered is not None]
    line = setting(facts.app, "task_default_queue", "a_name_of_its_own")
    outcomes = []
    for node in nodes:
        for queue in node.queues:
            others = {name for other in nodes if queue in other.queues for name in other.registered or ()}
            lacking = sorted(others - {*(node.registered or ())})
            # where tasks of another app are sent is not known
            names = [name for name in lacking if queue_of(facts.app, name) == queue or name not in facts.app.tasks]
            if names:
                reason = (
                    "Other workers on this queue know tasks that this one throws away (“Received unregistered task”): "
                    "they run different versions, or different apps share the queue."
                )
                figure = f"{len(names)} unknown on queue {queue}: {some_of(names)}"
                fix = f"# deploy the same code to all, or give each app a queue of its own:\n{line}"
                outcomes.append(warn(reason, figure, fix=fix, subject=node.name))
                break
    return outcomes or [ok("Workers that share a queue know the same tasks.", f"{len(nodes)} asked")]


CHECKS: Final[tuple[Check, ...]] = (
    Check("workers.answering", "who answers a ping, who does not, and heartbeats", answering, vital=True),
    Check("workers.concurrency", "children of prefork pools against the CPUs here", _concurrency),
    Check("workers.memory", "memory of the workers' processes against what there is", _memory),
    Check("workers.queues", "queues that are sent to, and who consumes them", queues),
    Check("workers.registered", "the tasks of workers that share a queue", _registered),
)
