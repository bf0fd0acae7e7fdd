"""The check workers.queues: whether a worker consumes each queue that something is sent to."""

from __future__ import annotations

import shlex
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app import defaulted_tasks, known_queues, routed_queues, word_of
from celery_argsize.doctor.checks import fail, ok, unknown, warn
from celery_argsize.doctor.judge.answering import unheard_names
from celery_argsize.words import counted

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts

#: Parts of the names of queues that Celery has for itself.
_INTERNAL: Final = ("pidbox", "celeryev", "celery_delayed_")


def consumed_queues(facts: Facts) -> frozenset[str]:
    """The queues that somebody consumes.

    Raises:
        Unavailable: no worker answers.
    """
    workers = facts.workers.get()
    others = {name for name, queue in workers.counted.items() if queue.consumers}
    return frozenset({queue for node in workers.live() for queue in node.queues} | others)


def _redis_queues(facts: Facts) -> dict[str, int]:
    """Queue → messages that wait in it, on the Redis servers that carry messages."""
    servers = [server for server in facts.redis.found or () if "messages" in server.roles and not server.error]
    return {name: count for server in reversed(servers) for name, count in server.queues.items()}


def waiting_in(facts: Facts, queue: str) -> int | None:
    """How many messages wait in *queue*; ``None``: not known."""
    counted_queue = facts.workers.get().counted.get(queue)
    return counted_queue.messages if counted_queue else _redis_queues(facts).get(queue)


def queues(facts: Facts) -> list[Outcome]:
    """Judge who consumes each queue."""
    consumed, uncounted = consumed_queues(facts), facts.workers.get().uncounted
    names = known_queues(facts.app).union(_redis_queues(facts)) - consumed - uncounted.keys()
    outcomes = [
        outcome
        for name in sorted(names)
        if not any(part in name for part in _INTERNAL)
        if (outcome := _unconsumed(facts, name, consumed))
    ]
    outcomes += _uncounted({name: why for name, why in uncounted.items() if name not in consumed})
    figure = f"{len(consumed)} consumed: {', '.join(sorted(consumed))}"
    return outcomes or [ok("Every queue that is known is consumed.", figure)]


def _uncounted(reasons: dict[str, str]) -> list[Outcome]:
    """One outcome for all queues that were not counted for one reason."""
    names = defaultdict[str, list[str]](list)
    for name, reason in reasons.items():
        names[reason].append(name)
    return [
        unknown(
            f"nobody who answers consumes {first}{f' and {len(rest):,} more' if rest else ''}, and who else does, and "
            f"what waits, is not known: {reason}"
        )
        for reason, (first, *rest) in names.items()
    ]


def _unconsumed(facts: Facts, name: str, consumed: frozenset[str]) -> Outcome | None:
    """What to say of a queue that no worker which answers consumes; ``None``: nothing, as nothing is sent there."""
    app, waiting = facts.app, waiting_in(facts, name)
    routed = routed_queues(app)
    defaulted = defaulted_tasks(app) if name == app.conf.task_default_queue else []
    if not waiting and name not in routed and not defaulted:
        return None
    silent = unheard_names(facts)
    if silent and name not in facts.workers.get().counted:
        return unknown(f"nobody who answers consumes it, and {silent[0]} does not answer", subject=name)
    celery = f"celery -A {word_of(app)}"
    fix = (
        f"# have a worker consume it as well:\n{celery} worker -Q {shlex.quote(','.join(sorted({*consumed, name})))}\n"
        f"# or one that runs already, until it ends:\n{celery} control add_consumer {shlex.quote(name)}"
    )
    if waiting:
        return fail("Messages wait there and no worker consumes it.", f"{waiting:,} waiting", fix=fix, subject=name)
    if name in routed:
        return warn(f"No worker consumes it, and {routed[name]}.", "nothing waits yet", fix=fix, subject=name)
    reason = "It is the default queue and nobody consumes it: they would wait, if ever sent."
    return ok(reason, f"{counted(len(defaulted), 'task')} would go there, nothing waits", subject=name)
