"""The checks of the group workers: who answers, their pools, memory, queues and tasks."""

from __future__ import annotations

import shlex
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor import app as apps
from celery_argsize.doctor.checks import Check, Outcome, fail, ok, unknown, warn
from celery_argsize.doctor.facts import GET_PSUTIL, NO_PSUTIL, Unavailable
from celery_argsize.doctor.judge.host import child_limit, less_memory, main_process
from celery_argsize.doctor.judge.settings import child_limits
from celery_argsize.words import counted, size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery_argsize.doctor.facts import CeleryProcess, Facts, WorkerFacts

#: Seconds after its start in which a worker may not answer yet.
STARTING_SECONDS: Final = 60
#: Seconds to listen before a worker counts as silent.
LISTENED_AT_LEAST: Final = 1.0
#: On a slow broker, that many times as long as connecting took.
ANSWER_TIMES: Final = 3
#: Prefork children that are fine, for each CPU and in all. Celery starts one a CPU.
CHILDREN_PER_CPU: Final = 4
CHILDREN_ALWAYS: Final = 8
#: How many of many names are shown.
SHOWN: Final = 5
#: Parts of the names of queues that Celery has for itself.
_INTERNAL: Final = ("pidbox", "celeryev", "celery_delayed_")


def _some(names: Sequence[str]) -> str:
    """The first of *names*, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _answering(facts: Facts) -> list[Outcome]:
    workers = facts.workers.get().asked()
    if not facts.conf.worker_enable_remote_control:
        return [unknown("worker_enable_remote_control is off")]
    if not workers.nodes:
        return _nobody(facts, workers)
    figure = _some([node.name for node in workers.nodes])
    if quiet := [node.name for node in workers.nodes if not node.heartbeats]:
        figure += f"; no heartbeat within {workers.listened:.0f} s from {_some(quiet)}"
    outcomes = [ok("Workers answer.", figure)]
    for name in workers.shared_names:
        fix = "celery worker -n worker1@%h  # %h: host"
        outcomes.append(warn("Several workers have this name.", fix=fix, subject=name))
    return [*outcomes, *_silent(facts, workers), *_late_heartbeats(facts)]


def _nobody(facts: Facts, workers: WorkerFacts) -> list[Outcome]:
    if workers.listened < max(LISTENED_AT_LEAST, ANSWER_TIMES * (workers.connect_seconds or 0)):
        reason = "too little time to hear workers: --timeout 60"
        raise Unavailable(reason)
    silent = [*_silent(facts, workers)]
    if any(outcome.verdict == "unknown" for outcome in silent):
        return silent
    figure = f"0 answers within {workers.listened:.0f} s"
    reason = "No worker answers: none runs, or all are stuck."
    return [fail(reason, figure, fix=f"celery -A {apps.word_of(facts.app)} worker"), *silent]


def _silent(facts: Facts, workers: WorkerFacts) -> Iterator[Outcome]:
    """Workers with a heartbeat or a process here, that do not answer."""
    figure = f"no answer within {workers.listened:.0f} s"
    for name in workers.silent:
        reason = "It sends heartbeats only: it is stuck, or solo and in a task."
        yield fail(reason, figure, fix="py-spy dump --pid PID", subject=name)
    for process in _unheard(facts):
        pid, subject = process.pid, f"pid {process.pid}"
        young = time.time() - process.created <= STARTING_SECONDS
        if process.stopped:
            reason = "It is stopped (SIGSTOP); what it has fetched waits."
            yield fail(reason, fix=f"kill -CONT {pid}", subject=subject)
        elif young or (process.pool or facts.conf.worker_pool) == "solo":
            yield unknown("it is starting, or a solo worker in a task", subject=subject)
        else:
            reason = "It is stuck, or shutting down."
            yield fail(reason, figure, fix=f"py-spy dump --pid {pid}", subject=subject)


def _unheard(facts: Facts) -> list[CeleryProcess]:
    """Workers of the app on this machine, at its broker, that do not answer."""
    workers, host = facts.workers.get(), facts.host.value
    if host is None or workers.shared_names:  # of two workers with one name, only one pid is known
        return []
    pids = {node.pid for node in workers.nodes}
    return [
        process
        for process in host.processes
        if process.kind == "worker"
        and process.pid not in pids
        and apps.is_of_app(facts.app, process.app)
        and not process.elsewhere(workers.port)
    ]


def unheard_names(facts: Facts) -> list[str]:
    """All workers that are known and do not answer: by name, or by pid."""
    pids = [f"the worker with pid {process.pid}" for process in _unheard(facts)]
    return [*facts.workers.get().silent, *pids]


def _late_heartbeats(facts: Facts) -> Iterator[Outcome]:
    for node in facts.workers.get().nodes:
        gaps = [later.received - earlier.received for earlier, later in pairwise(node.heartbeats)]
        if gaps and max(gaps) > 2 * node.heartbeats[0].every + 1:
            reason = "Late heartbeats: it lacks CPU or memory, or its connection hangs."
            figure = f"up to {max(gaps):.1f} s instead of {node.heartbeats[0].every:g} s"
            yield warn(reason, figure, fix=less_memory(facts, 2), subject=node.name)


def _concurrency(facts: Facts) -> Outcome:
    nodes, host = facts.workers.get().live(), facts.host.get()
    here = [node for node in nodes if node.hostname == host.hostname and node.pool == "prefork"]
    children = sum(node.concurrency for node in here)
    figure = f"prefork children here: {children}, for {counted(host.cpus, 'CPU')}"
    if children <= max(CHILDREN_PER_CPU * host.cpus, CHILDREN_ALWAYS):
        return ok("The CPUs bear that.", figure)
    reason = "They take the CPU from each other and from heartbeats."
    line = apps.setting(facts.app, "worker_concurrency", max(1, host.cpus // len(here)))
    return warn(reason, figure, fix=f"{line}\n# or, for tasks that only wait: -P threads")


def _memory(facts: Facts) -> list[Outcome]:
    nodes, host = facts.workers.get().live(), facts.host.get()
    if host.psutil_missing:
        return [unknown(NO_PSUTIL, fix=GET_PSUTIL)]
    outcomes, counts, grown, biggest = list[Outcome](), list[int](), 0, 0
    for node in nodes:
        if (main := main_process(facts, node)) is None:
            outcomes.append(ok("Its memory is not seen from here.", subject=node.name))
            continue
        sizes = [process.rss for process in host.processes if process.pid in node.processes]
        most = max(sizes, default=main.rss)
        # what a child shares with its main process counts once
        grown += main.rss + max(0, most - main.rss) * node.concurrency
        biggest = max(biggest, most)
        counts.append(node.concurrency)
        outcomes += _over_limit(facts, node.name, min(sizes, default=0))
    limit = host.memory_limit
    if not counts or limit is None:
        return outcomes
    figure = f"the biggest process {size(biggest)}, the memory here {size(limit)}"
    if grown <= limit:
        return [ok("Were each as big, they would fit.", figure), *outcomes]
    reason = f"Were each as big, they would take {size(grown)}: the kernel kills one."
    # half of the children, and half of the memory for them
    fix = less_memory(facts, max(1, max(counts) // 2), limit // max(1, sum(counts)) >> 10)
    return [warn(reason, figure, fix=fix), *outcomes]


def _over_limit(facts: Facts, worker: str, smallest: int) -> Iterator[Outcome]:
    """Judge a pool whose *smallest* child is over the limit."""
    limits = child_limits(facts)
    limit = int(limits.get(worker) or limits[""]) << 10
    if 0 < limit < smallest:
        reason = "Each child is over its limit, and replaced after every task."
        figure = f"the smallest takes {size(smallest)}, the limit is {size(limit)}"
        fix = child_limit(facts, 2 * smallest >> 10, option=worker in limits)
        yield warn(reason, figure, fix=fix, subject=worker)


def consumed_queues(facts: Facts) -> frozenset[str]:
    """Queues that are consumed; raises ``Unavailable`` if no worker answers."""
    workers = facts.workers.get()
    names = [name for name, queue in workers.counted.items() if queue.consumers]
    return frozenset(names).union(*(node.queues for node in workers.live()))


def waiting_in(facts: Facts, queue: str) -> int | None:
    """How many messages wait in *queue*; ``None``: not known."""
    amqp = facts.workers.get().counted.get(queue)
    return amqp.messages if amqp else _in_redis(facts).get(queue)


def _in_redis(facts: Facts) -> dict[str, int]:
    """Queue → messages that wait in it, on the Redis servers that carry messages."""
    queues: dict[str, int] = {}
    for server in facts.redis.value or ():
        if "messages" in server.roles and not server.error:
            queues = {**server.messages.waiting, **queues}
    return queues


def _queues(facts: Facts) -> list[Outcome]:
    consumed, uncounted = consumed_queues(facts), facts.workers.get().uncounted
    names = apps.known_queues(facts.app).union(_in_redis(facts)) - consumed - uncounted.keys()
    names = {name for name in names if not any(part in name for part in _INTERNAL)}
    outcomes = [outcome for name in sorted(names) for outcome in _unconsumed(facts, name, consumed)]
    if left := [name for name in uncounted if name not in consumed]:
        reason = f"nobody who answers consumes {_some(left)}, and {uncounted[left[0]]}"
        outcomes.append(unknown(reason))
    figure = f"{len(consumed)} consumed: {', '.join(sorted(consumed))}"
    return outcomes or [ok("Every queue that is known is consumed.", figure)]


def _unconsumed(facts: Facts, name: str, consumed: frozenset[str]) -> Iterator[Outcome]:
    """Judge a queue that nobody who answers consumes, if it is used."""
    waiting, sender = waiting_in(facts, name), apps.routed_queues(facts.app).get(name)
    if not waiting and not sender:
        return
    silent, celery = unheard_names(facts), f"celery -A {apps.word_of(facts.app)}"
    queues = shlex.quote(",".join(sorted({*consumed, name})))
    fix = f"{celery} worker -Q {queues}\n# or have a live one consume it:\n"
    fix += f"{celery} control add_consumer {shlex.quote(name)}"
    if silent and name not in facts.workers.get().counted:
        yield unknown(f"{silent[0]} does not answer, and may consume it", subject=name)
    elif waiting:
        yield fail("No worker consumes it.", f"{waiting:,} waiting", fix=fix, subject=name)
    else:
        reason = f"No worker consumes it, and {sender} goes there."
        yield warn(reason, "nothing waits yet", fix=fix, subject=name)


def _registered(facts: Facts) -> list[Outcome]:
    app, nodes, outcomes = facts.app, facts.workers.get().live(), list[Outcome]()
    reason = "It throws away tasks that others on this queue know."
    line = apps.setting(app, "task_default_queue", "a_name_of_its_own")
    fix = f"# deploy the same code to all, or give each app its own queue:\n{line}"
    for node in nodes:
        for queue in node.queues if node.registered is not None else ():
            peers = [other.registered or () for other in nodes if queue in other.queues]
            names = sorted(set().union(*peers).difference(node.registered or ()))
            # where tasks of another app are sent is not known
            lacking = [name for name in names if name not in app.tasks or apps.queue_of(app, name) == queue]
            if lacking:
                figure = f"{len(lacking)} unknown on queue {queue}: {_some(lacking)}"
                outcomes.append(warn(reason, figure, fix=fix, subject=node.name))
    figure = counted(len(nodes), "worker")
    return outcomes or [ok("Workers that share a queue know the same tasks.", figure)]


CHECKS: Final[tuple[Check, ...]] = (
    Check("workers.answering", "who answers a ping, and heartbeats", _answering, vital=True),
    Check("workers.concurrency", "prefork children against the CPUs", _concurrency),
    Check("workers.memory", "memory of the workers here", _memory),
    Check("workers.queues", "who consumes the queues in use", _queues),
    Check("workers.registered", "tasks of workers that share a queue", _registered),
)
