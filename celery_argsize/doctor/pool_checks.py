"""The checks of the workers' pools on this machine: how many processes, their memory, and those replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from celery_argsize.doctor.checks import Check, NotKnown, counted, ok, warn
from celery_argsize.doctor.host_facts import GET_PSUTIL, NO_PSUTIL
from celery_argsize.doctor.setting_values import memory_line, memory_options, number
from celery_argsize.doctor.spelling import setting

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts
    from celery_argsize.doctor.host_facts import CeleryProcess
    from celery_argsize.doctor.worker_facts import Node

__all__ = ["POOL_CHECKS"]

#: Pool processes for each CPU from which on they take the CPU from each other, and from the main process's heartbeats.
#: Celery's default is one for each; tasks that wait for a network bear a few more.
CHILDREN_PER_CPU: Final = 4
#: As many are always well.
CHILDREN_ALWAYS: Final = 8
#: Seconds by which a child is younger than the oldest for it to be a later one.
REPLACED_SECONDS: Final = 5.0
#: Seconds after its start (which is told in whole ones) in which a worker has forked its children.
FORKED_SECONDS: Final = 2.0
#: Bytes in the KiB that Celery counts worker_max_memory_per_child in.
KIB: Final = 1024


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
        """Bytes that all take, were each child as big as the biggest; what they share with the main process once."""
        own = max(0, self.biggest - self.main.rss)
        return self.main.rss + own * self.node.concurrency * bool(self.children)


def _local_pools(facts: Facts) -> list[_Pool]:
    """The answering nodes of this machine.

    Raises:
        NotKnown: no worker answers, or processes cannot be seen.
    """
    nodes, host = facts.workers.get().live(), facts.host.get()
    if host.psutil_missing:
        message = f"{NO_PSUTIL}: {GET_PSUTIL}"
        raise NotKnown(message)
    processes = {process.pid: process for process in host.processes}
    return [
        _Pool(node, main, tuple(processes[pid] for pid in node.processes if _is_child(processes.get(pid), main)))
        for node in nodes
        if node.hostname == host.hostname and (main := processes.get(node.pid)) is not None
    ]


def _is_child(process: CeleryProcess | None, main: CeleryProcess) -> bool:
    return process is not None and process.ppid == main.pid


def _mib(size: float) -> str:
    return f"{size / KIB / KIB:,.0f} MiB"


# --- how many


def _concurrency(facts: Facts) -> Outcome:
    nodes, host = facts.workers.get().live(), facts.host.get()
    here = [node for node in nodes if node.hostname == host.hostname]
    children = sum(node.concurrency for node in here if node.pool == "prefork")
    shown = ", ".join(f"{node.pool} {node.concurrency}" for node in (here or nodes)[:8])
    if not here:
        return ok("All workers run on other machines.", shown)
    most = max(CHILDREN_PER_CPU * host.cpus, CHILDREN_ALWAYS)
    figure = f"{children} prefork {'child' if children == 1 else 'children'} for {counted(host.cpus, 'CPU')}"
    if children <= most:
        return ok("The CPUs bear that.", figure if children else shown)
    each = max(1, host.cpus // len(here))
    return warn(
        "They take the CPU from each other, and from the heartbeats of their main processes (“missed heartbeat”), and "
        "each costs its memory. Tasks that only wait are cheaper with -P threads or -P gevent.",
        figure,
        fix=f"# for {'the worker' if len(here) == 1 else f'each of the {len(here)} workers'} here, or -c {each}:\n"
        + setting(facts.app, "worker_concurrency", each),
    )


# --- how large


def _memory(facts: Facts) -> list[Outcome]:
    pools = _local_pools(facts)
    local = {pool.node.name for pool in pools}
    remote = [node for node in facts.workers.get().nodes if node.name not in local]
    return [*_together(facts, pools), *_over_limit(facts, pools), *map(_remote_memory, remote)]


def _together(facts: Facts, pools: list[_Pool]) -> list[Outcome]:
    """Whether all fit, were each child as big as its biggest sibling."""
    limit = facts.host.get().memory_limit
    if not pools or limit is None:
        return []
    biggest = max(pools, key=lambda pool: pool.biggest)
    grown = sum(pool.grown for pool in pools)
    count = sum(len(pool.children) or 1 for pool in pools)
    processes = f"{count} process{'' if count == 1 else 'es'}"
    figure = f"{processes}, the biggest {_mib(biggest.biggest)}; the memory here: {_mib(limit)}"
    if grown <= limit:
        return [ok("They fit, were each as big as the biggest.", figure)]
    room = (limit // 2 - sum(pool.main.rss for pool in pools)) // max(1, sum(pool.node.concurrency for pool in pools))
    most = max(room + biggest.main.rss, biggest.main.rss * 2) // KIB
    return [
        warn(
            f"Were each child as big as the biggest, they would take {_mib(grown)}: more than there is, and the kernel "
            "kills one (SIGKILL, WorkerLostError).",
            figure,
            fix="# replace children that grow (in KiB: 512000 is 500 MB), and run fewer:\n"
            + setting(facts.app, "worker_max_memory_per_child", most)
            + "\n"
            + setting(facts.app, "worker_concurrency", max(1, biggest.node.concurrency // 2)),
        )
    ]


def _over_limit(facts: Facts, pools: list[_Pool]) -> list[Outcome]:
    """Pools whose smallest child is over the limit at which it is replaced: all are, after every task."""
    told = memory_options(facts)
    limits = [int(told.get(pool.node.name) or number(facts.conf.worker_max_memory_per_child) or 0) for pool in pools]
    return [
        warn(
            "Every child is over worker_max_memory_per_child from the start: each is replaced after every task.",
            f"the smallest takes {_mib(smallest)}, the limit is {_mib(limit * KIB)}",
            fix="# in KiB; leave room for what tasks need:\n"
            + memory_line(facts, 2 * smallest // KIB, pool.node.name if pool.node.name in told else ""),
            subject=pool.node.name,
        )
        for pool, limit in zip(pools, limits, strict=True)
        if limit and pool.children and (smallest := min(child.rss for child in pool.children)) > limit * KIB
    ]


def _remote_memory(node: Node) -> Outcome:
    usage = node.stats.get("rusage")
    most = usage.get("maxrss") if isinstance(usage, dict) else None
    # in KiB, but on macOS, which cannot be told from here
    figure = f"main process: {_mib(most * KIB)} at most so far" if isinstance(most, int) else ""
    return ok("It is not on this machine: its children are not seen here.", figure, subject=node.name)


# --- replaced ones


def _restarts(facts: Facts) -> list[Outcome]:
    return [_replaced(facts, pool) for pool in _local_pools(facts) if pool.children]


def _replaced(facts: Facts, pool: _Pool) -> Outcome:
    oldest = min(child.created for child in pool.children)
    # none of the first ones may be left
    since = min(oldest, (pool.node.started or oldest) + FORKED_SECONDS)
    later = [child for child in pool.children if child.created > since + REPLACED_SECONDS]
    figure = f"{len(later)} of {len(pool.children)} children started later"
    if not later:
        return ok("All children are the first ones.", figure, subject=pool.node.name)
    why = _recycled_by(facts, pool)
    if why:
        told = f"{why} replaces children; were they killed, the worker's log would have WorkerLostError"
        return ok(told, figure, subject=pool.node.name)
    return warn(
        "Children were replaced though nothing is set that replaces them: they were killed (SIGKILL, mostly for "
        "memory), crashed, or pool_grow added them. Look for WorkerLostError in the worker's log.",
        figure,
        fix="# whether the kernel killed them (as root):\ndmesg -T | grep -i 'killed process'\n"
        "# have them replaced before they are too large (in KiB: 512000 is 500 MB):\n"
        + setting(facts.app, "worker_max_memory_per_child", 512000),
        subject=pool.node.name,
    )


def _recycled_by(facts: Facts, pool: _Pool) -> str:
    """What has children of this pool replaced in good order; empty: nothing that is known."""
    most = (pool.node.stats.get("pool") or {}).get("max-tasks-per-child")
    local = facts.workers.get().local.get(pool.node.pid)
    # by itself it replaces nobody before that many have run
    if isinstance(most, int) and 0 < most <= sum(pool.node.totals.values()):
        return "max_tasks_per_child"
    if facts.conf.worker_max_memory_per_child or (local and local.recycles):
        return "max_memory_per_child"
    return "--autoscale" if pool.node.autoscales else ""


POOL_CHECKS: Final = (
    Check("workers.concurrency", "children of prefork pools against the CPUs here", _concurrency),
    Check("workers.memory", "memory of the workers' processes against what there is", _memory),
    Check("workers.restarts", "children that are younger than the first ones", _restarts),
)
