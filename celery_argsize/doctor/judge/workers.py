"""The checks of the group workers; that of who answers is in ``answering``."""

from __future__ import annotations

import shlex
from itertools import chain
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor import app as apps
from celery_argsize.doctor.checks import Check, Outcome, fail, ok, unknown, warn
from celery_argsize.doctor.facts import GET_PSUTIL, NO_PSUTIL, Unavailable
from celery_argsize.doctor.judge.answering import answering, some_of, unheard_names
from celery_argsize.doctor.judge.host import less_memory
from celery_argsize.doctor.judge.settings import memory_line, memory_options
from celery_argsize.words import counted, size

if TYPE_CHECKING:
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
        raise Unavailable(f"{NO_PSUTIL}: {GET_PSUTIL}")  # noqa: EM102, TRY003
    outcomes, counts, grown, biggest = list[Outcome](), list[int](), 0, 0
    for node in nodes:
        main = host.process(node.pid) if node.hostname == host.hostname else None
        if main is None:
            outcomes.append(ok("Its memory is not seen from here.", subject=node.name))
            continue
        processes = [process for process in host.processes if process.ppid == main.pid]
        children = [process.rss for process in processes if process.pid in node.processes]
        most = max(children, default=main.rss)
        # what a child shares with its main process counts once
        grown += main.rss + max(0, most - main.rss) * node.concurrency
        biggest = max(biggest, most)
        counts.append(node.concurrency)
        if children:
            outcomes += _over_limit(facts, node.name, min(children))
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


def _over_limit(facts: Facts, name: str, smallest: int) -> list[Outcome]:
    """Judge a pool whose smallest child is over the limit."""
    options, default = memory_options(facts), apps.number(facts.conf.worker_max_memory_per_child)
    limit = int(options.get(name) or default or 0) << 10
    if not 0 < limit < smallest:
        return []
    reason = "Over worker_max_memory_per_child, each child is replaced after every task."
    figure = f"the smallest takes {size(smallest)}, the limit is {size(limit)}"
    fix = memory_line(facts, smallest >> 9, name if name in options else "")
    return [warn(reason, figure, fix=fix, subject=name)]


def consumed_queues(facts: Facts) -> frozenset[str]:
    """The queues that somebody consumes; raises ``Unavailable`` if no worker answers."""
    workers = facts.workers.get()
    counted = [name for name, queue in workers.counted.items() if queue.consumers]
    return frozenset(counted).union(*(node.queues for node in workers.live()))


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
    judged = [_unconsumed(facts, name, consumed) for name in sorted(names)]
    outcomes = [outcome for outcome in judged if outcome]
    if left := [name for name in uncounted if name not in consumed]:
        reasons = "; ".join(dict.fromkeys(uncounted[name] for name in left))
        outcomes.append(unknown(f"nobody who answers consumes {some_of(left)}, and {reasons}"))
    figure = f"{len(consumed)} consumed: {', '.join(sorted(consumed))}"
    return outcomes or [ok("Every queue that is known is consumed.", figure)]


def _unconsumed(facts: Facts, name: str, consumed: frozenset[str]) -> Outcome | None:
    """Judge a queue that nobody who answers consumes; ``None`` if nothing is sent there."""
    app, waiting = facts.app, waiting_in(facts, name)
    routed = apps.routed_queues(app).get(name)
    defaulted = apps.defaulted_tasks(app) if name == app.conf.task_default_queue else []
    if not waiting and not routed and not defaulted:
        return None
    silent = unheard_names(facts)
    if silent and name not in facts.workers.get().counted:
        reason = f"nobody who answers consumes it, and {silent[0]} does not answer"
        return unknown(reason, subject=name)
    celery, every = f"celery -A {apps.word_of(app)}", ",".join(sorted({*consumed, name}))
    fix = f"{celery} worker -Q {shlex.quote(every)}\n# or have a live one consume it:\n"
    fix += f"{celery} control add_consumer {shlex.quote(name)}"
    if waiting:
        reason = "Messages wait and no worker consumes it."
        return fail(reason, f"{waiting:,} waiting", fix=fix, subject=name)
    if routed:
        reason = f"No worker consumes it, and {routed}."
        return warn(reason, "nothing waits yet", fix=fix, subject=name)
    reason = "Nobody consumes the default queue: they would wait, if ever sent."
    return ok(reason, f"{counted(len(defaulted), 'task')} would go there", subject=name)


def _registered(facts: Facts) -> list[Outcome]:
    app, nodes, outcomes = facts.app, facts.workers.get().live(), list[Outcome]()
    reason = "It throws away tasks that others on this queue know: other code, or another app."
    line = apps.setting(app, "task_default_queue", "a_name_of_its_own")
    fix = f"# deploy the same code to all, or give each app its own queue:\n{line}"
    for node in nodes:
        for queue in node.queues if node.registered is not None else ():
            peers = [other.registered or () for other in nodes if queue in other.queues]
            lacking = sorted({*chain(*peers)}.difference(node.registered or ()))
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
