"""The check of ``beat_schedule``: whether its entries can be read, and live workers can run them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from celery_argsize.doctor.app_words import word_of
from celery_argsize.doctor.beat_facts import Entry, entries, foreign_scheduler, unreadable
from celery_argsize.doctor.checks import NotKnown, fail, ok, unknown
from celery_argsize.doctor.queue_checks import consumed_queues
from celery_argsize.doctor.silence import unheard_names

if TYPE_CHECKING:
    from celery_argsize.doctor.checks import Outcome
    from celery_argsize.doctor.facts import Facts
    from celery_argsize.doctor.worker_facts import Node

__all__ = ["NO_SCHEDULE", "counted_entries", "knows", "schedule_check", "schedule_of"]

NO_SCHEDULE: Final = "beat_schedule is empty: nothing needs a Beat."


def schedule_of(facts: Facts) -> list[Entry]:
    """What Beat is to send.

    Raises:
        NotKnown: it is kept elsewhere.
    """
    scheduler = foreign_scheduler(facts.app)
    if scheduler:
        message = f"{scheduler} keeps the schedule: it cannot be seen here"
        raise NotKnown(message)
    return entries(facts.app)


def knows(node: Node, task: str) -> bool:
    """Workers do not tell of Celery's own tasks: all have them."""
    return node.registered is None or task in node.registered or task.startswith("celery.")


def schedule_check(facts: Facts) -> list[Outcome]:
    """Whether each entry can be read, and a live worker knows its task and consumes its queue."""
    schedule = schedule_of(facts)
    troubles = [
        fail(
            "This entry cannot be read: Beat ends when it comes to it, or never sends it.",
            "it needs a task, and a schedule that is a number of seconds, a timedelta, a crontab or the like",
            fix=f"# in beat_schedule:\n{name!r}: {{'task': 'NAME.OF.TASK', 'schedule': 60.0}}",
            subject=name,
        )
        for name in unreadable(facts.app)
    ]
    if not schedule:
        return troubles or [ok(NO_SCHEDULE)]
    found = facts.workers.get()
    if troubles and (found.no_control or found.broker_error or not found.nodes):
        return troubles
    if not found.asked().nodes:
        return [unknown(f"{counted_entries(len(schedule))}, and no worker answers that could run what is due")]
    consumed = consumed_queues(facts)
    troubles += [outcome for entry in schedule if (outcome := _unready(facts, entry, consumed))]
    return troubles or [ok("A live worker knows each task and consumes its queue.", counted_entries(len(schedule)))]


def counted_entries(number: int) -> str:
    """How many entries."""
    return f"{number:,} {'entry' if number == 1 else 'entries'}"


def _unready(facts: Facts, entry: Entry, consumed: frozenset[str]) -> Outcome | None:
    nodes = facts.workers.get().live()
    if not any(knows(node, entry.task) for node in nodes):
        return fail(
            "No live worker knows the task that this entry sends: each message is thrown away (“Received unregistered "
            "task”).",
            f"task {entry.task}",
            fix="# import its module in the worker, and see that the name in beat_schedule is the task's own:\n"
            f"celery -A {word_of(facts.app)} inspect registered",
            subject=entry.name,
        )
    if entry.queue is not None and entry.queue not in consumed:
        if deaf := unheard_names(facts):
            reason = f"no worker that answers consumes the queue {entry.queue}, and {deaf[0]} does not answer"
            return unknown(reason, subject=entry.name)
        return fail(
            "No live worker consumes the queue that this entry is sent to.",
            f"task {entry.task}, queue {entry.queue}",
            fix=f"celery -A {word_of(facts.app)} worker -Q {shlex.quote(','.join(sorted({*consumed, entry.queue})))}",
            subject=entry.name,
        )
    return None
