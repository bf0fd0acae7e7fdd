"""The checks of the group workers; that of who answers is in ``answering``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor import app as apps
from celery_argsize.doctor.checks import Check, Outcome, fail, ok, unknown, warn
from celery_argsize.doctor.facts import GET_PSUTIL, NO_PSUTIL
from celery_argsize.doctor.judge.answering import answering, some_of, unheard_names
from celery_argsize.doctor.judge.host import child_limit, less_memory, main_process
from celery_argsize.doctor.judge.settings import child_limits
from celery_argsize.words import counted, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_argsize.doctor.facts import Facts

#: Prefork children for each CPU that are fine, and in all. Celery's default is one each.
CHILDREN_PER_CPU: Final = 4
CHILDREN_ALWAYS: Final = 8
#: Parts of the names of queues that Celery has for itself.
_INTERNAL: Final = ("pidbox", "celeryev", "celery_delayed_")


def _concurrency(facts: Facts) -> Outcome:
    nodes, host = facts.workers.get().live(), facts.host.get()
    here = [node for node in nodes if node.hostname == host.hostname]
    if not here:
        return ok("All workers run on other machines.")
    children = sum(node.concurrency for node in here if node.pool == "prefork")
    figure = f"prefork children: {children}, for {counted(host.cpus, 'CPU')}"
    if children <= max(CHILDREN_PER_CPU * host.cpus, CHILDREN_ALWAYS):
        return ok("The CPUs bear that.", figure)
    reason = "They take the CPU from each other and from heartbeats (“missed heartbeat”)."
    line = apps.setting(facts.app, "worker_concurrency", max(1, host.cpus // len(here)))
    fix = f"{line}\n# or, for tasks that only wait: -P threads, -P gevent"
    return warn(reason, figure, fix=fix)


def _memory(facts: Facts) -> list[Outcome]:
    nodes, host = facts.workers.get().live(), facts.host.get()
    if host.psutil_missing:
        return [unknown(NO_PSUTIL, fix=GET_PSUTIL)]
    outcomes, counts, grown, biggest = list[Outcome](), list[int](), 0, 0
    for node in nodes:
        if (main := main_process(facts, node)) is None:
            outcomes.append(ok("Its memory is not seen from here.", subject=node.name))
            continue
        children = [process.rss for process in host.processes if process.pid in node.processes]
        most = max(children, default=main.rss)
        # what a child shares with its main process counts once
        grown += main.rss + max(0, most - main.rss) * node.concurrency
        biggest = max(biggest, most)
        counts.append(node.concurrency)
        outcomes += _over_limit(facts, node.name, min(children, default=0))
    limit = host.memory_limit
    if not counts or limit is None:
        return outcomes
    figure = f"the biggest process {size(biggest)}, the memory here {size(limit)}"
    if grown <= limit:
        return [ok("They fit, were each as big as the biggest.", figure), *outcomes]
    reason = f"As big as the biggest, they would take {size(grown)}: the kernel kills one."
    # half of the children, and half of the memory for them
    fix = less_memory(facts, max(1, max(counts) // 2), limit // max(1, sum(counts)) >> 10)
    return [warn(reason, figure, fix=fix), *outcomes]


def _over_limit(facts: Facts, worker: str, smallest: int) -> Iterator[Outcome]:
    """Judge a pool whose *smallest* child is over the limit."""
    limits = child_limits(facts)
    limit = int(limits.get(worker) or limits[""]) << 10
    if 0 < limit < smallest:
        reason = "Over worker_max_memory_per_child, each child is replaced after every task."
        figure = f"the smallest takes {size(smallest)}, the limit is {size(limit)}"
        fix = child_limit(facts, smallest >> 9, option=worker in limits)
        yield warn(reason, figure, fix=fix, subject=worker)


def consumed_queues(facts: Facts) -> frozenset[str]:
    """The queues that somebody consumes; raises ``Unavailable`` if no worker answers."""
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
    for server in facts.redis.found or ():
        if "messages" in server.roles and not server.error:
            queues = {**server.messages.waiting, **queues}
    return queues


def _queues(facts: Facts) -> list[Outcome]:
    consumed, uncounted = consumed_queues(facts), facts.workers.get().uncounted
    names = apps.known_queues(facts.app).union(_in_redis(facts)) - consumed - uncounted.keys()
    names = {name for name in names if not any(part in name for part in _INTERNAL)}
    outcomes = [outcome for name in sorted(names) for outcome in _unconsumed(facts, name, consumed)]
    if left := [name for name in uncounted if name not in consumed]:
        reason = f"nobody who answers consumes {some_of(left)}, and {uncounted[left[0]]}"
        outcomes.append(unknown(reason))
    figure = f"{len(consumed)} consumed: {', '.join(sorted(consumed))}"
    return outcomes or [ok("Every queue that is known is consumed.", figure)]


def _unconsumed(facts: Facts, name: str, consumed: frozenset[str]) -> Iterator[Outcome]:
    """Judge a queue that nobody who answers consumes, if messages wait or are sent there."""
    waiting, sender = waiting_in(facts, name), apps.routed_queues(facts.app).get(name)
    silent, celery = unheard_names(facts), f"celery -A {apps.word_of(facts.app)}"
    if not waiting and not sender:
        return
    if silent and name not in facts.workers.get().counted:
        reason = f"nobody who answers consumes it, and {silent[0]} does not answer"
        yield unknown(reason, subject=name)
        return
    queues = shlex.quote(",".join(sorted({*consumed, name})))
    fix = f"{celery} worker -Q {queues}\n# or have a live one consume it:\n"
    fix += f"{celery} control add_consumer {shlex.quote(name)}"
    if waiting:
        reason, figure = "Messages wait and no worker consumes it.", f"{waiting:,} waiting"
        yield fail(reason, figure, fix=fix, subject=name)
    else:
        reason = f"No worker consumes it, and {sender} sends there."
        yield warn(reason, "nothing waits yet", fix=fix, subject=name)


def _registered(facts: Facts) -> list[Outcome]:
    app, nodes, outcomes = facts.app, facts.workers.get().live(), list[Outcome]()
    reason = "It throws away tasks that others on this queue know: other code, or another app."
    line = apps.setting(app, "task_default_queue", "a_name_of_its_own")
    fix = f"# deploy the same code to all, or give each app its own queue:\n{line}"
    for node in nodes:
        for queue in node.queues if node.registered is not None else ():
            peers = [other.registered or () for other in nodes if queue in other.queues]
            lacking = sorted(set().union(*peers).difference(node.registered or ()))
            # where tasks of another app are sent is not known
            lacking = [name for name in lacking if apps.queue_of(app, name) == queue or name not in app.tasks]
            if lacking:
                figure = f"{len(lacking)} unknown on queue {queue}: {some_of(lacking)}"
                outcomes.append(warn(reason, figure, fix=fix, subject=node.name))
    figure = counted(len(nodes), "worker")
    return outcomes or [ok("Workers that share a queue know the same tasks.", figure)]


CHECKS: Final[tuple[Check, ...]] = (
    Check("workers.answering", "who answers a ping, and heartbeats", answering, vital=True),
    Check("workers.concurrency", "children of prefork pools against the CPUs", _concurrency),
    Check("workers.memory", "memory of the workers here against what there is", _memory),
    Check("workers.queues", "queues that are sent to, and who consumes them", _queues),
    Check("workers.registered", "the tasks of workers that share a queue", _registered),
)
