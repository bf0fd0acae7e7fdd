"""The check workers.queues: whether a worker consumes each queue that something is sent to."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app import defaulted_tasks, known_queues, routed_queues, word_of
from celery_argsize.doctor.checks import fail, ok, unknown, warn
from celery_argsize.doctor.judge.answering import some_of, unheard_names
from celery_argsize.words import counted

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts

#: Parts of the names of queues that Celery has for itself.
_INTERNAL: Final = ("pidbox", "celeryev", "celery_delayed_")


def consumed_queues(facts: Facts) -> frozenset[str]:
    """The queues that somebody consumes; raises ``Unavailable`` if no worker answers."""
    workers = facts.workers.get()
    queues = {queue for node in workers.live() for queue in node.queues}
    return frozenset(queues | {name for name, queue in workers.counted.items() if queue.consumers})


def waiting_in(facts: Facts, queue: str) -> int | None:
    """How many messages wait in *queue*; ``None``: not known."""
    amqp = facts.workers.get().counted.get(queue)
    return amqp.messages if amqp else _in_redis(facts).get(queue)


def _in_redis(facts: Facts) -> dict[str, int]:
    """Queue → messages that wait in it, on the Redis servers that carry messages."""
    servers = [server for server in facts.redis.found or () if "messages" in server.roles and not server.error]
    return {name: count for server in reversed(servers) for name, count in server.queues.items()}


def queues(facts: Facts) -> list[Outcome]:
    """Judge who consumes each queue."""
    consumed, uncounted = consumed_queues(facts), facts.workers.get().uncounted
    outcomes = []
    for name in sorted(known_queues(facts.app).union(_in_redis(facts)) - consumed - uncounted.keys()):
        if not any(part in name for part in _INTERNAL):
            outcomes += _unconsumed(facts, name, consumed)
    for reason in sorted({*uncounted.values()}):
        names = [name for name, why_not in uncounted.items() if why_not == reason and name not in consumed]
        if names:
            gap = f"nobody who answers consumes {some_of(names)}, and who else does, and what waits, is not known"
            outcomes.append(unknown(f"{gap}: {reason}"))
    return outcomes or [
        ok("Every queue that is known is consumed.", f"{len(consumed)} consumed: {', '.join(sorted(consumed))}")
    ]


def _unconsumed(facts: Facts, name: str, consumed: frozenset[str]) -> list[Outcome]:
    """What to say of a queue that no worker which answers consumes; nothing if nothing is sent there."""
    app, waiting = facts.app, waiting_in(facts, name)
    routed = routed_queues(app)
    defaulted = defaulted_tasks(app) if name == app.conf.task_default_queue else []
    if not waiting and name not in routed and not defaulted:
        return []
    silent = unheard_names(facts)
    if silent and name not in facts.workers.get().counted:
        return [unknown(f"nobody who answers consumes it, and {silent[0]} does not answer", subject=name)]
    celery, all_queues = f"celery -A {word_of(app)}", shlex.quote(",".join(sorted({*consumed, name})))
    fix = (
        f"# have a worker consume it as well:\n{celery} worker -Q {all_queues}\n"
        f"# or one that runs already, until it ends:\n{celery} control add_consumer {shlex.quote(name)}"
    )
    if waiting:
        return [fail("Messages wait there and no worker consumes it.", f"{waiting:,} waiting", fix=fix, subject=name)]
    if name in routed:
        return [warn(f"No worker consumes it, and {routed[name]}.", "nothing waits yet", fix=fix, subject=name)]
    reason = "It is the default queue and nobody consumes it: they would wait, if ever sent."
    return [ok(reason, f"{counted(len(defaulted), 'task')} would go there, nothing waits", subject=name)]
