"""The check of queues: whether somebody takes what is sent there."""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from celery_argsize.doctor.app import defaulted_tasks, is_of_app, known_queues, routed_queues, word_of
from celery_argsize.doctor.checks import Check, fail, ok, unknown, warn
from celery_argsize.words import counted

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import CeleryProcess, Facts

#: Queues that Celery has for itself.
_INTERNAL: Final = ("pidbox", "celeryev", "celery_delayed_")


class _Queues(NamedTuple):
    """What is known of all queues."""

    consumed: frozenset[str]
    waiting: dict[str, int | None]
    silent: tuple[str, ...]
    """Workers that do not answer, or not yet: they may consume what nobody else does."""


def consumed_queues(facts: Facts) -> frozenset[str]:
    """The queues that somebody takes from.

    Raises:
        Unavailable: no worker answers.
    """
    found = facts.workers.get()
    others = {name for name, count in found.counted.items() if count.consumers}
    return frozenset({queue for node in found.live() for queue in node.queues} | others)


def waiting_in(facts: Facts, queue: str) -> int | None:
    """How many messages wait in *queue*; ``None`` where that is not known."""
    told = facts.workers.get().counted.get(queue)
    if told is not None:
        return told.messages
    for server in facts.redis.found or ():
        if "messages" in server.roles and not server.error and queue in server.queues:
            return server.queues[queue]
    return None


def _judge(facts: Facts) -> list[Outcome]:
    app: Any = facts.app
    consumed = consumed_queues(facts)
    servers = [server for server in facts.redis.found or () if "messages" in server.roles and not server.error]
    names = known_queues(app).union(*(server.queues for server in servers))
    names = {name for name in names if not any(part in name for part in _INTERNAL)}
    queues = _Queues(consumed, {name: waiting_in(facts, name) for name in sorted(names)}, (*unheard_names(facts),))
    routed, default = routed_queues(app), str(app.conf.task_default_queue)
    outcomes = [
        outcome
        for name in queues.waiting
        if name not in {*consumed, *facts.workers.get().uncounted}
        and (outcome := _unconsumed(facts, queues, name, routed, default))
    ]
    outcomes += _uncounted(facts, consumed)
    figure = f"{len(consumed)} consumed: {', '.join(sorted(consumed))}"
    return outcomes or [ok("Every queue that is known is consumed.", figure)]


def _uncounted(facts: Facts, consumed: frozenset[str]) -> list[Outcome]:
    """Queues of which the broker did not tell; one line for all that have one reason."""
    whys: dict[str, list[str]] = defaultdict(list)
    for name, why in facts.workers.get().uncounted.items():
        if name not in consumed:
            whys[why].append(name)
    return [
        unknown(f"nobody who answers consumes {_shown(names)}, and who else does, and what waits, is not known: {why}")
        for why, names in whys.items()
    ]


def _shown(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def _unconsumed(facts: Facts, queues: _Queues, name: str, routed: dict[str, str], default: str) -> Outcome | None:
    waiting = queues.waiting[name]
    if not waiting and name not in routed and (name != default or not defaulted_tasks(facts.app)):
        return None
    if queues.silent and name not in facts.workers.get().counted:
        return unknown(f"nobody who answers consumes it, and {queues.silent[0]} does not answer", subject=name)
    start = f"celery -A {word_of(facts.app)} worker -Q {shlex.quote(','.join(sorted({*queues.consumed, name})))}"
    fix = f"# have a worker consume it as well:\n{start}\n# or one that runs already, until it ends:\n"
    fix += f"celery -A {word_of(facts.app)} control add_consumer {shlex.quote(name)}"
    if waiting:
        return fail("Messages wait there and no worker consumes it.", f"{waiting:,} waiting", fix=fix, subject=name)
    if name in routed:
        return warn(f"No worker consumes it, and {routed[name]}.", "nothing waits yet", fix=fix, subject=name)
    count = len(defaulted_tasks(facts.app))
    told = "It is the default queue and nobody consumes it: they would wait, if ever sent."
    return ok(told, f"{counted(count, 'task')} would go there, nothing waits", subject=name)


QUEUE_CHECKS: Final = (Check("workers.queues", "queues that are sent to, and who consumes them", _judge),)

#: Seconds after its start in which a worker need not answer: an app may take long to import.
STARTING_SECONDS: Final = 60


def is_starting(process: CeleryProcess) -> bool:
    """Whether it is that young."""
    return time.time() - process.created <= STARTING_SECONDS


def unheard(facts: Facts) -> list[CeleryProcess]:
    """Workers of the app on this machine, at its broker, that no answering node is."""
    found, host = facts.workers.get(), facts.host.found
    if host is None or found.twice:  # of two with one name, one process is known only
        return []
    answering = {node.pid for node in found.nodes}
    parents = {process.ppid for process in host.processes if process.kind == "worker"}
    return [
        process
        for process in host.processes
        if process.kind == "worker" and {process.pid, process.ppid}.isdisjoint(answering) and process.pid not in parents
        if is_of_app(facts.app, process.app) and _at_broker(facts, process)
    ]


def _at_broker(facts: Facts, process: CeleryProcess) -> bool:
    """Not one that ended meanwhile, nor of another installation of the app, which has a broker of its own."""
    found = facts.workers.get()
    local = found.local.get(process.pid)
    if local is None:
        return False
    return not local.elsewhere(found.port) or (is_starting(process) and not local.ports)


def unheard_names(facts: Facts) -> list[str]:
    """All of them, for people: by their node's name, or by their pid."""
    return [*facts.workers.get().silent, *(f"the worker with pid {process.pid}" for process in unheard(facts))]
